"""Searches as a whole: over stages that pretend, and over small networks that are trained."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import searched
from conftest import REPO, STRIPES

from tfedge.cli import main
from tfedge.errors import UserError
from tfedge.search import base, crew

pytestmark = pytest.mark.slow

SMALL = """
[data]
use = "stripes.py:stripes"

[teacher]
use = "train"
model = "models/resnet.py:resnet8"
width = 16
epochs = 3

[student]
use = "distill"
teacher = "teacher"
model = "models/resnet.py:resnet8"
epochs = 4

[aware]
use = "qat"
of = "student"
epochs = 2

[int8]
use = "convert"
of = "aware"

[tested]
use = "evaluate"
of = "int8"
cost = []

[targets]
max_bytes = {most}
min_accuracy = 0.05

[search]
trials = 6
generation = 3
short = 0.5
rungs = [0.5]
keep = 0.7
finals = 2
student.width = [2, 4, 16]
aware.skip = [true, false]
"""


def front(told):
    return [(point["number"], point["set"], point["tune"]["accuracy"]) for point in told["front"]]


def test_a_search_finds_what_is_good_for_its_cost(tmp_path):
    told = searched.search(searched.pipeline(tmp_path, trials=40), tmp_path / "build")
    assert told["counts"]["proposed"] == 40
    for point in told["front"]:
        # What it pretends to learn is best at a rate of 0.3.
        assert 0 < point["values"]["student.rate"] < 0.6
    taken = told["recommended"]["number"]
    assert taken in [point["number"] for point in told["front"]]
    made = tmp_path / "build" / "pretend" / "pretend.tflite"
    costs = {point["number"]: point["costs"]["bytes"] for point in told["front"]}
    assert made.stat().st_size == costs[taken]


def test_most_candidates_are_stopped_early(tmp_path):
    told = searched.search(searched.pipeline(tmp_path, trials=32), tmp_path / "build")
    counts = told["counts"]
    assert 0 < counts["beyond_first_rung"] <= 0.4 * counts["proposed"]
    # An epoch that was trained is never trained again: each is a line of its own.
    assert max(Counter((tmp_path / "epochs.txt").read_text().splitlines()).values()) == 1
    assert counts["stages_made_twice"] == []


def test_with_many_workers_the_search_is_the_same(tmp_path):
    told = {}
    for workers in (1, 4):
        file = searched.pipeline(tmp_path / str(workers), epoch_s=0.002)
        told[workers] = searched.search(
            file, file.parent / "build", lambda many=workers: searched.Threads(many)
        )
    assert front(told[1]) == front(told[4])
    assert told[1]["candidates"] != []


def test_the_same_command_goes_on_to_more_candidates(tmp_path):
    file = searched.pipeline(tmp_path)
    searched.search(file, tmp_path / "build", trials=8)
    more = searched.search(file, tmp_path / "build", trials=24)
    at_once = searched.pipeline(tmp_path / "again")
    assert front(more) == front(searched.search(at_once, tmp_path / "again" / "build", trials=24))


def test_after_three_kills_the_front_is_that_of_an_undisturbed_search(tmp_path):
    whole = searched.pipeline(tmp_path / "whole", epoch_s=0.05)
    expected = searched.search(whole, whole.parent / "build")
    file = searched.pipeline(tmp_path / "killed", epoch_s=0.05)
    command = [sys.executable, "-m", "tfedge", "search", file, "--build-dir", file.parent / "build"]
    chance, lines = random.Random(1), file.parent / "epochs.txt"
    for _ in range(3):
        wanted = trained(lines) + chance.randint(3, 9)
        process = subprocess.Popen(
            [*map(str, command)], cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO / "tests")},
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        while trained(lines) < wanted:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    told = searched.search(file, file.parent / "build")
    assert front(told) == front(expected)
    repeated = Counter(lines.read_text().splitlines())
    # Of a training that was killed, the epoch that ran is lost, and no other.
    assert sum(times - 1 for times in repeated.values()) <= 3


def trained(lines):
    return len(lines.read_text().splitlines()) if lines.is_file() else 0


@pytest.mark.parametrize(("deaths", "survived"), [(2, True), (3, False)])
def test_a_task_whose_worker_dies_is_begun_again_a_few_times(
    tmp_path, monkeypatch, deaths, survived
):
    monkeypatch.setenv("PYTHONPATH", str(REPO / "tests"))
    file = searched.pipeline(tmp_path, trials=1, generation=1)
    (tmp_path / "dies").write_text(str(deaths))
    if survived:
        told = searched.search(file, tmp_path / "build", lambda: crew.Processes(1))
        assert told["counts"]["states"] == {"finished": 1}
    else:
        with pytest.raises(UserError, match="candidate 0: a worker died 3 times with it"):
            searched.search(file, tmp_path / "build", lambda: crew.Processes(1))
    assert (tmp_path / "dies").read_text() == "0"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    (folder / "stripes.py").write_bytes((STRIPES / "stripes.py").read_bytes())
    file = folder / "small.toml"
    file.write_text(SMALL.format(most=60_000))
    status = main(["search", str(file), "--build-dir", str(folder / "build")])
    return folder, status, json.loads((folder / "build/small/search.json").read_text())


def test_networks_are_searched_looked_at_and_trained_in_full(small):
    folder, status, told = small
    assert status == 0
    states = told["counts"]["states"]
    assert states["refused"] >= 1  # a width of 16 has 78,000 parameters
    for one in told["candidates"]:
        wide = one["values"]["student.width"] == 16
        assert wide == (one["state"] == "refused" or "epochs" not in one)
    for point in told["front"]:
        assert point["epochs"] == 4
        assert 0 <= point["test"]["accuracy"] <= 1
    assert (folder / "build/small/small.tflite").stat().st_size <= 60_000


def test_what_all_share_is_made_once(small):
    folder, _, told = small
    assert len(list((folder / "build/small").glob("teacher-????????"))) == 1
    assert told["counts"]["stages_made_twice"] == []
    folders = [place for place in (folder / "build/small").glob("*-????????") if place.is_dir()]
    assert told["counts"]["stages_made"] == len(folders) - 1  # the teacher was made before


def test_the_page_and_the_report_tell_the_search(small):
    folder, _, told = small
    page = (folder / "build/small/report.html").read_text()
    assert 'id="search"' in page
    assert "max_bytes" in page
    report = json.loads((folder / "build/small/report.json").read_text())
    assert report["search"] == told


def test_where_nothing_can_keep_to_the_targets_that_is_said(tmp_path, capsys):
    (tmp_path / "stripes.py").write_bytes((STRIPES / "stripes.py").read_bytes())
    file = tmp_path / "small.toml"
    file.write_text(SMALL.format(most=1_000))
    assert main(["search", str(file), "--build-dir", str(tmp_path / "build")]) == 1
    said = capsys.readouterr()
    assert "every candidate breaks a target before it is trained" in said.out
    assert not list((tmp_path / "build/small").glob("student-*"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("student.rate = { low = 0.0, high = 1.0 }", "student.rate = [0.5, 2.0]",
         "student.rate: pretend.toml [student] rate: must be from 0 to 1, got 2.0"),
        ("student.rate = { low = 0.0, high = 1.0 }", "student.rat = [0.5]",
         "did you mean 'rate'"),
        ("[search]", "[other]", "[other]: 'use' is missing"),
    ],
)  # fmt: skip
def test_a_value_that_its_stage_refuses_is_named_before_anything_runs(tmp_path, old, new, said):
    file = searched.pipeline(tmp_path)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError) as caught:
        base.read(file, (), tmp_path / "build", None, None)
    assert said in str(caught.value)
    assert not (tmp_path / "build").exists()


def test_a_pipeline_without_a_search_is_told_how_to_write_one(tmp_path, capsys):
    file = searched.pipeline(tmp_path)
    file.write_text(file.read_text().partition("[search]")[0])
    assert main(["search", str(file), "--build-dir", str(tmp_path / "build")]) == 2
    assert "student.width = [8, 12, 16]" in capsys.readouterr().err
