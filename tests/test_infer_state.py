"""A network with a memory starts each input with an empty one."""

from __future__ import annotations

import numpy as np
import pytest
from real_runtimes import RUNTIMES, run_all
from tiny_model import card_for, with_card

pytestmark = pytest.mark.slow
SHAPE = (6, 4)
INPUTS = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def lstm():
    """A network with an LSTM as a float .tflite, and what Keras makes of `INPUTS`."""
    from tfedge.networks.backend import keras
    from tfedge.tflite.conversion import to_float

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([layers.Input(SHAPE), layers.LSTM(8), layers.Dense(3)])
    return to_float(model), model(INPUTS, training=False).numpy()


@pytest.fixture
def file(lstm, tmp_path):
    file = tmp_path / "lstm.tflite"
    file.write_bytes(with_card(lstm[0], card_for(lstm[0], SHAPE)))
    return file


def test_it_answers_each_input_as_if_it_were_the_first(infer, lstm, file):
    classifier = infer.Classifier(file)
    found = [classifier.logits(x) for x in (*INPUTS, *INPUTS)]
    assert np.stack(found) == pytest.approx(np.stack([*lstm[1], *lstm[1]]), abs=1e-5)


@pytest.mark.parametrize("package", RUNTIMES)
def test_it_does_so_in_every_runtime(file, tmp_path, package):
    np.save(tmp_path / "x.npy", np.stack([INPUTS[1], INPUTS[0], INPUTS[1]]))
    ended, ((status, out, _),), _ = run_all(package, [[str(file), str(tmp_path / "x.npy")]])
    assert (ended, status) == (0, 0)
    first, other, again = (line.split("\t")[1:] for line in out.splitlines())
    assert first == again
    assert first != other


def test_the_workstation_does_as_well(lstm):
    from tfedge.tflite.running import Run, answers

    flatbuffer, expected = lstm
    twice = np.concatenate([INPUTS, INPUTS])
    assert answers(flatbuffer, twice)[3:] == pytest.approx(expected, abs=1e-5)
    run = Run(flatbuffer)
    (output,) = run._interpreter.get_output_details()
    for x, right in zip(INPUTS, expected, strict=True):
        run.feed(x)
        assert run.value(output["index"])[0] == pytest.approx(right, abs=1e-5)
