"""The stage that trains on in 8 bits, run by itself."""

import numpy as np
import pytest
from small_jobs import folders, trained

from tfedge.plan.stages.compressing import Prune, Qat
from tfedge.training.course import Course

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The folder of a network that has learned the stripes."""
    place = tmp_path_factory.mktemp("networks")
    course = Course(epochs=12, batch=32, rate=1e-2)
    _, figures = trained(
        Prune(of="of", sparsity=0.0, course=course), folders(place), place / "made"
    )
    assert figures["accuracy"] > 0.9
    return {"of": place / "made"}, figures["accuracy"]


def test_a_training_that_does_harm_ends_as_the_network_before_it(inputs, tmp_path):
    course = Course(epochs=1, batch=32, optimizer="sgd", rate=10.0, schedule="constant")
    _, figures = trained(Qat(of="of", course=course), inputs[0], tmp_path / "a")
    assert figures["history"][0]["val_accuracy"] < 0.6
    assert figures["kept"] == "the network before training"
    assert figures["notes"] == ["no epoch did better on tune than the network before it"]
    assert figures["accuracy"] >= inputs[1] - 0.02

    course = Course(
        epochs=1, batch=32, optimizer="sgd", rate=10.0, schedule="constant", keep="last"
    )
    _, figures = trained(Qat(of="of", course=course), inputs[0], tmp_path / "b")
    assert figures["kept"] == "the last epoch"
    assert figures["accuracy"] < 0.6


@pytest.mark.parametrize("how", ["hold", "learn"])
def test_statistics_are_held_unless_they_are_to_be_learned(inputs, tmp_path, how):
    from tfedge.networks.saving import load_model
    from tfedge.plan.job import MODEL

    stage = Qat(of="of", batchnorm=how, course=Course(epochs=1, batch=32, keep="last"))
    trained(stage, inputs[0], tmp_path / how)
    moving = [
        [w.numpy() for w in load_model(folder / MODEL).weights if "/moving_" in w.name]
        for folder in (inputs[0]["of"], tmp_path / how)
    ]
    assert len(moving[0]) == 4
    same = [np.array_equal(a, b) for a, b in zip(*moving, strict=True)]
    assert same == [how == "hold"] * 4


def test_what_was_trained_is_saved_as_it_was_measured(inputs, tmp_path):
    from small_data import stripes

    from tfedge.networks.saving import load_model
    from tfedge.plan.job import MODEL
    from tfedge.training.fitting import tune_figures

    stage = Qat(of="of", course=Course(epochs=2, batch=32))
    _, figures = trained(stage, inputs[0], tmp_path / "a")
    saved = load_model(tmp_path / "a" / MODEL)
    assert all(layer.trainable for layer in saved.layers)
    assert tune_figures(saved, stripes(train=128, tune=64))["accuracy"] == figures["accuracy"]
