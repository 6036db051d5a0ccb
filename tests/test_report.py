import pytest

from tfedge.figures import accuracy_figures
from tfedge.report import earned, ladder


def record(name, use="train", of="", **figures):
    return {
        "name": name, "use": use, "of": of, "key": "0" * 64, "seconds": 1.5,
        "versions": {"numpy": "2"}, "figures": figures,
    }  # fmt: skip


FIRST = record("teacher", accuracy=0.9, accuracy_low=0.88, accuracy_high=0.92, split="tune",
               raw_bytes=1000, zipped_bytes=800, macs=5000, parameters=250,
               history=[1])  # fmt: skip
LAST = record("int8", "convert", accuracy=0.89, accuracy_low=0.87, accuracy_high=0.91, split="tune",
              raw_bytes=250, zipped_bytes=100, macs=5000, notes=["one thing"])  # fmt: skip
TEST = {
    "accuracy": 0.75, "accuracy_low": 0.3, "accuracy_high": 0.95, "count": 4, "split": "test",
    "labels": ["cat", "dog"], "per_class": {"cat": 0.5, "dog": 1.0}, "agreement": 1.0,
    "confusion": [[1, 1], [0, 2]], "host_ms_p50": 0.1, "host_ms_p90": 0.2, "runtime": "litert 2",
}  # fmt: skip


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [
        # Brown, Cai and DasGupta's formula worked by hand for z = 1.959964.
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
        (50, 100, 0.40383, 0.59617),
    ],
)
def test_wilsons_interval(correct, count, low, high):
    figures = accuracy_figures(correct, count, "tune")
    assert figures["accuracy_low"] == pytest.approx(low, abs=1e-5)
    assert figures["accuracy_high"] == pytest.approx(high, abs=1e-5)
    assert figures["accuracy"] == correct / count


def test_a_report_has_each_stage_and_the_last_test_and_no_history():
    report = ladder.report_of("p", [FIRST, LAST, record("tested", "evaluate", test=TEST)])
    assert [stage["name"] for stage in report["stages"]] == ["teacher", "int8", "tested"]
    assert report["stages"][0]["raw_bytes"] == 1000
    assert "history" not in report["stages"][0]
    assert report["test"] == TEST


def test_the_last_line_says_what_was_gained():
    report = ladder.report_of("p", [FIRST, LAST])
    assert ladder.gained(report) == (
        "int8 against teacher: bytes -75.0 %, zipped bytes -87.5 %, MACs +0.0 %, "
        "accuracy -1.00 points on tune (int8)"
    )
    assert ladder.table(report).splitlines()[-1] == ladder.gained(report)


def test_instructions_counted_for_a_board_are_a_column_and_else_there_is_none():
    counted = record("tested", "evaluate", arm_pi4=3_617_920, split="test")
    table = ladder.table(ladder.report_of("p", [FIRST, LAST, counted]))
    assert "Pi 4 instr." in table
    assert "3,617,920" in table
    assert "Pi 5 instr." not in table


def test_accuracies_of_different_splits_are_not_subtracted():
    last = record("tested", "evaluate", accuracy=0.5, split="test", raw_bytes=250)
    assert "accuracy" not in ladder.gained(ladder.report_of("p", [FIRST, last]))


def test_a_figure_that_was_not_measured_leaves_an_empty_cell():
    head, first, second, *_ = ladder.table(ladder.report_of("p", [FIRST, LAST])).splitlines()
    assert "parameters" in head
    assert "250" in first
    assert second.split()[:2] == ["int8", "convert"]
    assert "0" not in second[head.index("parameters") : head.index("parameters") + 10].strip()


def test_notes_stand_below_the_table():
    assert "  int8: one thing" in ladder.table(ladder.report_of("p", [FIRST, LAST])).splitlines()


def test_a_line_below_the_table_tells_how_often_each_exit_is_right():
    exits = {"exit_0": {"accuracy": 0.75, "split": "tune"}, "exit_1": {"accuracy": 0.9}}
    early = record("early", "exits", exits=exits)
    line = "  early: right on tune: exit_0 75.00 %, exit_1 90.00 %"
    assert line in ladder.table(ladder.report_of("p", [FIRST, early])).splitlines()


HERE = {"host_ms_p50": 0.25, "host_calls": 300, "arena_measured_bytes": 4096}


def test_a_row_shows_the_milliseconds_of_the_run_of_all_files_and_none_of_its_own():
    own = [record("teacher", host_ms_p50=9.0), record("int8", "convert", host_ms_p50=8.0)]
    report = ladder.report_of("p", own, here={"int8": HERE})
    assert "host_ms_p50" not in report["stages"][0]
    assert report["stages"][1]["host_ms_p50"] == 0.25
    line = ladder.table(report).splitlines()[2]
    assert line.split()[2:] == ["0.250", "4,096", "1.5"]


def test_microseconds_are_told_apart():
    found = ladder.report_of("p", [FIRST], here={"teacher": {**HERE, "host_ms_p50": 0.004213}})
    assert "0.0042" in ladder.table(found)


def test_a_file_that_this_machine_cannot_run_is_noted_with_the_reason():
    report = ladder.report_of("p", [FIRST, LAST], here={"int8": {"failed": "no such operator"}})
    assert report["stages"][1]["notes"] == [
        "one thing",
        "not measured on this machine: no such operator",
    ]
    assert "host_ms_p50" not in report["stages"][1]


def figures_of(name, **figures):
    return {"name": name, "use": "prune", "of": "net", **figures}


NET = figures_of("net", raw_bytes=1000, zipped_bytes=900, macs=50, host_ms_p50=2.0, arena_bytes=64)


def test_what_a_technique_left_as_it_was_is_said_with_what_it_changed():
    pruned = figures_of(
        "sparse", raw_bytes=1000, zipped_bytes=621, macs=50, host_ms_p50=2.06, arena_bytes=64
    )
    assert earned.line(pruned, NET) == (
        "against net: raw bytes, MACs, host ms and arena unchanged; zipped bytes -31.0 %"
    )


def test_a_figure_that_grew_is_said_and_one_that_is_not_measured_is_not():
    grown = figures_of("wide", raw_bytes=1100, macs=25)
    assert earned.line(grown, NET) == "against net: raw bytes +10.0 %; MACs -50.0 %"


def test_a_technique_that_made_every_figure_smaller_has_no_line():
    assert earned.line(figures_of("small", raw_bytes=500, macs=25), NET) == ""


def test_accuracy_is_compared_on_one_split_only_and_with_its_interval():
    base = {**NET, "accuracy": 0.9, "split": "tune"}
    after = {"accuracy": 0.89, "accuracy_low": 0.87, "accuracy_high": 0.91, "raw_bytes": 1000}
    assert earned.line({**after, "split": "tune"}, base) == (
        "against net: raw bytes unchanged; accuracy -1.00 points (inside its interval)"
    )
    after["accuracy_high"] = 0.895
    assert earned.line({**after, "split": "tune"}, base).endswith("accuracy -1.00 points")
    assert "accuracy" not in earned.line({**after, "split": "test"}, base)


def test_a_line_stands_with_the_stage_and_measuring_alone_has_none():
    tested = record("tested", "evaluate", of="int8", raw_bytes=250)
    last = {**LAST, "of": "teacher"}
    report = ladder.report_of("p", [FIRST, last, tested])
    assert [stage.get("earned") for stage in report["stages"]] == [
        None,
        "against teacher: MACs unchanged; raw bytes -75.0 %; zipped bytes -87.5 %;"
        " accuracy -1.00 points (inside its interval)",
        None,
    ]
    line = f"int8: {report['stages'][1]['earned']}"
    assert f"  {line}" in ladder.table(report).splitlines()
    assert f"- {line}" in ladder.markdown(report).splitlines()


def test_one_stage_is_compared_with_nothing():
    assert "no other" in ladder.gained(ladder.report_of("p", [FIRST]))


def test_markdown_has_a_row_a_stage_and_the_confusion_matrix():
    report = ladder.report_of("p", [FIRST, LAST, record("tested", "evaluate", test=TEST)])
    lines = ladder.markdown(report).splitlines()
    assert any(line.startswith("| teacher | train | 90.00 % (88.0-92.0) |") for line in lines)
    assert "| cat | 1 | 1 |" in lines
    assert "| dog | 0 | 2 |" in lines


def test_an_evaluation_names_what_was_taken_for_what():
    lines = ladder.evaluation(TEST).splitlines()
    assert lines[0] == "accuracy   75.00 % (30.00 to 95.00), 4 inputs of test"
    assert "  cat   50.00 %  dog 1" in lines
    assert "  dog  100.00 %" in lines


def test_brief_names_plain_numbers_only():
    assert ladder.brief({"accuracy": 0.5, "macs": 12000, "zeros": {}, "epochs": 3}) == (
        "accuracy 0.5  macs 12,000"
    )
