import numpy as np
import pytest
from prepared import answers, kinds, prepared
from random_weights import difference, randomise

pytestmark = pytest.mark.slow

STEPS, CHANNELS = 12, 4


@pytest.fixture(scope="module")
def k():
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    return keras


def series(count=6):
    return np.random.default_rng(0).normal(2, 3, (count, STEPS, CHANNELS)).astype(np.float32)


def network(k, *layers):
    """Return a sequence of layers on [12, 4] and a dense layer, with random weights."""
    x = given = k.Input((STEPS, CHANNELS))
    for layer in layers:
        x = layer(x)
    x = k.layers.Flatten()(x) if len(x.shape) == 3 else x
    return randomise(k.Model(given, k.layers.Dense(4)(x)))


def left_of(model):
    """Prepare a network and prove that it answers as before; count the layers left."""
    made = prepared(model, series(), std=1.0)
    expected = model(series(), training=False)
    assert difference(answers(made, series()), expected) < 1e-5
    return kinds(made.model)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (lambda la: la.Conv1D(5, 3), "Conv2D"),
        (lambda la: la.Conv1D(5, 3, padding="same", use_bias=False), "Conv2D"),
        (lambda la: la.Conv1D(5, 4, strides=2, padding="same"), "Conv2D"),
        (lambda la: la.Conv1D(5, 3, dilation_rate=2), "Conv2D"),
        (lambda la: la.Conv1D(6, 3, groups=2), "Conv2D"),
        (lambda la: la.Conv1D(5, 3, activation="relu"), "Conv2D"),
        (lambda la: la.SeparableConv1D(5, 3, padding="same"), "SeparableConv2D"),
        (lambda la: la.SeparableConv1D(5, 3, strides=2, depth_multiplier=2), "SeparableConv2D"),
        (lambda la: la.SeparableConv1D(5, 3, dilation_rate=2), "SeparableConv2D"),
        (lambda la: la.DepthwiseConv1D(3), "DepthwiseConv2D"),
        (lambda la: la.DepthwiseConv1D(3, strides=2, padding="same"), "DepthwiseConv2D"),
        (lambda la: la.DepthwiseConv1D(3, depth_multiplier=2, padding="same"), "DepthwiseConv2D"),
    ],
)
def test_a_convolution_along_one_axis_becomes_one_along_two(k, layer, kind):
    left = left_of(network(k, layer(k.layers)))
    assert left == {"Reshape": 1, kind: 1, "Flatten": 1, "Dense": 1}


@pytest.mark.parametrize("dilation", [1, 2])
def test_causal_padding_becomes_zeros_before_the_first_step(k, dilation):
    conv = k.layers.Conv1D(5, 3, padding="causal", dilation_rate=dilation)
    left = left_of(network(k, conv, k.layers.ReLU()))
    assert left == {
        "Reshape": 1,
        "ZeroPadding2D": 1,
        "Conv2D": 1,
        "ReLU": 1,
        "Flatten": 1,
        "Dense": 1,
    }


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (lambda la: la.MaxPooling1D(2), "MaxPooling2D"),
        (lambda la: la.MaxPooling1D(3, strides=2, padding="same"), "MaxPooling2D"),
        (lambda la: la.AveragePooling1D(3, strides=1, padding="same"), "AveragePooling2D"),
        (lambda la: la.ZeroPadding1D((1, 3)), "ZeroPadding2D"),
        (lambda la: la.ZeroPadding1D(2), "ZeroPadding2D"),
        (lambda la: la.Cropping1D((1, 2)), "Cropping2D"),
        (lambda la: la.UpSampling1D(2), "UpSampling2D"),
        (lambda la: la.SpatialDropout1D(0.5), "SpatialDropout2D"),
        (lambda la: la.GlobalAveragePooling1D(), "GlobalAveragePooling2D"),
        (lambda la: la.GlobalMaxPooling1D(), "GlobalMaxPooling2D"),
        (lambda la: la.GlobalAveragePooling1D(keepdims=True), "GlobalAveragePooling2D"),
        (lambda la: la.Activation("tanh"), "Activation"),
        (lambda la: la.LeakyReLU(), "LeakyReLU"),
        (lambda la: la.Dense(3), "Dense"),
    ],
)
def test_what_stands_behind_goes_along(k, layer, kind):
    layer = layer(k.layers)
    left = left_of(network(k, k.layers.Conv1D(6, 3), layer))
    assert left.pop("Reshape") == 1
    left["Dense"] -= 1
    assert {name for name, count in left.items() if count} - {"Flatten"} == {"Conv2D", kind}


def test_what_cannot_go_along_gets_its_one_axis_back(k):
    layers = k.layers
    conv = layers.Conv1D(6, 3, padding="same")
    left = left_of(network(k, conv, layers.LayerNormalization(), layers.LSTM(5)))
    assert left == {"Reshape": 2, "Conv2D": 1, "LayerNormalization": 1, "LSTM": 1, "Dense": 1}


def test_batchnorm_along_one_axis_is_folded(k):
    layers = k.layers
    parts = (layers.Conv1D(6, 3), layers.BatchNormalization(), layers.ReLU())
    left = left_of(network(k, *parts, layers.GlobalAveragePooling1D()))
    assert left == {
        "Reshape": 1,
        "Conv2D": 1,
        "ReLU": 1,
        "GlobalAveragePooling2D": 1,
        "Dense": 1,
    }


def test_branches_are_merged_in_two_dimensions(k):
    layers = k.layers
    given = k.Input((STEPS, CHANNELS))
    x = layers.Conv1D(6, 3, padding="same")(given)
    y = layers.Conv1D(6, 3, padding="same")(layers.BatchNormalization()(x))
    x = layers.Concatenate()([layers.Add()([x, y]), given])
    x = layers.GlobalAveragePooling1D()(x)
    left = left_of(randomise(k.Model(given, layers.Dense(4)(x))))
    assert left == {
        "Reshape": 1,
        "Conv2D": 2,
        "DepthwiseConv2D": 1,
        "Add": 1,
        "Concatenate": 1,
        "GlobalAveragePooling2D": 1,
        "Dense": 1,
    }


def test_a_merge_along_the_steps_stays_right(k):
    layers = k.layers
    given = k.Input((STEPS, CHANNELS))
    x = layers.Conv1D(4, 3, padding="same")(given)
    x = layers.Concatenate(axis=1)([x, given])
    left = left_of(randomise(k.Model(given, layers.Dense(4)(layers.Flatten()(x)))))
    assert left["Conv2D"] == 1


def test_a_convolution_called_twice_stays_one_layer(k):
    conv = k.layers.Conv1D(4, 3, padding="same")
    model = network(k, conv, k.layers.ReLU(), conv)
    left = left_of(model)
    assert left["Conv2D"] == 1
    assert prepared(model, series(), std=1.0).model.count_params() == model.count_params()


def test_a_sequence_without_convolutions_is_left_as_it_is(k):
    layers = k.layers
    left = left_of(network(k, layers.MaxPooling1D(2), layers.GRU(5)))
    assert left == {"MaxPooling1D": 1, "GRU": 1, "Dense": 1}
