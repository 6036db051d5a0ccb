"""infer.py on an emulated Pi 4 and Pi 5 does what it does on this machine."""

import json
import subprocess

import numpy as np
import pytest

from emulated_pi.conftest import SCRIPT, use

pytestmark = pytest.mark.slow

BROKEN = ("truncated", "text", "empty", "flipped", "missing")


@pytest.fixture(scope="module")
def commands(folder):
    model = str(folder / "model.tflite")
    return [
        [model, "--selftest"],
        [model, str(folder / "pictures"), "--top-k", "2", "--format", "json"],
        *([str(folder / f"{name}.tflite"), "--selftest"] for name in BROKEN),
    ]


@pytest.fixture(scope="module")
def done(userland, board, folder, commands):
    """What one process on the board said to all that the tests ask."""
    return use(lambda words: userland.command(board, words), folder, commands)


def test_the_board_is_the_one_that_was_asked_for(done, board):
    assert done["machine"] == "aarch64"
    assert done["board"].startswith(f"Raspberry Pi {board[-1]} Model B")
    assert done["python"].startswith("3.11.")
    assert done["runtime"].startswith("ai-edge-litert ")


def test_logits_are_those_of_the_workstation_to_the_last_bit(done, infer, model, inputs):
    here = infer.Classifier(str(model), threads=1)
    assert done["runtime"] == here.runtime
    assert np.array_equal(done["raw"], [here.raw(x) for x in inputs])


def test_a_photo_is_decoded_and_resized_to_the_same_pixels(done, infer, folder):
    for there, shape in zip(done["photos"], ((96, 96, 3), (8, 8, 1)), strict=True):
        assert np.array_equal(there, infer.read_image(folder / "photo.jpg", shape))


def test_the_selftest_passes(done):
    assert done["commands"][0] == {
        "status": 0,
        "out": f"passed, {done['runtime']}\n",
        "err": "",
    }


def test_pictures_get_the_workstations_answers_and_a_broken_one_a_line(done, infer, folder, model):
    lines = [json.loads(line) for line in done["commands"][1]["out"].splitlines()]
    answers = [line for line in lines if "classes" in line]
    names = [str(folder / "pictures" / f"{number}.png") for number in (0, 1, 2, 4, 5)]
    assert [answer["input"] for answer in answers] == names
    here = infer.Classifier(str(model), threads=1)
    for name, answer in zip(names, answers, strict=True):
        expected = here.classify(infer.read_image(name, here.shape), 2)
        assert [one["label"] for one in answer["classes"]] == [label for label, _ in expected]
        shares = [one["share"] for one in answer["classes"]]
        assert shares == pytest.approx([share for _, share in expected], abs=2e-6)
    assert done["commands"][1]["status"] == 2
    (line,) = done["commands"][1]["err"].splitlines()
    assert str(folder / "pictures" / "3.png") in line


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_gets_one_line_and_status_2(done, folder, name):
    found = done["commands"][2 + BROKEN.index(name)]
    assert (found["status"], found["out"]) == (2, "")
    (line,) = found["err"].splitlines()
    assert line.startswith(f"infer.py: {folder / name}.tflite: ")


def test_the_script_is_a_command_of_its_own(userland, board, folder):
    words = [str(SCRIPT), str(folder / "model.tflite"), str(folder / "pictures" / "0.png")]
    done = subprocess.run(userland.command(board, words), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, label, share = done.stdout.rstrip("\n").split("\t")
    assert name == words[-1]
    assert label in ("plain", "rows", "columns", "checks")
    assert 0.25 <= float(share) <= 1
