import copy

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import opened
from test_leaving_report import LEAVING

from tfedge.report import drawing, front, ladder, page, plots
from tfedge.report.page import Pictures

RNG = np.random.default_rng(0)
CLASSES = ["cat", "a dog with a very long name indeed", "eel"]


def stage(name, use, of="", **figures):
    bounds = {"accuracy_low": figures["accuracy"] - 0.01, "accuracy_high": figures["accuracy"]}
    return {
        "name": name, "use": use, "of": of, "key": "0" * 64, "seconds": 1.5, "count": 1000,
        "split": "tune", **bounds, **figures,
    }  # fmt: skip


def a_curve(error):
    return {"error": error, "bins": [{"count": 9, "confidence": 0.9, "accuracy": 0.8}]}


TEST = {
    "accuracy": 0.85, "accuracy_low": 0.83, "accuracy_high": 0.87, "count": 1000, "split": "test",
    "labels": CLASSES, "per_class": dict(zip(CLASSES, (0.9, 0.8, 0.85), strict=True)),
    "confusion": [[90, 10, 0], [15, 80, 5], [0, 15, 85]], "agreement": 0.995,
    "reliability": a_curve(0.1), "float_reliability": a_curve(0.2),
    "against": {"stage": "teacher", "accuracy": 0.9},
    "changed": {"lost": 5, "won": 3, "shown": [
        {"input": 17, "true": 0, "answered": 2}, {"input": 40, "true": 1, "answered": 0}]},
}  # fmt: skip
ROW = {"layer": "conv", "kind": "Conv2D", "own_db": 9.5, "arrived_db": 20.25, "lost": 1,
       "channels": 8, "order": 1, "weights_db": 30.0, "fused": ["conv"]}  # fmt: skip
COUNTS = {"low": -1.0, "high": 1.0, "float": [1, 5, 9, 0], "quantised": [2, 4, 9, 0]}
REPORT = {
    "pipeline": "<pets> & co",
    "stages": [
        stage("teacher", "train", accuracy=0.9, raw_bytes=1_000_000, macs=9000, host_ms_p50=2.0,
              arm_pi5=12_000_000),
        stage("student", "distill", accuracy=0.88, raw_bytes=200_000, macs=900, host_ms_p50=0.5),
        stage("int8", "convert", "student", accuracy=0.86, raw_bytes=40_000, macs=900),
        stage("a_long_name_tested", "evaluate", "int8", accuracy=0.85, raw_bytes=40_000,
              macs=109_856_640, parameters=12_690_826, zipped_bytes=12_569_555, sparsity=0.5,
              arm_pi4=138_812_695, arena_bytes=2_602_112, arena_measured_bytes=2_371_584,
              split="test", host_ms_p50=0.1, arm_pi5=1_000_000, notes=["one thing"]),
    ],
    "test": TEST,
    "layers": {"inputs": 32, "layers": [ROW, {**ROW, "layer": "pool", "own_db": 60.0}],
               "histograms": {"conv": {"values": COUNTS, "weights": COUNTS}},
               "zeros": {"conv": 0.5, "dense": 0.0}},
    "training": {"teacher": [{"loss": 1.0, "val_loss": 1.5, "accuracy": 0.5, "val_accuracy": 0.4},
                             {"loss": 0.5, "val_loss": 0.7, "accuracy": 0.8, "val_accuracy": 0.7}]},
    "targets": [
        {"target": "max_bytes", "stage": "int8", "limit": 50_000, "value": 40_000,
         "verdict": "met"},
        {"target": "min_accuracy", "stage": "int8", "limit": 0.9, "value": 0.85, "verdict":
         "missed", "missed_by": 0.05, "on": "test"},
    ],
    "versions": {"numpy": "2.1"}, "seed": 7, "data": {"use": "folder", "fingerprint": "ab" * 32},
    "made": {"student": {"epochs": 3, "augment": ["flip"]}},
}  # fmt: skip
EARLY = {**stage("early", "evaluate", "int8", accuracy=0.905, macs=1_000_000, raw_bytes=50_000),
         "split": "test", "leaving": LEAVING}  # fmt: skip
PICTURES = Pictures(list(RNG.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    report = {**REPORT, "stages": [*REPORT["stages"], EARLY]}
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page.html(report, PICTURES), "utf-8")
    return file


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_stands_alone_is_whole_and_can_be_read_by_all(chromium, file, width, scheme):
    with opened(chromium, file, width, scheme) as seen:
        assert seen.errors == []
        assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        ids = seen.page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
        assert len(set(ids)) == len(ids)
        cut = """all => all.filter(one => one.scrollWidth > one.clientWidth + 1
                                          && getComputedStyle(one).display != 'inline')
                           .map(one => one.outerHTML.slice(0, 200))"""
        assert (
            seen.page.eval_on_selector_all("main :not(svg, svg *, thead, thead *), header *", cut)
            == []
        )
        drawn = """all => all.filter(one => one.getBoundingClientRect().height < 100).length"""
        assert seen.page.eval_on_selector_all("svg.plot", drawn) == 0
        found = Axe().run(seen.page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    assert len(file.read_bytes()) < 3_000_000


@pytest.mark.slow
def test_what_axe_finds_on_a_page_that_cannot_be_read_would_be_seen(chromium, file, tmp_path):
    pale = tmp_path / "pale.html"
    pale.write_text(file.read_text("utf-8").replace("--text: #1b1d21", "--text: #cccccc"), "utf-8")
    with opened(chromium, pale) as seen:
        found = Axe().run(seen.page).response["violations"]
    assert "color-contrast" in [one["id"] for one in found]


@pytest.mark.slow
def test_texts_in_a_picture_stay_inside_it_and_off_one_another(chromium, file):
    boxes = """all => all.map(plot => [plot.getAttribute('aria-label'), [plot, ...plot
        .querySelectorAll('text')].map(one => { const box = one.getBoundingClientRect();
            return [box.left, box.top, box.right, box.bottom] })])"""
    with opened(chromium, file) as seen:
        plots = seen.page.eval_on_selector_all("svg.plot", boxes)
    assert plots
    for words, (outer, *texts) in plots:
        for left, top, right, bottom in texts:
            assert left >= outer[0] - 1, words
            assert right <= outer[2] + 1, words
            assert top >= outer[1] - 2, words
            assert bottom <= outer[3] + 2, words
        for number, one in enumerate(texts):
            for other in texts[number + 1 :]:
                across = min(one[2], other[2]) - max(one[0], other[0])
                down = min(one[3], other[3]) - max(one[1], other[1])
                assert across < 2 or down < 3, (words, one, other)


@pytest.mark.slow
def test_the_first_screen_answers_whether_it_is_good_enough(chromium, file):
    with opened(chromium, file, width=400) as seen:
        verdict = seen.page.locator(".verdict")
        assert verdict.inner_text().startswith("Not good enough: 1 of 2 targets missed.")
        tiles = seen.page.locator(".tiles")
        assert "50,000" in tiles.inner_text()
        for shown in (verdict, tiles):
            box = shown.bounding_box()
            assert box["y"] + box["height"] <= 900


def test_every_section_and_figure_is_there_once(file):
    text = file.read_text("utf-8")
    sections = ["targets", "ladder", "fronts", "leaving", "test", "layers", "training", "made"]
    assert [text.count(f'<section id="{name}">') for name in sections] == [1] * len(sections)
    for words in ("Accuracy over bytes of the file", "Accuracy over Pi 5 instructions",
                  "Accuracy by class; lowest: a dog", "Confusion matrix",
                  "Accuracy over confidence",
                  "Histogram of the values of conv", "Histogram of the weights of conv",
                  "Share of zeros", "Loss and accuracy while teacher was trained",
                  "Accuracy over mean cost"):  # fmt: skip
        assert text.count(f'aria-label="{words}') == 1, words
    assert text.count('<img src="data:image/png') == 2


def test_a_pipelines_name_is_text_and_not_markup(file):
    text = file.read_text("utf-8")
    assert "<h1>&lt;pets&gt; &amp; co</h1>" in text


def test_the_same_report_makes_the_same_page():
    assert page.html(REPORT, PICTURES) == page.html(copy.deepcopy(REPORT), PICTURES)


def test_a_report_of_one_stage_without_figures_has_a_page():
    bare = {"name": "x", "use": "mine.py:Stage", "of": "", "key": "0" * 64, "seconds": 0.1}
    text = page.html(ladder.report_of("p", [{**bare, "versions": {}, "figures": {}}]))
    assert "<h1>p</h1>" in text
    assert "<svg" not in text


def test_the_markdown_has_the_same_figures():
    text = ladder.markdown(REPORT)
    assert "Its confidence is 10.0 points off on average (the float network's 20.0)." in text
    assert "5 inputs only the float network has right, 3 only this file." in text
    assert "| conv | Conv2D | 9.5 | 20.2 | 30.0 | 1 of 8 |" in text


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        (["met", "met"], "Good enough to ship: All 2 targets are met."),
        (["met"], "Good enough to ship: The target is met."),
        (["met", "missed"], "Not good enough: 1 of 2 targets missed."),
        (["met", "not measurable here"], "1 of 2 targets met, the others not measured."),
        ([], "Nobody has said what is good enough."),
    ],
)
def test_the_verdict_is_a_sentence(verdicts, words):
    found = [{"target": "max_bytes", "limit": 1, "verdict": verdict} for verdict in verdicts]
    assert page.verdict({"targets": found})["words"] == words


def test_tiles_hold_the_last_tested_file_against_the_first_stage():
    found = {tile["name"]: tile for tile in page.tiles(REPORT)}
    assert found["accuracy"]["value"] == "85.00 %"
    assert found["accuracy"]["more"].endswith("1,000 inputs of test; teacher 90.00 %")
    assert found["bytes"] == {
        "name": "bytes", "value": "40,000", "more": "25 times smaller than teacher",
    }  # fmt: skip
    assert found["Pi 5 instructions"]["more"] == "12 times fewer than teacher"
    assert found["an inference here, p50"]["more"] == "20 times faster than teacher"
    assert found["Pi 4 instructions"]["more"] == ""  # nothing before it was counted for a Pi 4
    assert "MACs" not in found


def test_of_a_file_with_exits_the_tiles_tell_what_leaving_early_comes_to():
    boards = {"pi5": {"mean": 3e5}}
    early = {**EARLY, "arm_pi5": 1_000_000, "leaving": {**LEAVING, "boards": boards}}
    found = {tile["name"]: tile for tile in page.tiles({"stages": [REPORT["stages"][0], early]})}
    assert found["Pi 5 instructions"]["value"] == "300,000"
    assert found["accuracy"]["value"] == "90.00 %"


def test_the_front_holds_what_no_other_beats():
    found = front.points(REPORT, "raw_bytes")
    assert [point.name for point in found] == ["teacher", "student", "int8", "a_long_name_tested"]
    # On tune, by bytes: 40 kB 0.86, 200 kB 0.88, 1 MB 0.9; the point on test is not held to them.
    assert [point.name for point in front.front(found)] == ["int8", "student", "teacher"]
    worse = front.Point("worse", 300_000, 0.87, 0.86, 0.88, "tune")
    assert "worse" not in [point.name for point in front.front([*found, worse])]


def test_an_accuracy_of_all_is_drawn_though_its_interval_ends_a_rounding_error_below():
    perfect = [front.Point(str(cost), cost, 1.0, 0.98, 1 - 2**-53, "test") for cost in (1, 9)]
    assert "Accuracy over bytes" in plots.over_cost(perfect, "raw_bytes")


def test_stages_in_one_place_are_one_point():
    again = {**REPORT["stages"][0], "name": "again"}
    found = front.points({"stages": [REPORT["stages"][0], again]}, "raw_bytes")
    assert [point.name for point in found] == ["teacher, again"]


def test_a_picture_takes_its_colours_from_the_page_and_brings_no_style():
    with drawing.blank() as figure:
        figure.add_subplot().plot([0, 1], [0, 1])
        text = drawing.svg(figure, "some", "a line")
    assert "var(--series-0)" in text
    assert "currentColor" in text
    assert "<style" not in text
    assert "#a10001" not in text
    assert text == text.strip()
