"""infer.py with older runtimes, Pythons and numpy 1, on Arm and on this processor."""

import numpy as np
import pytest

from emulated_pi.conftest import use
from tfedge.boards import emulation
from tfedge.boards.debian import BULLSEYE
from tfedge.progress import Silent

pytestmark = pytest.mark.slow


def older(*requirements):
    return lambda: emulation.native(Silent(), (*requirements, "numpy<2", "pillow"), BULLSEYE)


# How the board is made, and what it must say that it has.
BOARDS = {
    "2.14-arm64": (
        lambda: emulation.userland(Silent(), emulation.TFLITE),
        ("tflite-runtime 2.14.0", "3.11"),
    ),
    "2.14": (
        lambda: emulation.native(Silent(), emulation.TFLITE),
        ("tflite-runtime 2.14.0", "3.11"),
    ),
    "2.13": (older("tflite-runtime==2.13.0"), ("tflite-runtime 2.13.0", "3.9")),
    "2.7": (older("tflite-runtime==2.7.0"), ("tflite-runtime 2.7.0", "3.9")),
    "litert-1.4": (older("ai-edge-litert==1.4.0"), ("ai-edge-litert 1.4.0", "3.9")),
}


@pytest.fixture(scope="module", params=BOARDS)
def board(apt, request, folder):
    """What one process there answered, and what it must say that it has."""
    make, has = BOARDS[request.param]
    userland = make()
    selftest = [str(folder / "model.tflite"), "--selftest"]
    return use(lambda words: userland.command("pi4", words), folder, [selftest]), has


def test_it_is_that_runtime_and_python_with_numpy_1(board):
    done, (runtime, python) = board
    assert done["runtime"] == runtime
    assert done["python"].startswith(f"{python}.")
    assert done["numpy"].startswith("1.")


def test_logits_differ_from_those_of_today_by_one_step_at_most(board, infer, model, inputs):
    here = infer.Classifier(str(model), threads=1)
    expected = np.array([here.raw(x) for x in inputs]).astype(int)
    assert np.abs(np.array(board[0]["raw"]) - expected).max() <= 1


def test_the_answers_are_the_same(board, infer, model, inputs):
    here = infer.Classifier(str(model), threads=1)
    for there, x in zip(board[0]["raw"], inputs, strict=True):
        logits = here.raw(x)
        # Two classes within a step of one another may change places.
        assert logits[np.argmax(there)] >= logits.max() - 1


def test_the_selftest_passes(board):
    assert board[0]["commands"][0]["status"] == 0, board[0]["commands"][0]
