"""ELU, and layers that stay float, before operators that write on the scale that they read."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_conv import G, Op, T, model_of

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.tflite import conversion, curves, gates, names
from tfedge.tflite.facts import facts
from tfedge.tflite.running import answers, unpacked
from tfedge.training.quantization import quantization_aware

pytestmark = pytest.mark.slow
layers = keras.layers
UNIT = (0.0, 1.0)


class Turned(layers.Layer):
    """A branch, which no quantiser takes."""

    def call(self, x):
        return tf.cond(tf.reduce_mean(x) > 0, lambda: x, lambda: -x)


def inputs(count=32):
    return np.random.default_rng(0).uniform(0, 1, (count, 8, 8, 3)).astype(np.float32)


def conv(x, **named):
    return layers.Conv2D(4, 3, padding="same", **named)(x)


def flattened(x):
    return layers.Flatten()(layers.ELU(name="curve")(conv(x)))


def said_as_an_activation(x):
    return layers.Flatten()(layers.Activation("elu")(conv(x)))


def reshaped(x):
    x = layers.Reshape((16, 16))(layers.ELU(name="curve")(conv(x)))
    return layers.Flatten()(layers.Dense(4)(x))


def concatenated(x):
    both = [layers.ELU(name="curve")(conv(x)), layers.ReLU()(conv(x))]
    return layers.Flatten()(layers.Concatenate()(both))


def with_a_product(x):
    y = conv(x)
    both = [layers.ELU(name="curve")(conv(x)), layers.Multiply()([y, layers.ReLU()(y)])]
    return layers.Flatten()(layers.Concatenate()(both))


def pooled(x):
    return layers.Flatten()(layers.AveragePooling2D()(layers.ELU(name="curve")(conv(x))))


def network(middle):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    given = keras.Input((8, 8, 3))
    return keras.Model(given, layers.Dense(4, name="answer")(middle(given)))


def trained(model):
    aware = quantization_aware(model, inputs(), UNIT)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    aware.compile(keras.optimizers.SGD(0.05), loss, run_eagerly=True)  # for two steps
    aware.fit(inputs(), np.arange(32) % 4, epochs=2, verbose=0)
    return aware


MIDDLES = [flattened, said_as_an_activation, reshaped, concatenated, with_a_product, pooled]


@pytest.mark.parametrize("middle", MIDDLES, ids=lambda middle: middle.__name__)
@pytest.mark.parametrize("aware", [False, True], ids=["calibrated", "trained in 8 bits"])
def test_elu_is_one_int8_operator_and_answers_as_in_float(middle, aware):
    model = network(middle)
    model = trained(model) if aware else model
    made = conversion.to_int8(model, inputs(), UNIT)
    found = facts(made, "x")
    assert found.float_tensors == ()
    assert [name for name, _ in found.operators].count("ELU") == 1
    assert "LEAKY_RELU" not in [name for name, _ in found.operators]
    truth = model(inputs(), training=False).numpy()
    error = answers(made, inputs()) - truth
    assert 10 * np.log10((truth**2).sum() / ((error**2).sum() + 1e-12)) > 25


def test_an_activation_that_tfmot_refuses_inside_of_a_layer_is_named():
    model = network(lambda x: layers.Flatten()(conv(x, activation="elu", name="first")))
    with pytest.raises(UserError, match=r"layer 'first' \(Conv2D\).*\n.*Activation\(\"elu\"\)"):
        quantization_aware(model, inputs(), UNIT)
    assert facts(conversion.to_int8(model, inputs(), UNIT), "x").float_tensors == ()


def test_a_leaky_relu_beside_it_stays_what_it_is():
    def both(x):
        return layers.Flatten()(layers.LeakyReLU(0.3)(conv(layers.ELU()(conv(x)))))

    found = facts(conversion.to_int8(network(both), inputs(), UNIT), "x")
    assert {name for name, _ in found.operators} >= {"ELU", "LEAKY_RELU"}


def test_stand_ins_leave_a_file_as_it_was():
    tensors = (T("a", "float32", (1, 4)), T("b", "float32", (1, 4)), T("c", "float32", (1, 4)))
    steps = (Op("ELU", (0,), (1,)), Op("RELU", (1,), (2,)))
    file = unpacked(model_of(G("main", tensors, steps, (0,), (2,))))
    codes = [code.builtinCode for code in file.operatorCodes]
    assert curves.with_stand_ins(file) == 1
    curves.without_stand_ins(file)
    now = [file.operatorCodes[o.opcodeIndex].builtinCode for o in file.subgraphs[0].operators]
    assert now == codes
    assert sorted(code.builtinCode for code in file.operatorCodes) == sorted(codes)


def test_where_the_quantiser_stops_the_layer_is_named(capfd):
    model = network(lambda x: layers.Flatten()(Turned(name="branch")(conv(x))))
    aware = trained(model)
    capfd.readouterr()
    with pytest.raises(UserError, match="stopped at layer 'branch'") as caught:
        conversion.to_int8(aware, inputs(), UNIT)
    assert "same scale" in str(caught.value)
    assert "leave = [" in str(caught.value)
    assert "RuntimeError" not in capfd.readouterr().err


def test_16_bits_name_an_operator_that_they_have_not():
    with pytest.raises(
        UserError, match=r"not yet supported for op: 'ELU'[^\n]*\n.*form = \"int8\""
    ):
        conversion.convert(network(flattened), "int16x8", inputs(), UNIT)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda: layers.GroupNormalization(2, name="norm"), "layer 'norm' (GroupNormalization)"),
        (lambda: layers.ReLU(4, 0.1, 0.2, name="odd"), "layer 'odd' (ReLU)"),
        (lambda: Turned(name="branch"), "layer 'branch'"),
    ],
)
def test_what_can_never_be_int8_is_refused_before_it_is_trained(layer, words):
    model = network(lambda x: layers.Flatten()(layer()(conv(x))))
    aware = quantization_aware(model, inputs(), UNIT)
    with pytest.raises(UserError, match="in vain") as caught:
        conversion.check_becomes_int8(aware, inputs(), UNIT, "[aware]")
    assert words in str(caught.value)
    assert "conv2d" not in str(caught.value)
    assert "quantize" not in str(caught.value)


def test_a_first_layer_that_stays_float_is_named_and_not_what_training_puts_before_it():
    keras.backend.clear_session()
    given = keras.Input((4, 8, 8, 1))
    x = layers.Flatten()(layers.Conv3D(2, 3, name="cube")(given))
    model = keras.Model(given, layers.Dense(4)(x))
    x = np.random.default_rng(0).uniform(0, 1, (8, 4, 8, 8, 1)).astype(np.float32)
    aware = quantization_aware(model, x, UNIT)
    assert all(kind != "QuantizeLayer" for _, kind in names.of_network(aware))
    made = conversion.to_int8(aware, x, UNIT)
    with pytest.raises(UserError, match=r"stays float in layer 'cube' \(Conv3D\)\n"):
        gates.check(made, "int8", UNIT, "x", names.of_network(aware))
