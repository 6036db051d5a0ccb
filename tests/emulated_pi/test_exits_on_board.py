"""A model with exits leaves at the same ones on an emulated Pi 4 and Pi 5, with the same logits."""

import json

import numpy as np
import pytest
from beside import beside
from PIL import Image
from tiny_board import pixels
from tiny_exits import exits_model, write_exits

from emulated_pi.conftest import use
from tfedge.tflite.leaving import stage_outputs

pytestmark = pytest.mark.slow

COUNT, SHAPE = 60, (16, 16, 3)
MEASURES = ("confidence", "margin", "entropy")


@pytest.fixture(scope="module")
def content():
    return exits_model(0, SHAPE, channels=16, repeats=2)


@pytest.fixture(scope="module")
def pictures():
    return np.stack([pixels(seed, SHAPE) for seed in range(COUNT)])


@pytest.fixture(scope="module")
def folder(content, pictures, tmp_path_factory):
    """What `use` reads: it needs no pipeline to be built."""
    home = tmp_path_factory.mktemp("board")
    write_exits(home, content=content, shape=SHAPE).rename(home / "model.tflite")
    np.save(home / "inputs.npy", pictures)
    Image.fromarray(pixels(0, (96, 96, 3))).save(home / "photo.jpg")
    return home


@pytest.fixture(scope="module")
def expected(content, pictures):
    """What each exit answers on this machine, int8 [exits, count, classes]."""
    return np.stack(stage_outputs(content, pictures.astype(np.float32) / 255).logits)


@pytest.fixture(scope="module")
def files(content, expected, folder):
    """A file for each measure, left at the very value of its median input: ties count."""
    made = {}
    for name in MEASURES:

        def change(card, name=name):
            exits = card["exits"]
            exits["measure"] = name
            ends = zip(expected, exits["logits"], exits["temperatures"], strict=True)
            measured = [
                beside("exits").Measure(name, at["scale"], temperature)(raw)
                for raw, at, temperature in ends
            ]
            middle = [float(np.sort(each)[COUNT // 2]) for each in measured]
            exits["points"][1]["thresholds"] = middle[:2]

        at = folder / name
        at.mkdir()
        made[name] = write_exits(at, change=change, content=content, shape=SHAPE)
    return made


@pytest.fixture(scope="module")
def done(userland, board, folder, files):
    inputs = str(folder / "inputs.npy")
    staged = [(str(file), inputs, 0.5) for file in files.values()]
    first = str(files["confidence"])
    commands = [[first, "--selftest"], [first, inputs, "--deadline-ms", "60000", "--json"]]
    return use(lambda words: userland.command(board, words), folder, commands, staged)


@pytest.mark.parametrize("name", MEASURES)
def test_the_same_exits_are_taken_with_the_same_logits(
    done, infer, files, expected, pictures, name
):
    here = beside("exits").Staged(infer.Classifier(files[name], threads=1), 0.5)
    exits = []
    for seed, (exit, raw) in enumerate(done["staged"][MEASURES.index(name)]):
        assert here.raw(pictures[seed]).tolist() == raw
        assert here.answered == exit
        assert expected[exit, seed].tolist() == raw
        exits.append(exit)
    assert set(exits) == {0, 1, 2}


def test_the_selftest_passes_stage_by_stage_and_a_deadline_of_a_minute_is_kept(done):
    assert [each["status"] for each in done["commands"]] == [0, 0]
    answers = [json.loads(line) for line in done["commands"][1]["out"].splitlines()]
    assert [each["exit"] for each in answers] == [exit for exit, _ in done["staged"][0]]
    assert {each["because"] for each in answers} == {"sure", "last"}
