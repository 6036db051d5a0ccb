"""Networks that are fed differently, in one pipeline."""

import json

import numpy as np
import pytest
from small_data import stripes

from tfedge.cli import main
from tfedge.tflite import card

pytestmark = pytest.mark.slow

PIPELINE = """
[data]
use = "npz"
path = "stripes.npz"

[network]
use = "import"
file = "trained.h5"

[student]
use = "distill"
teacher = "network"
model = "models/small.py:stack"
widths = [8, 16]
epochs = 1
rate = 1e-2

[small]
use = "convert"
of = "student"

[tested]
use = "evaluate"
of = "small"
against = "network"
cost = []

[own]
use = "convert"
of = "network"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline whose data goes from 0 to 1, and a network that takes pixels to -1 to 1 itself."""
    from tfedge.networks.backend import keras

    place = tmp_path_factory.mktemp("feeds")
    data = stripes(train=512, tune=128, test=400)
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    layers = keras.layers
    parts = [layers.Rescaling(1 / 127.5, offset=-1), layers.Conv2D(8, 3, activation="relu")]
    parts += [layers.GlobalAveragePooling2D(), layers.Dense(4)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *parts])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    pixels = data.train.inputs.astype(np.float32)
    model.fit(pixels, data.train.classes, epochs=6, verbose=0)
    model.save(place / "trained.h5")
    answers = model(data.test.inputs.astype(np.float32)).numpy().argmax(axis=-1)
    arrays = {}
    for name in ("train", "tune", "test"):
        split = getattr(data, name)
        arrays |= {f"x_{name}": split.inputs, f"y_{name}": split.classes}
    np.savez(place / "stripes.npz", **arrays)
    (place / "feeds.toml").write_text(PIPELINE)
    assert main(["build", str(place / "feeds.toml"), "--build-dir", str(place / "build")]) == 0
    return place, float(np.mean(answers == data.test.classes))


def test_a_teacher_that_normalises_itself_answers_as_on_its_own_pixels(folder):
    place, accuracy = folder
    report = json.loads((place / "build/feeds/report.json").read_text())
    assert accuracy > 0.5
    assert report["test"]["against"]["accuracy"] == pytest.approx(accuracy, abs=1e-9)


def test_each_file_says_how_its_own_network_is_fed(folder):
    place, _ = folder
    found = {}
    for stage in ("small", "own"):
        (file,) = (place / "build/feeds").glob(f"{stage}-*/model.tflite")
        found[stage] = card.read(file.read_bytes(), file)[0].input
    assert (found["small"].mean, found["small"].std) == ((0.0,), (255.0,))
    assert (found["own"].mean, found["own"].std) == ((127.5,), (127.5,))
