import json
import multiprocessing
import os
import time

import pytest

from tfedge.boards import host
from tfedge.errors import UserError
from tfedge.plan import pipeline, running, stages, store
from tfedge.progress import Silent
from tfedge.report import page as report_page


class FailsError(Exception):
    pass


def load(project):
    return pipeline.load(project / "stripes.toml")


def plan(project):
    return {step.name: step.why for step in pipeline.plan(load(project), project / "build")}


def build(project, **options):
    return pipeline.build(load(project), project / "build", Silent(), **options)


def edit(project, old, new, file="stripes.toml"):
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new, 1))


def run(self, job):
    """Pretend to work: leave a file and a figure."""
    for name in ("model.h5", "model.tflite"):
        (job.out / name).write_text(job.name)
    return {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "split": "tune"}


@pytest.fixture
def pretend(project, monkeypatch):
    """Stages that only pretend, built once, so that the builder alone is under test."""
    for kind in stages.STAGES.values():
        monkeypatch.setattr(kind, "run", run)
    monkeypatch.setattr(running, "import_module", lambda name: None)
    monkeypatch.setattr(report_page, "html", lambda *_: "<!doctype html>")
    monkeypatch.setattr(host, "measure", lambda files, rounds: [{} for _ in files])
    build(project)
    return project


NAMES = ("teacher", "student", "sparse", "shared", "aware", "int8", "tested")
KEPT = dict.fromkeys(NAMES, "")


def test_nothing_runs_twice(pretend):
    assert plan(pretend) == KEPT


def test_a_changed_setting_reruns_its_stage_and_those_below(pretend):
    edit(pretend, "temperature = 4.0", "temperature = 3.0")
    assert plan(pretend) == KEPT | {
        "student": "temperature 4.0 -> 3.0",
        "sparse": "student changed",
        "shared": "sparse changed",
        "aware": "shared changed",
        "int8": "aware changed",
        "tested": "int8 changed",
    }


@pytest.mark.parametrize(
    ("stage", "of"), [("sparse", "student"), ("shared", "sparse"), ("aware", "shared")]
)
def test_a_teacher_that_changes_reruns_the_stage_that_it_teaches(pretend, stage, of):
    edit(pretend, f'of = "{of}"', f'of = "{of}"\nteacher = "teacher"')
    assert plan(pretend)[stage] == "teacher changed"
    build(pretend)
    assert plan(pretend) == KEPT
    edit(pretend, "widths = [16, 32]", "widths = [16, 24]")
    assert "teacher changed" in plan(pretend)[stage]


def test_changing_back_finds_the_old_result(pretend):
    edit(pretend, "temperature = 4.0", "temperature = 3.0")
    build(pretend)
    edit(pretend, "temperature = 3.0", "temperature = 4.0")
    assert plan(pretend) == KEPT


def test_writing_out_a_default_changes_nothing(pretend):
    edit(pretend, "temperature = 4.0", "temperature = 4.0\nalpha = 0.1")
    assert plan(pretend) == KEPT


def test_renaming_a_stage_leaves_those_that_read_it_as_they_are(pretend):
    edit(pretend, "[student]", "[pupil]")
    edit(pretend, 'of = "student"', 'of = "pupil"')
    names = ["pupil" if name == "student" else name for name in NAMES]
    assert plan(pretend) == dict.fromkeys(names, "") | {"pupil": "not built yet"}


def test_an_edited_model_file_reruns_the_stages_that_use_it(pretend):
    (pretend / "own.py").write_text("def net(shape, classes): pass\n")
    edit(pretend, 'model = "models/small.py:stack"\nwidths = [16, 32]', 'model = "own.py:net"')
    build(pretend)
    edit(pretend, "pass", "return None", "own.py")
    assert plan(pretend)["teacher"] == "the file of model changed"


def test_changed_data_reruns_everything_and_says_so(pretend):
    edit(pretend, "count = 900", "count = 901")
    assert plan(pretend)["teacher"] == "data's count 900 -> 901, the data changed"


def test_a_changed_builder_argument_is_named(pretend):
    edit(pretend, "widths = [16, 32]", "widths = [16, 24]")
    assert plan(pretend)["teacher"] == "widths [16, 32] -> [16, 24]"


def test_set_takes_the_place_of_the_file(project):
    changed = pipeline.load(
        project / "stripes.toml",
        ["teacher.epochs=2", "student.temperature = 3", "settings.seed=9", "sparse.ramp=constant"],
    )
    assert changed.stages["teacher"].course.epochs == 2
    assert changed.stages["student"].teaching.temperature == 3.0
    assert changed.stages["sparse"].ramp == "constant"
    assert changed.seed == 9


def test_fresh_runs_what_is_finished_and_replaces_it(pretend):
    (old,) = (pretend / "build/stripes").glob("teacher-*")
    (old / "left over").touch()
    steps = build(pretend, fresh=True)
    assert {step.why for step in steps} == {"--fresh"}
    assert not (old / "left over").exists()
    assert plan(pretend) == KEPT


def test_until_stops_after_a_stage(pretend):
    edit(pretend, "count = 900", "count = 800")
    assert [step.name for step in build(pretend, until="student")] == ["teacher", "student"]
    assert plan(pretend)["sparse"] == ("data's count 900 -> 800, the data changed, student changed")


def test_until_an_unknown_stage_is_refused(pretend):
    with pytest.raises(UserError, match="did you mean 'student'"):
        build(pretend, until="studnet")


def test_a_stage_that_fails_keeps_those_before_it_and_its_own_half(pretend, monkeypatch):
    def fail(self, job):
        (job.scratch).mkdir()
        (job.scratch / "half").touch()
        raise FailsError

    edit(pretend, "temperature = 4.0", "temperature = 2.0")
    monkeypatch.setattr(stages.Qat, "run", fail)
    with pytest.raises(FailsError):
        build(pretend)
    found = plan(pretend)
    assert (found["teacher"], found["student"], found["sparse"]) == ("", "", "")
    assert found["aware"] == "not finished"
    (partial,) = (pretend / "build/stripes").glob("aware-*.partial")
    assert (partial / "scratch/half").exists()

    monkeypatch.setattr(stages.Qat, "run", run)
    build(pretend)
    assert plan(pretend) == KEPT
    assert not list((pretend / "build/stripes").glob("*/scratch"))


def test_the_last_tflite_and_the_report_lie_where_a_user_looks(pretend):
    folder = pretend / "build/stripes"
    assert (folder / "stripes.tflite").read_text() == "tested"
    report = json.loads((folder / "report.json").read_text())
    assert [stage["name"] for stage in report["stages"]] == list(NAMES)
    assert report["stages"][0]["use"] == "train"
    assert len(report["stages"][0]["key"]) == 64
    assert "| teacher | train | 50.00 %" in (folder / "report.md").read_text()


def test_the_same_files_elsewhere_have_the_same_keys(pretend, tmp_path_factory):
    import shutil

    other = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.copytree(pretend, other)
    keys = [
        [step.key for step in pipeline.plan(load(place), place / "build")]
        for place in (pretend, other)
    ]
    assert keys[0] == keys[1]


OWN_STAGE = """
from __future__ import annotations
from dataclasses import dataclass
from tfedge.declarations import required, setting
from tfedge.plan.settings import Input


@dataclass(frozen=True)
class Shout:
    of: Input = required("any stage")
    times: int = setting(2, "how often")

    def run(self, job):
        (job.out / "said").write_text("ho " * self.times)
        return {"words": self.times}
"""


def test_a_stage_of_the_users_own_runs_and_runs_again_when_its_file_changes(pretend):
    (pretend / "own.py").write_text(OWN_STAGE)
    with (pretend / "stripes.toml").open("a") as file:
        file.write('\n[shout]\nuse = "own.py:Shout"\nof = "int8"\ntimes = 3\n')
    steps = build(pretend)
    assert (steps[-1].folder / "said").read_text() == "ho ho ho "

    (pretend / "own.py").write_text(OWN_STAGE.replace("ho ", "hey "))
    assert plan(pretend)["shout"] == "code changed"


def hold(folder, ready):
    with store.locked(folder):
        ready.set()
        time.sleep(30)


def test_two_builds_of_one_pipeline_do_not_meet(pretend):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=hold, args=(pretend / "build/stripes", ready))
    other.start()
    try:
        assert ready.wait(20)
        with pytest.raises(UserError, match="another build is at work here"):
            build(pretend)
    finally:
        other.kill()
        other.join()
    build(pretend)  # the lock of a killed build holds nobody up


def test_a_record_is_written_after_everything_else(pretend):
    for folder in (pretend / "build/stripes").glob("*-????????"):
        record = (folder / "stage.json").stat().st_mtime_ns
        assert all(file.stat().st_mtime_ns <= record for file in folder.iterdir())


def test_a_damaged_folder_is_noticed_and_made_again(pretend):
    (student,) = (pretend / "build/stripes").glob("student-????????")
    (student / "model.h5").write_text("st")
    assert plan(pretend) == KEPT | {"student": "its model.h5 is missing or damaged"}
    build(pretend)
    (student / "stage.json").write_text("{garbage")
    assert plan(pretend)["student"] == "its stage.json is missing or damaged"
    build(pretend)
    assert plan(pretend) == KEPT
    assert (student / "model.h5").read_text() == "student"


def test_a_file_that_was_edited_is_noticed_and_one_that_was_copied_is_not(pretend):
    (student,) = (pretend / "build/stripes").glob("student-????????")
    file = student / "model.h5"
    os.utime(file, ns=(0, 0))  # as after a copy, or with the clock moved back
    assert plan(pretend) == KEPT
    file.write_text("STUDENT")  # of the same size
    assert plan(pretend) == KEPT | {"student": "its model.h5 is missing or damaged"}
    build(pretend)
    assert file.read_text() == "student"
    file.unlink()
    assert plan(pretend) == KEPT | {"student": "its model.h5 is missing or damaged"}


def test_a_folder_of_an_earlier_tfedge_without_hashes_is_made_again(pretend):
    (student,) = (pretend / "build/stripes").glob("student-????????")
    record = json.loads((student / "stage.json").read_text())
    record["files"] = {name: seen["bytes"] for name, seen in record["files"].items()}
    (student / "stage.json").write_text(json.dumps(record))
    assert plan(pretend) == KEPT | {"student": "its stage.json is missing or damaged"}


def test_the_page_is_drawn_again_only_where_the_report_has_changed(pretend):
    page = pretend / "build/stripes/report.html"
    page.write_text("drawn")
    build(pretend)
    assert page.read_text() == "drawn"
    page.with_name("report.json").write_bytes(b"\xff")
    build(pretend)
    assert page.read_text().startswith("<!doctype html>")


def test_a_tflite_of_other_settings_is_not_taken_for_this_builds(pretend):
    edit(pretend, "widths = [16, 32]", "widths = [16, 24]")
    build(pretend, until="teacher")
    assert not (pretend / "build/stripes/stripes.tflite").exists()
    edit(pretend, "widths = [16, 24]", "widths = [16, 32]")
    build(pretend)
    assert (pretend / "build/stripes/stripes.tflite").read_text() == "tested"


def own_stage(project, body, extra=""):
    (project / "own.py").write_text(OWN_STAGE.split("    def run")[0] + extra + body)
    with (project / "stripes.toml").open("a") as file:
        file.write('\n[shout]\nuse = "own.py:Shout"\nof = "int8"\n')


@pytest.mark.parametrize(
    ("body", "extra", "message"),
    [
        ("    def run(self, job):\n        return None\n", "", "run() returned None"),
        ("    def run(self, job):\n        return {'a': job}\n", "", "returned what is no JSON"),
        ("    def run(self, job):\n        return {}\n", "    makes = 'tflite'\n",
         "makes a tflite, but there is no model.tflite"),
        ("    def run(self, job):\n        return 1 / 0\n", "", "own.py:14: ZeroDivisionError"),
        ("    walk = 1\n", "", "'own.py:Shout' is no stage\n  write a frozen dataclass with run"),
    ],
)  # fmt: skip
def test_a_stage_of_the_users_own_that_goes_wrong_is_not_kept(pretend, body, extra, message):
    own_stage(pretend, body, extra)
    with pytest.raises(UserError) as caught:
        build(pretend)
    assert message in str(caught.value)
    assert not list((pretend / "build/stripes").glob("shout-????????"))


def test_numpy_numbers_are_fine_as_figures(pretend):
    own_stage(
        pretend,
        "    def run(self, job):\n"
        "        import numpy\n        return {'accuracy': numpy.float32(0.5)}\n",
    )
    steps = build(pretend)
    record = json.loads((steps[-1].folder / "stage.json").read_text())
    assert record["figures"] == {"accuracy": 0.5}
    assert "50.00 %" in (pretend / "build/stripes/report.md").read_text()


def test_an_8_bit_network_is_trained_on_by_no_other_stage(project):
    edit(project, 'of = "aware"', 'of = "aware"\n\n[again]\nuse = "qat"\nof = "aware"')
    with pytest.raises(UserError, match="'aware' makes an 8-bit network, not a float network"):
        load(project)


def test_to_prune_what_shares_values_is_refused_before_anything_runs(project):
    edit(project, 'of = "shared"', 'of = "shared"\n\n[again]\nuse = "prune"\nof = "shared"')
    undone = r"\[again\] of: 'shared' makes weights share values, which this stage would undo"
    with pytest.raises(UserError, match=undone + "\n  put it above 'shared'"):
        load(project)


def test_an_argument_that_has_a_settings_name_is_refused(project):
    (project / "own.py").write_text("def net(shape, classes, alpha=0.5): pass\n")
    edit(project, '"models/small.py:stack"\nwidths = [8, 16]', '"own.py:net"')
    with pytest.raises(UserError, match="has an argument 'alpha', which is a setting of the stage"):
        load(project)


@pytest.mark.parametrize("name", ["../escape", "a/b", ""])
def test_a_pipelines_name_stays_in_the_build_folder(project, name):
    edit(project, "seed = 7", f'seed = 7\nname = "{name}"')
    if not name:
        assert load(project).name == "stripes"
        return
    with pytest.raises(UserError, match=r"\[settings\] name: .* is no name for a folder"):
        load(project)
