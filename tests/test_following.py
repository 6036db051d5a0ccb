"""One training by two processes of `tfedge build` on loopback."""

import json
import shutil
import subprocess
import time

import numpy as np
import pytest
from conftest import REPO, STRIPES
from several_processes import PIPELINE, Processes, command, environment

from tfedge.plan.job import MODEL

pytestmark = pytest.mark.slow

START_S = 1200  # a machine at other work imports TensorFlow for minutes
END_S = 120
"""How long a process may go on when its peer is dead: heartbeats are missed after 10 s."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A pipeline whose epochs have one step each, so that its history is the curve of steps."""
    folder = tmp_path_factory.mktemp("pipeline")
    shutil.copy(STRIPES / "stripes.py", folder)
    text = PIPELINE.replace("models/small.py", str(REPO / "models/small.py"))
    (folder / "small.toml").write_text(text.format(batch=128))
    return folder / "small.toml"


@pytest.fixture(scope="module")
def alone(file, tmp_path_factory):
    place = tmp_path_factory.mktemp("alone")
    subprocess.run(
        [*command(file, place), "--set", "teacher.strategy=one"],
        env=environment(),
        check=True,
        capture_output=True,
        cwd=REPO,
    )
    return result(place)


@pytest.fixture(scope="module")
def together(file, tmp_path_factory):
    place, logs = tmp_path_factory.mktemp("together"), tmp_path_factory.mktemp("logs")
    with Processes(file, place, logs) as both:
        assert both.ended(START_S) == [0, 0], [both.said(0), both.said(1)]
        # Python keeps there what it compiles of TensorFlow's generated code.
        left = [file for file in (logs / "scratch1").iterdir() if file.name != "__pycache__"]
        return *result(place), [both.said(0), both.said(1)], left


def result(place):
    """Return the curve, the weights and the stage's folder."""
    from tfedge.networks.saving import load_model

    (folder,) = place.glob("small/teacher-????????")
    history = json.loads((folder / "stage.json").read_text())["figures"]["history"]
    return [row["loss"] for row in history], load_model(folder / MODEL).get_weights(), folder


def furthest(ones, others):
    return max(float(np.abs(a - b).max()) for a, b in zip(ones, others, strict=True))


def test_two_processes_have_the_loss_curve_of_one_over_50_steps(alone, together):
    assert len(alone[0]) == len(together[0]) == 50
    assert alone[0][0] > 1.5 * alone[0][-1]  # there was something to learn
    assert together[0] == pytest.approx(alone[0], abs=1e-3)


def test_the_chief_alone_keeps_what_was_made(together):
    *_, folder, said, left = together
    assert {"teacher", "plain"} == {each.name.rpartition("-")[0] for each in folders(folder)}
    assert not list(folder.parent.glob("*.partial"))
    assert "plain        waits  the chief makes it" in said[1]
    assert said[1].rstrip().endswith("process 2 of 2: done")
    assert left == []


def folders(folder):
    return [each for each in folder.parent.glob("*-????????") if each.is_dir()]


def test_what_two_processes_made_one_does_not_make_again(file, together):
    folder = together[2]
    more = ["--until", "teacher", "--set", "teacher.strategy=one"]
    done = subprocess.run(
        [*command(file, folder.parent.parent), *more],
        env=environment(),
        capture_output=True,
        text=True,
        cwd=REPO,
        check=True,
    )
    assert "teacher      kept" in done.stderr


@pytest.mark.parametrize("victim", [1, 0], ids=["a worker", "the chief"])
def test_killed_in_the_middle_it_ends_soon_and_goes_on_to_the_same_weights(
    file, together, tmp_path, victim
):
    place = tmp_path / "build"
    with Processes(file, place, tmp_path / "killed") as both:
        both.wait_for(0, "epoch 20/50", START_S)
        both.processes[victim].kill()
        began = time.monotonic()
        survivor = both.processes[1 - victim]
        assert survivor.wait(END_S) == 2, both.said(1 - victim)
        seconds = time.monotonic() - began
        said = both.said(1 - victim)
    assert f"process {2 - victim} of 2: another process is gone" in said
    assert "start all processes with the same commands: they go on after the last epoch" in said
    assert "Traceback" not in said
    assert seconds < END_S
    with Processes(file, place, tmp_path / "again") as both:
        assert both.ended(START_S) == [0, 0], [both.said(0), both.said(1)]
        for index in range(2):
            assert "teacher      goes on after epoch" in both.said(index)
    curve, weights, _ = result(place)
    assert curve == pytest.approx(together[0], abs=1e-4)
    assert furthest(weights, together[1]) < 1e-4
