import numpy as np
import pytest
from prepared import answers, prepared
from random_weights import difference, randomise

from tfedge.errors import UserError

pytestmark = pytest.mark.slow

STEPS = (6, 3)


@pytest.fixture(scope="module")
def k():
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    return keras


def network(k, *middle, shape=STEPS, batch=None):
    x = given = k.Input(shape, batch_size=batch)
    for layer in middle:
        x = layer(x)
    return randomise(k.Model(given, k.layers.Dense(4)(x)))


def series(shape=STEPS, count=20):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def ready(model, shape=STEPS):
    """Prepare a network, prove that it answers as before, and return it."""
    made = prepared(model, series(shape), std=1.0)
    expected = model(series(shape), training=False)
    assert difference(answers(made, series(shape)), expected) < 1e-5
    return made


LOOPS = {
    "gru": lambda la: la.GRU(3),
    "simple": lambda la: la.SimpleRNN(3),
    "both ways gru": lambda la: la.Bidirectional(la.GRU(3)),
    "both ways simple": lambda la: la.Bidirectional(la.SimpleRNN(3), merge_mode="sum"),
    "both ways mixed": lambda la: la.Bidirectional(
        la.LSTM(3), backward_layer=la.GRU(3, go_backwards=True)
    ),
    "cells": lambda la: la.RNN([la.LSTMCell(3), la.GRUCell(3)]),
    "a cell": lambda la: la.RNN(la.GRUCell(3)),
    "lstm of relu": lambda la: la.LSTM(3, activation="relu"),
    "lstm without bias": lambda la: la.LSTM(3, use_bias=False),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_unrolled_and_becomes_int8(k, name):
    from tfedge.tflite.conversion import to_int8
    from tfedge.tflite.facts import facts

    made = ready(network(k, LOOPS[name](k.layers)))
    assert "loops unrolled" in made.steps
    assert made.notes == []
    found = facts(to_int8(made.model, series(), (-5.0, 5.0)), name)
    assert found.float_tensors == ()
    assert found.inputs[0].dtype == "int8"


@pytest.mark.parametrize("layer", [lambda la: la.LSTM(3), lambda la: la.Bidirectional(la.LSTM(3))])
def test_an_lstm_that_is_one_operator_stays(k, layer):
    made = ready(network(k, layer(k.layers)))
    assert "loops unrolled" not in made.steps
    assert made.notes == []


@pytest.mark.parametrize(
    ("layers", "shape", "note"),
    [
        (lambda la: [la.GRU(2)], (257, 2), "(GRU): it is a loop over 257 steps, and at most 256"),
        (lambda la: [la.Bidirectional(la.GRU(2))], (257, 2), "(Bidirectional): it is a loop over"),
        (lambda la: [la.Masking(), la.LSTM(2)], STEPS, "(Masking): a mask is computed in float"),
        (
            lambda la: [la.Reshape((2, 3, 3, 1)), la.ConvLSTM2D(2, 2), la.Flatten()],
            STEPS,
            "(ConvLSTM2D): it is a loop of convolutions",
        ),
    ],
)
def test_what_cannot_become_int8_is_said_at_import_and_before_it_is_trained(k, layers, shape, note):
    from tfedge.networks.preparation.recurrence import refuse_never_int8

    made = ready(network(k, *layers(k.layers), shape=shape), shape)
    (said,) = made.notes
    assert said.startswith("cannot be quantised: layer '")
    assert note in said
    with pytest.raises(UserError) as caught:
        refuse_never_int8(made.model)
    assert note.replace("): ", "): cannot be quantised: ") in str(caught.value)
    assert "convert to float16 or dynamic" in str(caught.value)


def test_an_unrolled_network_may_be_trained_in_8_bits(k):
    from tfedge.networks.preparation.recurrence import refuse_never_int8

    layers = k.layers
    made = ready(network(k, layers.GRU(3, return_sequences=True), layers.LSTM(3)))
    assert refuse_never_int8(made.model) is None


@pytest.mark.parametrize("wrap", [False, True])
def test_a_layer_that_keeps_its_state_is_refused_by_name(k, wrap):
    layer = k.layers.LSTM(3, stateful=True, name="going_on")
    layer = k.layers.Bidirectional(layer, name="going_on") if wrap else layer
    with pytest.raises(UserError, match=r"layer 'going_on' \(\w+\): carries its state") as caught:
        prepared(network(k, layer, batch=1), series())
    assert "stateful = False" in str(caught.value)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_network_of_a_fixed_batch_is_asked_batch_by_batch(k, batch):
    import tensorflow as tf

    class Fixed(k.layers.Layer):
        def call(self, x):
            tf.debugging.assert_equal(tf.shape(x)[0], batch)
            return x

    model = network(k, k.layers.LSTM(3), batch=batch)
    free = network(k, k.layers.LSTM(3))
    free.set_weights(model.get_weights())
    from tfedge.networks.files import made_by

    given = k.Input(STEPS, batch_size=batch)
    strict = k.Model(given, model(Fixed()(given)))
    found = made_by(strict, STEPS)[1](series())
    assert difference(found, free(series()).numpy()) < 1e-6
    assert difference(answers(prepared(model, series(), std=1.0), series()), free(series())) < 1e-5
