"""What a pipeline's [targets] may say, and the verdicts that a build ends with."""

import json

import pytest

from tfedge.boards import cost, counting, host, measured
from tfedge.cli import main
from tfedge.errors import UserError
from tfedge.plan import pipeline, running, stages
from tfedge.plan.targets import foreseen, judge
from tfedge.progress import Silent
from tfedge.report import ladder, page, targets
from tfedge.report.targets import Limit, Targets

PI = "pi@raspi"


def right(accuracy, split):
    ends = {"accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.02}
    return {"accuracy": accuracy, **ends, "count": 500, "split": split}


FIRST = {"name": "teacher", "use": "train", "of": "", "raw_bytes": 9000, **right(0.9, "tune")}
INT8 = {"name": "int8", "use": "convert", "of": "teacher", "raw_bytes": 1990, "host_ms_p50": 0.25,
        **right(0.89, "tune")}  # fmt: skip
TESTED = {"name": "tested", "use": "evaluate", "of": "int8", "raw_bytes": 2000, "arm_pi4": 40_000,
          "host_ms_p50": 0.25, **right(0.87, "test"),
          "against": {"stage": "teacher", **right(0.885, "test")}}  # fmt: skip
BENCH = {"host": PI, "model": "p.tflite", "runtime": "litert 2", "invoke_p50_ms": 3.0}
FRUGAL = {"accuracy": 0.86, "accuracy_low": 0.84, "accuracy_high": 0.88, "split": "test",
          "boards": {"pi5": {"mean": 12_000.5}}}  # fmt: skip


def case(name, value, device="", rows=(FIRST, INT8, TESTED), boards=(), counted=None, **about):
    """Return what is told of one target on the file that `tested` measured."""
    known = {"stage": "tested", "evaluated": "tested", "against": "teacher", **about}
    about = Targets((Limit(name, value, device),), **known)
    by_name = {row["name"]: row for row in rows}
    return targets.verdicts(targets.Case(about, by_name, boards, counted or {}, "p.toml"))[0]


@pytest.mark.parametrize(
    ("name", "value", "device", "figure", "missed_by"),
    [
        ("max_bytes", 2000, "", 2000, None),
        ("max_bytes", 1999, "", 2000, 1),
        ("max_cost", 40_000, "pi4", 40_000, None),
        ("max_cost", 30_000, "pi4", 40_000, 10_000),
        ("max_ms", 0.25, "host", 0.25, None),
        ("max_ms", 0.2, "host", 0.25, 0.05),
        ("max_ms", 3.5, PI, 3.0, None),
        ("max_ms", 2.5, PI, 3.0, 0.5),
        ("min_accuracy", 0.87, "", 0.87, None),
        ("min_accuracy", 0.9, "", 0.87, 0.03),
        ("max_drop", 0.015, "", 0.015, None),  # 0.885 - 0.87 is 0.015000000000000013 to a computer
        ("max_drop", 0.01, "", 0.015, 0.005),
    ],
)
def test_a_figure_that_reaches_its_limit_meets_it_and_one_beyond_misses_it(
    name, value, device, figure, missed_by
):
    found = case(name, value, device, boards=[BENCH])
    assert found["value"] == pytest.approx(figure)
    assert found["verdict"] == ("missed" if missed_by else "met")
    assert found.get("missed_by") == (pytest.approx(missed_by) if missed_by else None)


def test_accuracy_is_that_of_the_test_split_with_its_interval():
    found = case("min_accuracy", 0.8)
    assert (found["on"], found["value_low"], found["value_high"]) == ("test", 0.85, 0.89)


def test_without_against_a_drop_is_against_the_first_network_on_the_split_of_both():
    plain = {name: value for name, value in TESTED.items() if name != "against"}
    found = case("max_drop", 0.005, rows=(FIRST, INT8, plain))
    assert (found["value"], found["on"]) == (0.01, "tune, against teacher")


def test_accuracies_on_unlike_splits_make_no_drop():
    plain = {name: value for name, value in TESTED.items() if name != "against"}
    found = case("max_drop", 0.005, rows=(FIRST, plain))
    assert found["verdict"] == "not measurable here"
    assert found["how"] == 'write against = "teacher" in an evaluate stage'


def test_of_a_file_with_exits_cost_and_accuracy_are_those_of_leaving_early():
    rows = (FIRST, INT8, {**TESTED, "leaving": FRUGAL, "arm_pi5": 30_000})
    found = case("max_cost", 20_000, "pi5", rows=rows)
    assert (found["verdict"], found["value"]) == ("met", 12_000.5)
    assert case("min_accuracy", 0.865, rows=rows)["missed_by"] == pytest.approx(0.005)
    assert case("max_cost", 20_000, "pi4", rows=rows)["verdict"] == "not measurable here"


def test_what_nobody_has_measured_says_why_and_how_to():
    found = case("max_ms", 2, "pi@raspi:2222")
    assert found["why"] == "that board has not measured this file"
    assert found["how"] == "tfedge deploy -p 2222 pi@raspi:tfedge p.toml --bench 200"
    sixth = case("max_ms", 2, "pi@[fe80::1]")
    assert sixth["how"] == "tfedge deploy pi@[fe80::1]:tfedge p.toml --bench 200"
    hot = {**BENCH, "valid": False, "invalid_because": "throttled: too hot"}
    assert case("max_ms", 2, PI, boards=[hot])["why"].endswith("not valid: throttled: too hot")
    bare = case("max_cost", 9, "pi5", counted={"pi5": "the emulated Pi is not on this machine yet"})
    assert bare["why"] == "the emulated Pi is not on this machine yet"
    assert bare["how"].startswith('write cost = ["pi5"] in an evaluate stage')
    for name in ("max_bytes", "min_accuracy", "max_drop"):
        unbuilt = case(name, 1, rows=(FIRST, INT8))
        assert unbuilt["why"] == "'tested' is not built"
        assert unbuilt["how"] == "tfedge build p.toml"


def test_a_terminal_and_a_page_show_limit_figure_and_what_is_lacking():
    rows = [FIRST, INT8, TESTED]
    told = [case("max_bytes", 1000), case("min_accuracy", 0.85), case("max_ms", 2, PI)]
    report = {"pipeline": "p", "stages": rows, "targets": told}
    assert ladder.table(report).splitlines()[-5:] == [
        "targets of tested: 1 met, 1 missed, 1 not measurable here",
        "  missed   max_bytes 1,000 bytes: 2,000 bytes, by 1,000 bytes (+100.0 %)",
        "  met      min_accuracy 85.00 %: 87.00 % (85.00 to 89.00) on test",
        "  open     max_ms pi@raspi 2 ms: not measurable here: that board has not measured this file",
        "           do: tfedge deploy pi@raspi:tfedge p.toml --bench 200",
    ]
    page = ladder.markdown(report).splitlines()
    assert "## Targets" in page
    assert "| max_bytes | 1,000 bytes | 2,000 bytes | missed by 1,000 bytes (+100.0 %) |" in page
    assert targets.missed(report) == ["max_bytes"]


# The table, in the file.

MISTAKES = [
    ("max_byte = 1", "[targets]: unknown setting 'max_byte'\n  did you mean 'max_bytes'?"),
    ("max_bytes = 0", "[targets] max_bytes: must be from 1 to"),
    ("max_bytes = 1.5", "[targets] max_bytes: expected a whole number, got 1.5"),
    ("max_cost = 9", "[targets] max_cost: expected a limit for each device, got 9\n  write max_cost = { pi4"),
    ("max_cost = { pi6 = 9 }", "[targets] max_cost: there is no board 'pi6' to count instructions for\n  did you"),
    ("max_cost = { pi4 = 9 }", "[tested] counts none for pi4\n  write cost = [\"pi4\"] there, or leave cost out"),
    ("max_ms = { pi5 = 9 }", "'pi5' is a kind of board, and milliseconds are those of one board"),
    ("max_ms = { hots = 9 }", "[targets] max_ms: 'hots' is no board, nor host"),
    ('max_ms = { "pi @raspi" = 9 }', "'pi @raspi' is no board, nor host"),
    ('max_ms = { host = 0 }', "[targets] max_ms: must be from 1e-06 to"),
    ("min_accuracy = 97", "[targets] min_accuracy: must be from 0 to 1, got 97.0"),
    ('stage = "student"\nmax_bytes = 9', "[targets] stage: 'student' makes no .tflite, which targets"),
    ('stage = "int9"\nmax_bytes = 9', "[targets] stage: there is no stage 'int9'\n  did you mean 'int8'?"),
    ("", "[targets]: has no target\n  write one of max_bytes, max_cost"),
    ('use = "train"', "[targets]: is no stage"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "message"), MISTAKES)
def test_a_mistake_in_the_table_is_named_before_anything_runs(project, capsys, table, message):
    write(project, table)
    assert main(["build", str(project / "stripes.toml"), "--build-dir", str(project / "b")]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert not (project / "b").exists()


def write(project, table, old="", new=""):
    """Put targets into the pipeline's file, and another text in the place of `old`."""
    text = (project / "stripes.toml").read_text()
    assert old in text
    text = text.replace(old, new, 1) if old else text
    (project / "stripes.toml").write_text(text + "\n[targets]\n" + table + "\n")
    return project / "stripes.toml"


EVALUATE = '[tested]\nuse = "evaluate"\nof = "int8"\nagainst = "teacher"\ncost = []\n'


def test_an_accuracy_that_no_stage_evaluates_is_refused(project):
    file = write(project, "min_accuracy = 0.9", EVALUATE)
    with pytest.raises(UserError, match="no stage evaluates 'int8'\n  add a stage with use"):
        pipeline.load(file)


def test_milliseconds_of_a_board_are_those_of_the_last_file(project):
    more = EVALUATE + '[other]\nuse = "convert"\nof = "student"\nform = "float16"\n'
    file = write(project, f'stage = "int8"\nmax_ms = {{ "{PI}" = 2 }}', EVALUATE, more)
    with pytest.raises(UserError, match="deploy takes the last file, that of 'other', and not"):
        pipeline.load(file)
    pipeline.load(file, ["targets.max_ms={ host = 2 }"])


def test_targets_are_of_the_last_file_and_its_evaluation_unless_a_stage_is_named(project):
    found = pipeline.load(
        write(project, 'max_bytes = 9\nmax_ms = { host = 1, "pi@[fe80::1]:22" = 2 }')
    ).targets
    assert (found.stage, found.evaluated, found.against) == ("tested", "tested", "teacher")
    assert found.limits == (
        Limit("max_bytes", 9), Limit("max_ms", 1.0, "host"), Limit("max_ms", 2.0, "pi@[fe80::1]:22"),
    )  # fmt: skip
    named = pipeline.load(project / "stripes.toml", ["targets.stage=int8"]).targets
    assert (named.stage, named.evaluated) == ("int8", "tested")
    alone = pipeline.load(project / "stripes.toml", ["tested.against=student"]).targets
    assert alone.against == "student"


def test_a_plan_says_what_cannot_be_measured_here(project, monkeypatch, capsys):
    monkeypatch.setattr(counting, "missing", lambda: "there is no compiler")
    file = write(project, "max_bytes = 900\nmax_cost = { pi4 = 9 }", "cost = []", "")
    assert main(["plan", str(file), "--build-dir", str(project / "b")]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "target       max_bytes 900 bytes, of tested",
        "target       max_cost pi4 9 instructions, of tested; cannot be measured here yet:"
        " there is no compiler",
    ]
    assert main(["plan", str(file), "--build-dir", str(project / "b"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row == {"target": "max_cost", "device": "pi4", "stage": "tested", "limit": 9,
                   "why": "there is no compiler"}  # fmt: skip
    asked = Targets((Limit("max_cost", 9, "pi4"),), "tested", "tested", "teacher", ("pi4",))
    assert "why" not in foreseen(asked)[0]  # the stage itself fetches what is missing


# A build, with stages that only pretend.


def run(self, job):
    for name in ("model.h5", "model.tflite"):
        (job.out / name).write_text(job.name)
    if not isinstance(self, stages.Evaluate):
        return right(0.9, "tune") | {"raw_bytes": 1000}
    test = right(0.8, "test") | {"labels": [], "confusion": []}
    return right(0.8, "test") | {"raw_bytes": 2000, "test": test}


@pytest.fixture
def build(project, monkeypatch, capsys):
    """Build the pipeline with such targets; return status, what was printed, and the report."""
    for kind in stages.STAGES.values():
        monkeypatch.setattr(kind, "run", run)
    monkeypatch.setattr(running, "import_module", lambda name: None)
    monkeypatch.setattr(page, "html", lambda *_: "<!doctype html>")  # to draw it takes a second
    monkeypatch.setattr(
        host, "measure", lambda files, rounds: [{"host_ms_p50": 0.5} for _ in files]
    )

    def built(table, *arguments, **changed):
        file = write(project, table, **changed)
        folder = project / "b"
        status = main(["build", str(file), "--build-dir", str(folder), *arguments])
        report = json.loads((folder / "stripes/report.json").read_text())
        return status, capsys.readouterr(), report

    return built


def test_a_build_that_misses_a_target_ends_with_1_and_its_verdicts(build, project):
    status, said, report = build("max_bytes = 1500\nmin_accuracy = 0.8\nmax_ms = { host = 1 }")
    assert status == 1
    assert "  missed   max_bytes 1,500 bytes: 2,000 bytes, by 500 bytes (+33.3 %)" in said.out
    assert "stripes.toml [targets]: 1 of 3 missed: max_bytes" in said.err
    verdicts = {one["target"]: one["verdict"] for one in report["targets"]}
    assert verdicts == {"max_bytes": "missed", "max_ms": "met", "min_accuracy": "met"}
    assert "| max_bytes | 1,500 bytes |" in (project / "b/stripes/report.md").read_text()
    assert (project / "b/stripes/stripes.tflite").is_file()


def test_other_targets_run_no_stage_again(build, project):
    build("max_bytes = 1500")
    changed = pipeline.load(project / "stripes.toml", ["targets.max_bytes=3000"])
    assert all(not step.why for step in pipeline.plan(changed, project / "b"))
    arguments = [str(project / "stripes.toml"), "--build-dir", str(project / "b")]
    assert main(["build", *arguments, "--set", "targets.max_bytes=3000"]) == 0


def test_json_has_the_verdicts_and_a_target_that_is_only_open_ends_with_0(build):
    status, said, _ = build(f'max_bytes = 2000\nmax_ms = {{ "{PI}" = 2 }}', "--json")
    assert status == 0
    met, open_ = json.loads(said.out)["targets"]
    assert (met["verdict"], met["value"], met["limit"]) == ("met", 2000, 2000)
    assert open_["verdict"] == "not measurable here"
    assert open_["how"].startswith(f"tfedge deploy {PI}:tfedge ")
    assert open_["how"].endswith("/b --bench 200")


def test_a_build_that_stops_before_the_file_leaves_its_targets_open(build):
    status, said, _ = build("max_bytes = 1500", "--until", "student")
    assert status == 0
    assert "not measurable here: 'tested' is not built" in said.out


def test_a_report_tells_the_verdicts_too(build, project, capsys):
    build("max_bytes = 1500")
    arguments = [str(project / "stripes.toml"), "--build-dir", str(project / "b")]
    assert main(["report", *arguments]) == 0
    assert "targets of tested: 1 missed" in capsys.readouterr().out


def test_what_a_board_measured_of_the_file_counts_and_of_another_does_not(build, project):
    wish = f'max_ms = {{ "{PI}" = 2 }}'
    _, _, report = build(wish)
    folder = project / "b/stripes"
    about = pipeline.load(project / "stripes.toml").targets
    (made,) = folder.glob("tested-????????")
    for sha, verdict in (
        (measured.fingerprint(folder / "stripes.tflite"), "missed"), ("0" * 64, "not measurable here"),
    ):  # fmt: skip
        told = report | {"boards": [{**BENCH, "model_sha256": sha}]}
        found = judge(about, told, {"tested": made}, "p.toml", Silent())
        assert [one["verdict"] for one in found] == [verdict]


def test_instructions_that_no_stage_counted_are_counted_once_if_that_is_free(
    build, project, monkeypatch
):
    asked = []

    def costs(content, boards, where, progress):
        asked.extend(boards)
        return [cost.Cost(board, 5000) for board in boards]

    monkeypatch.setattr(cost, "costs", costs)
    monkeypatch.setattr(counting, "missing", lambda: "")
    monkeypatch.setenv("TFEDGE_CACHE", str(project / "cache"))
    status, _, report = build("max_cost = { pi4 = 4000 }", old="cost = []", new="")
    assert status == 1
    assert report["targets"][0]["value"] == 5000
    pipeline.report(pipeline.load(project / "stripes.toml"), project / "b", Silent())
    assert asked == ["pi4"]

    monkeypatch.setattr(counting, "missing", lambda: "there is no compiler")
    monkeypatch.setenv("TFEDGE_CACHE", str(project / "another"))
    told = pipeline.report(pipeline.load(project / "stripes.toml"), project / "b", Silent())
    assert told["targets"][0]["why"] == "there is no compiler"
