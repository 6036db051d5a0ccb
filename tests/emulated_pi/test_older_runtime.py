"""tflite-runtime 2.14 with numpy 1, the newest for 32-bit systems, on Arm and on this processor."""

import numpy as np
import pytest

from emulated_pi.conftest import use
from tfedge.boards import emulation
from tfedge.progress import Silent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["arm64", "this processor"])
def done(apt, request, folder):
    make = emulation.userland if request.param == "arm64" else emulation.native
    userland = make(Silent(), "tflite-runtime")
    selftest = [str(folder / "model.tflite"), "--selftest"]
    return use(lambda words: userland.command("pi4", words), folder, [selftest])


def test_it_is_that_runtime_with_numpy_1(done):
    assert done["runtime"] == "tflite-runtime 2.14.0"
    assert done["numpy"].startswith("1.")
    assert done["python"].startswith("3.11.")


def test_logits_differ_from_ai_edge_litert_by_one_step_at_most(done, infer, model, inputs):
    here = infer.Classifier(str(model), threads=1)
    expected = np.array([here.raw(x) for x in inputs]).astype(int)
    assert np.abs(np.array(done["raw"]) - expected).max() <= 1


def test_the_answers_are_the_same(done, infer, model, inputs):
    here = infer.Classifier(str(model), threads=1)
    for there, x in zip(done["raw"], inputs, strict=True):
        logits = here.raw(x)
        # Two classes within a step of one another may change places.
        assert logits[np.argmax(there)] >= logits.max() - 1


def test_its_selftest_passes(done):
    assert done["commands"][0]["status"] == 0, done["commands"][0]
