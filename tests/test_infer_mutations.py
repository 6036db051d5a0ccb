"""Two hundred ways to damage a model file: none ends the runner by a signal or gets an answer."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from mutations import mutations
from real_runtimes import RUNTIMES, environment_with, run_all
from tiny_board import messages, pixels, script, write_golden
from tiny_model import tiny_model

pytestmark = pytest.mark.slow
FLATBUFFER = tiny_model()
MOST_MIB = 250  # a whole zip is unpacked up to 64 MiB, and held beside the file


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder of x.npy and model.tflite, and [(kind, file)] of what became of the model."""
    folder = tmp_path_factory.mktemp("mutations")
    np.save(folder / "x.npy", pixels(3))
    whole = write_golden(folder).read_bytes()
    made = []
    for number, (kind, content) in enumerate(mutations(whole, len(FLATBUFFER))):
        made.append((kind, folder / f"{number}.tflite"))
        made[-1][1].write_bytes(content)
    return folder, made


@pytest.mark.parametrize("package", RUNTIMES)
def test_a_damaged_model_gets_one_line_and_never_another_answer(files, package):
    folder, made = files
    inputs = [str(folder / "x.npy")], ["--selftest"]
    models = [folder / "model.tflite", *(file for _, file in made)]
    commands = [[str(model), *given] for model in models for given in inputs]
    ended, found, peak_mib = run_all(package, commands)
    assert (ended, len(found)) == (0, 2 * 201)
    right, passed = found[:2]
    assert (right[0], passed[0]) == (0, 0)
    refused = Counter()
    for number, (kind, file) in enumerate(made, 1):
        whole = file.read_bytes().startswith(FLATBUFFER)
        for good, (status, out, err) in zip((right, passed), found[2 * number :][:2], strict=True):
            assert (out + err).count("\n") == 1, (kind, file)
            if [status, out, err] != good:
                assert (status, out) == (2, ""), (kind, file)
                assert err.startswith("infer.py: "), (kind, file)
                refused[kind, whole] += 1
    # What is right as it was may be answered as it was: all but the zip behind it is checked.
    assert refused["cut", False] + refused["cut", True] == 2 * 40
    assert refused["wrong card", True] == 2 * 20
    changed = Counter(kind for kind, file in made if not file.read_bytes().startswith(FLATBUFFER))
    assert {kind: refused[kind, False] for kind in changed} == {
        k: 2 * n for k, n in changed.items()
    }
    assert changed["flipped"] == 30
    assert 0 < refused["bomb", True] < 2 * 20
    assert refused["extended", True] == 2  # a tail so long that the zip is not found
    assert peak_mib < MOST_MIB


@pytest.mark.parametrize("package", RUNTIMES)
@pytest.mark.parametrize("kind", ["cut", "flipped", "swapped", "wrong card", "bomb"])
def test_a_damaged_model_in_a_process_of_its_own_is_one_line_and_2(files, package, kind):
    folder, made = files
    file = next(file for each, file in made if each == kind)
    done = script(file, folder / "x.npy", env=environment_with(package))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = messages(done.stderr)
    assert line.startswith(f"infer.py: {file}: ")
