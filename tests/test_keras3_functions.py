"""keras.ops in a network of Keras 3 compute in tf_keras what they did."""

import numpy as np
import pytest
from random_weights import difference, randomise

from tfedge.errors import UserError

pytestmark = pytest.mark.slow

SHAPE = (6, 8, 3)


@pytest.fixture(scope="module")
def k():
    import keras

    return keras


def network(k, function):
    given = k.Input(SHAPE)
    return randomise(k.Model(given, function(k.ops, given)))


def rebuilt(model):
    """Prove that the graph of a model answers as it does; return the classes of its layers."""
    from tfedge.networks.files import made_by
    from tfedge.networks.graph import build

    graph, _ = made_by(model, SHAPE)
    x = np.random.default_rng(0).normal(0, 2, (3, *SHAPE)).astype(np.float32)
    expected = np.asarray(model(x, training=False))
    assert difference(build(graph)(x, training=False), expected) < 1e-5
    return [call.layer.kind.__name__ for call in graph.calls]


def number(o, x):
    return o.cast(x, "float32")


@pytest.mark.parametrize(
    "function",
    [
        lambda o, x: o.image.resize(x, (3, 4)),
        lambda o, x: o.image.resize(x, (9, 9), interpolation="nearest"),
        lambda o, x: o.image.resize(x, (3, 3), interpolation="bicubic", antialias=True),
        lambda o, x: o.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), mode="reflect"),
        lambda o, x: o.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), mode="symmetric"),
        lambda o, x: o.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=2.0),
        lambda o, x: o.where(x > 0, x, 0.1 * x),
        lambda o, x: o.where(x >= x[:, :1], x, 0.0) + o.where(x < 1, 2.0, x),
        lambda o, x: o.where(o.logical_and(x <= 1, o.logical_not(x == 0)), x, -x),
        lambda o, x: o.where(o.logical_or(x > 1, o.not_equal(x, x)), x, -x),
        lambda o, x: o.where(o.any(x > 3, axis=-1, keepdims=True), x, 0.0),
        lambda o, x: o.where(o.all(x > -3, axis=(1, 2), keepdims=True), x, 0.0),
        lambda o, x: o.var(x, axis=[1, 2], keepdims=True) + o.std(x, axis=-1, keepdims=True),
        lambda o, x: o.normalize(x, axis=-1),
        lambda o, x: o.normalize(0 * x, axis=1) + o.normalize(x, axis=1, epsilon=2.0),
        lambda o, x: o.norm(x, axis=-1) + o.norm(x, ord=1, axis=-1),
        lambda o, x: number(o, o.argmax(x, axis=-1)) + number(o, o.argmin(x, axis=-1)),
        lambda o, x: o.min(x, axis=1) + o.prod(x, axis=1) + o.logsumexp(x, axis=1),
        lambda o, x: o.log_softmax(x, axis=-1),
        lambda o, x: o.log1p(o.abs(x)) + o.expm1(x) + o.sin(x) + o.cos(x) + o.erf(x),
        lambda o, x: o.sign(x) + o.ceil(x) + o.floor(x) + o.round(x) + o.reciprocal(x),
        lambda o, x: o.mod(x, 2.0) + o.floor_divide(x, 2.0),
        lambda o, x: o.cumsum(x, axis=2),
        lambda o, x: o.take(x, [2, 0], axis=-1),
        lambda o, x: o.tile(x, (1, 1, 2, 1)) + o.repeat(x, 2, axis=2),
        lambda o, x: o.roll(x, 1, axis=1),
        lambda o, x: o.swapaxes(x, 1, 2),
        lambda o, x: o.swapaxes(x, -1, 1),
        lambda o, x: o.moveaxis(x, -1, 1),
        lambda o, x: o.moveaxis(x, (1, 2), (3, 1)),
        lambda o, x: o.unstack(x, axis=-1)[1],
    ],
)
def test_a_function_computes_what_it_did(k, function):
    rebuilt(network(k, function))


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda o, x: o.max_pool(x, 2), "MaxPooling2D"),
        (lambda o, x: o.max_pool(x, (2, 3), strides=1, padding="same"), "MaxPooling2D"),
        (lambda o, x: o.average_pool(x, 2, strides=(1, 2)), "AveragePooling2D"),
        (lambda o, x: o.average_pool(x, 3, strides=2, padding="same"), "AveragePooling2D"),
        (lambda o, x: o.max_pool(x[:, 0], 2), "MaxPooling1D"),
    ],
)
def test_pooling_becomes_a_layer(k, function, kind):
    assert rebuilt(network(k, function))[-1] == kind


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda o, x: o.argmax(x), "Argmax with axis = None"),
        (lambda o, x: o.argmax(x, axis=-1, keepdims=True), "Argmax with keepdims = True"),
        (lambda o, x: o.normalize(x, order=3), "Normalize with order = 3"),
        (lambda o, x: o.round(x, 1), "Round with decimals = 1"),
        (lambda o, x: o.image.resize(x, (3, 3), crop_to_aspect_ratio=True), "Resize with crop_to"),
        (lambda o, x: o.max_pool(x, 2, data_format="channels_first"), "MaxPool with data_format"),
    ],
)
def test_what_tensorflow_computes_otherwise_is_refused_by_name(k, function, message):
    with pytest.raises(UserError) as caught:
        rebuilt(network(k, function))
    assert f"keras.ops' {message}" in str(caught.value)


@pytest.mark.parametrize("function", ["image.resize", "pad", "where", "normalize", "var"])
def test_a_network_with_it_converts(k, function):
    from prepared import prepared

    from tfedge.tflite.conversion import convert
    from tfedge.tflite.facts import facts

    o = k.ops
    middle = {
        "image.resize": lambda x: o.image.resize(x, (3, 4)),
        "pad": lambda x: o.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"),
        "where": lambda x: o.where(x > 0, x, 0.1 * x),
        "normalize": lambda x: o.normalize(x, axis=-1),
        "var": lambda x: o.var(x, axis=(1, 2), keepdims=True) * x,
    }[function]
    layers = k.layers

    def whole(_, x):
        x = middle(layers.Conv2D(4, 3)(x))
        return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))

    model = prepared(network(k, whole)).model
    x = np.random.default_rng(0).uniform(0, 1, (20, *SHAPE)).astype(np.float32)
    for form in ("int8", "float16"):
        found = facts(convert(model, form, x, (0.0, 1.0)), function)
        assert found.custom_operators == ()
        assert form == "float16" or found.float_tensors == ()
