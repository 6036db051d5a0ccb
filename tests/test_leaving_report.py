import io
import re

import numpy as np
from PIL import Image

from tfedge.report import ladder, leaving
from tfedge.report.sheet import drawn


def bill(mean, worst, whole, **more):
    return {
        "mean": mean, "p50": worst / 2, "p99": worst, "worst": worst, "whole": whole,
        "saved": 1 - mean / whole, "exits": [worst / 2, worst], **more,
    }  # fmt: skip


LEAVING = {
    "accuracy": 0.9, "accuracy_low": 0.88, "accuracy_high": 0.92, "count": 1000, "split": "test",
    "last_accuracy": 0.905, "drop": 0.005, "effort": 0.4, "thresholds": [0.8],
    "exits": [
        {"exit": 0, "share": 0.75, "accuracy": 0.95, "accuracy_of_all": 0.8},
        {"exit": 1, "share": 0.25, "accuracy": 0.75, "accuracy_of_all": 0.905},
    ],
    "cost": bill(0.6, 1.1, 1.0),
    "boards": {},
    "points": [
        {"effort": e, "accuracy": a, "shares": [1 - e, e], "mean_cost": c, "boards": {"pi5": m}}
        for e, a, c, m in [(0, 0.8, 0.3, 3e5), (0.4, 0.9, 0.6, 6e5), (1, 0.905, 1.0, 1e6)]
    ],
}  # fmt: skip


def report(boards=None):
    plain = {
        "name": "student", "use": "evaluate", "split": "test", "accuracy": 0.85, "macs": 500_000,
        "arm_pi5": 550_000,
    }  # fmt: skip
    tuned = {"name": "int8", "use": "convert", "split": "tune", "accuracy": 0.99, "macs": 400_000}
    own = {**LEAVING, "boards": boards or {}}
    early = {
        "name": "tested", "use": "evaluate", "split": "test", "accuracy": 0.905,
        "macs": 1_000_000, "arm_pi5": 1_000_000, "leaving": own,
    }  # fmt: skip
    return {"pipeline": "p", "stages": [plain, tuned, early]}


def test_the_section_tells_shares_accuracies_and_costs():
    text = ladder.markdown(report())
    assert "## Leaving early" in text
    assert "| exit_0 | 75.0 % | 95.00 % | 80.00 % |" in text
    assert "| MACs | 600,000 | 550,000 | 1,100,000 | 1,100,000 | 1,000,000 | 40.0 % |" in text
    assert "| 0.400 | 600,000 | 90.00 % | 60%, 40% |" in text
    assert "accuracy 90.00 % (88.00 to 92.00) of 1,000 inputs, against 90.50 %" in text


def test_a_report_without_exits_has_no_such_section():
    bare = {"pipeline": "p", "stages": report()["stages"][:2]}
    assert "Leaving" not in ladder.markdown(bare)
    assert leaving.of(bare) is None
    assert leaving.static(bare) == []


def test_instructions_come_before_macs_where_they_were_counted():
    text = ladder.markdown(report({"pi5": bill(6e5, 1.1e6, 1e6)}))
    assert text.index("| Pi 5 instructions |") < text.index("| MACs | 600,000")
    assert "| effort | mean cost (Pi 5 instructions) |" in text


def test_the_points_beside_the_curve_are_of_its_split_and_in_its_unit():
    assert leaving.static(report()) == [
        ("student", 500_000, 85.0),
        ("tested, last exit", 1_000_000, 90.5),
    ]
    boards = {"pi5": bill(6e5, 1.1e6, 1e6)}
    assert leaving.static(report(boards))[0] == ("student", 550_000, 85.0)


def test_pictures_are_named_where_they_are_there():
    assert "![" not in ladder.markdown(report())
    text = ladder.markdown(report(), ("leaving.svg", "leaving.png"))
    assert re.findall(r"\]\((.*?)\)", text) == ["leaving.svg", "leaving.png"]


def test_the_curve_is_drawn_the_same_twice():
    one, two = (leaving.plot(report()) for _ in range(2))
    assert one == two
    assert one.lstrip().startswith(b"<?xml")
    assert b"student" in one


def test_a_sheet_has_a_row_for_each_exit():
    grey = np.full((8, 8, 1), 200, np.uint8)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    sheet = Image.open(io.BytesIO(drawn([[grey, grey], []])))
    assert sheet.size == (2 * 68 + 4, 2 * 68 + 4)
    assert sheet.getpixel((30, 30)) == (200, 200, 200)
    assert sheet.getpixel((30, 100)) == (255, 255, 255)
    assert Image.open(io.BytesIO(drawn([[red]]))).getpixel((30, 30)) == (255, 0, 0)
    assert drawn([[red]]) == drawn([[red]])
