"""Which weights a training in 8 bits ends with."""

import numpy as np
import pytest
from small_data import stripes

from tfedge.progress import Silent
from tfedge.training.course import Course

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def c():
    from tfedge.training import choosing

    return choosing


def flat(c):
    layers = c.keras.layers
    return c.keras.Sequential([layers.Flatten(input_shape=(8, 8, 1)), layers.Dense(4)])


def towards(c, data, share):
    """Weights of a linear classifier by the classes' means, times `share`."""
    x = data.normalise(data.train.inputs).reshape(len(data.train.classes), -1)
    means = np.stack([x[data.train.classes == kind].mean(axis=0) for kind in range(4)])
    return [share * means.T, -share * (means**2).sum(axis=1) / 2]


def test_the_highest_accuracy_wins_then_the_lowest_loss_then_the_first(c):
    data, model = stripes(), flat(c)
    good, wrong = towards(c, data, 1.0), towards(c, data, -1.0)
    surer = towards(c, data, 3.0)
    assert c.choose(model, {"wrong": wrong, "good": good}, data) == "good"
    assert c.choose(model, {"good": good, "surer": surer}, data) == "surer"
    assert all(map(np.array_equal, model.get_weights(), surer))
    assert c.choose(model, {"surer": surer, "same": surer}, data) == "surer"


@pytest.fixture
def learned(c, tmp_path):
    """A small network with BatchNormalization that has learned stripes, and its session."""
    from tfedge.networks.backend import seed_everything
    from tfedge.training.fitting import Session, fit

    c.keras.backend.clear_session()
    seed_everything(0)
    layers, data = c.keras.layers, stripes()
    x = inputs = c.keras.Input((8, 8, 1))
    x = layers.BatchNormalization(momentum=0.8)(layers.Conv2D(6, 3, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    model = c.keras.Model(inputs, layers.Dense(4)(x))
    session = Session("t", data, (), 0, tmp_path, Silent())
    fit(model, Course(epochs=12, batch=32, rate=2e-2), session)
    return model, session


def worse(weights):
    return [np.zeros_like(weight) for weight in weights]


def moved(c, model):
    """Move the statistics, as a training that has gone on would have."""
    (norm,) = c.normalisations(model)
    norm.moving_mean.assign(norm.moving_mean + 2 * norm.moving_variance**0.5)


def test_statistics_that_lag_behind_are_estimated_anew(c, learned):
    model, session = learned
    right = c.answers_of(model, session.data, session.data.tune)[0].argmax(-1)
    moved(c, model)
    assert c.end_with_the_best(model, worse(model.get_weights()), session) == c.ESTIMATED
    again = c.answers_of(model, session.data, session.data.tune)[0].argmax(-1)
    assert np.mean(again == right) > 0.9


def test_a_training_that_ends_below_its_start_is_undone(c, learned):
    model, session = learned
    start = model.get_weights()
    model.set_weights(worse(start))
    assert c.end_with_the_best(model, start, session) == c.UNTRAINED
    assert all(map(np.array_equal, model.get_weights(), start))


def test_without_batchnormalization_there_is_nothing_to_estimate(c, tmp_path):
    from tfedge.training.fitting import Session

    data, model = stripes(), flat(c)
    model.set_weights(towards(c, data, 1.0))
    session = Session("t", data, (), 0, tmp_path, Silent())
    assert c.end_with_the_best(model, worse(model.get_weights()), session) == c.TRAINED
