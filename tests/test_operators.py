import math

import numpy as np
import pytest
from random_weights import difference

from tfedge.errors import UserError

pytestmark = pytest.mark.slow

C = np.float32([0.5, -2.0, 3.0])
"""A constant for each channel."""
M = np.float32(np.arange(12).reshape(3, 4) - 5)


@pytest.fixture(scope="module")
def k():
    from tfedge.networks.backend import keras

    return keras


def said(k, function, shape=(4, 6, 3)):
    """Say a function as layers.

    Args:
      function: Of TensorFlow and a tensor.

    Returns:
      The kinds, what the layers compute of random numbers, and those numbers.
    """
    import tensorflow as tf

    from tfedge.networks.graph import build
    from tfedge.networks.keras2 import Keras2
    from tfedge.networks.reading import read

    given = k.Input(shape)
    graph = read(k.Model(given, function(tf, given)), Keras2())
    x = np.random.default_rng(0).normal(0, 3, (2, *shape)).astype(np.float32)
    return [call.layer.kind.__name__ for call in graph.calls], build(graph)(x).numpy(), x


def softmax(x, axis):
    shares = np.exp(x - x.max(axis=axis, keepdims=True))
    return shares / shares.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def erf(x):
    return np.vectorize(math.erf)(x)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda tf, x: x + 3, lambda x: x + 3),
        (lambda tf, x: 3 - x, lambda x: 3 - x),
        (lambda tf, x: x - C, lambda x: x - C),
        (lambda tf, x: x * C, lambda x: x * C),
        (lambda tf, x: C * x, lambda x: x * C),
        (lambda tf, x: x / 4, lambda x: x / 4),
        (lambda tf, x: x / C, lambda x: x / C),
        (lambda tf, x: tf.math.multiply(x, C.reshape(1, 1, 1, 3)), lambda x: x * C),
        (lambda tf, x: tf.add(x, y=tf.constant(C)), lambda x: x + C),
        (lambda tf, x: -1 * x, lambda x: -x),
    ],
)
def test_a_constant_for_all_or_each_channel_becomes_one_scale_and_offset(k, function, expected):
    kinds, got, x = said(k, function)
    assert kinds == ["Affine"]
    assert difference(got, expected(x)) < 1e-6


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda tf, x: x + np.float32(np.arange(6)).reshape(6, 1),
         lambda x: x + np.arange(6)[:, None]),
        (lambda tf, x: 4 / (x * x + 1), lambda x: 4 / (x * x + 1)),
        (lambda tf, x: tf.maximum(x, 0.5), lambda x: np.maximum(x, 0.5)),
        (lambda tf, x: x[..., :1] + C, lambda x: x[..., :1] + C),
        (lambda tf, x: x * x, lambda x: x * x),
        (lambda tf, x: x**3, lambda x: x**3),
        (lambda tf, x: -x, lambda x: -x),
        (lambda tf, x: abs(x), np.abs),
        (lambda tf, x: tf.exp(x), np.exp),
        (lambda tf, x: tf.square(x), np.square),
        (lambda tf, x: tf.sqrt(tf.abs(x)), lambda x: np.sqrt(abs(x))),
        (lambda tf, x: tf.clip_by_value(x, -1, 2), lambda x: np.clip(x, -1, 2)),
        (lambda tf, x: x @ M, lambda x: x @ M),
        (lambda tf, x: tf.linalg.matmul(x, x, transpose_b=True), lambda x: x @ x.swapaxes(-1, -2)),
        (lambda tf, x: tf.einsum("bhwc,cd->bhwd", x, M), lambda x: x @ M),
        (lambda tf, x: x[:, 1:3, ::2], lambda x: x[:, 1:3, ::2]),
        (lambda tf, x: x[..., 0], lambda x: x[..., 0]),
        (lambda tf, x: x[:, -1], lambda x: x[:, -1]),
        (lambda tf, x: x[:, None], lambda x: x[:, None]),
        (lambda tf, x: tf.reverse(x, [2]), lambda x: x[:, :, ::-1]),
        (lambda tf, x: tf.roll(x, 1, 2), lambda x: np.roll(x, 1, 2)),
        (lambda tf, x: tf.pad(x, [[0, 0], [1, 0], [0, 2], [0, 0]]),
         lambda x: np.pad(x, [(0, 0), (1, 0), (0, 2), (0, 0)])),
        (lambda tf, x: tf.tile(x, [1, 2, 1, 1]), lambda x: np.tile(x, [1, 2, 1, 1])),
        (lambda tf, x: tf.stack([x, x * 2], axis=1), lambda x: np.stack([x, 2 * x], 1)),
        (lambda tf, x: tf.split(x, [1, 2], axis=-1)[1], lambda x: x[..., 1:]),
        (lambda tf, x: tf.unstack(x, axis=1)[2], lambda x: x[:, 2]),
        (lambda tf, x: tf.gather(x, [2, 0], axis=-1), lambda x: x[..., [2, 0]]),
        (lambda tf, x: tf.where(x > 0, x, 0.1 * x), lambda x: np.where(x > 0, x, 0.1 * x)),
        (lambda tf, x: tf.reduce_mean(x, axis=-1), lambda x: x.mean(-1)),
        (lambda tf, x: tf.reduce_mean(x, 1, keepdims=True), lambda x: x.mean(1, keepdims=True)),
        (lambda tf, x: tf.reduce_sum(x, axis=[1, 2]), lambda x: x.sum((1, 2))),
        (lambda tf, x: tf.nn.gelu(x, approximate=True), lambda x: 0.5 * x * (
            1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        (lambda tf, x: tf.nn.l2_normalize(x, axis=-1),
         lambda x: x / np.sqrt((x**2).sum(-1, keepdims=True))),
        (lambda tf, x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
         lambda x: x.reshape(-1, 2, 2, 3, 2, 3).mean((2, 4))),
        (lambda tf, x: tf.nn.depth_to_space(tf.pad(x, [[0, 0], [0, 0], [0, 0], [0, 1]]), 2),
         lambda x: np.pad(x, [(0, 0)] * 3 + [(0, 1)]).reshape(-1, 4, 6, 2, 2).transpose(
             0, 1, 3, 2, 4).reshape(-1, 8, 12, 1)),
    ],
)  # fmt: skip
def test_a_function_without_a_layer_computes_what_it_did(k, function, expected):
    _, got, x = said(k, function)
    assert difference(got, expected(x)) < 1e-5


@pytest.mark.parametrize(
    ("function", "expected", "kind"),
    [
        (lambda tf, x: x + tf.reverse(x, [1]), lambda x: x + x[:, ::-1], "Add"),
        (lambda tf, x: x - tf.reverse(x, [1]), lambda x: x - x[:, ::-1], "Subtract"),
        (lambda tf, x: x * tf.reverse(x, [1]), lambda x: x * x[:, ::-1], "Multiply"),
        (lambda tf, x: tf.maximum(x, tf.reverse(x, [1])), lambda x: np.maximum(x, x[:, ::-1]),
         "Maximum"),
        (lambda tf, x: tf.minimum(x, tf.reverse(x, [1])), lambda x: np.minimum(x, x[:, ::-1]),
         "Minimum"),
        (lambda tf, x: tf.concat([x, tf.reverse(x, [1])], axis=1),
         lambda x: np.concatenate([x, x[:, ::-1]], 1), "Concatenate"),
        (lambda tf, x: tf.concat([x, tf.reverse(x, [1])], -1),
         lambda x: np.concatenate([x, x[:, ::-1]], -1), "Concatenate"),
        (lambda tf, x: tf.nn.relu(x), lambda x: np.maximum(x, 0), "ReLU"),
        (lambda tf, x: tf.nn.relu6(x), lambda x: np.clip(x, 0, 6), "ReLU"),
        (lambda tf, x: tf.clip_by_value(x, 0, 3), lambda x: np.clip(x, 0, 3), "ReLU"),
        (lambda tf, x: tf.nn.leaky_relu(x), lambda x: np.where(x > 0, x, 0.2 * x), "LeakyReLU"),
        (lambda tf, x: tf.nn.leaky_relu(x, 0.3), lambda x: np.where(x > 0, x, 0.3 * x),
         "LeakyReLU"),
        (lambda tf, x: tf.nn.leaky_relu(x, alpha=0.1), lambda x: np.where(x > 0, x, 0.1 * x),
         "LeakyReLU"),
        (lambda tf, x: tf.sigmoid(x), sigmoid, "Activation"),
        (lambda tf, x: tf.tanh(x), np.tanh, "Activation"),
        (lambda tf, x: tf.nn.silu(x), lambda x: x * sigmoid(x), "Activation"),
        (lambda tf, x: tf.nn.elu(x), lambda x: np.where(x > 0, x, np.expm1(x)), "Activation"),
        (lambda tf, x: tf.nn.gelu(x), lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
         "Activation"),
        (lambda tf, x: tf.math.softplus(x), lambda x: np.log1p(np.exp(x)), "Activation"),
        (lambda tf, x: tf.nn.softmax(x), lambda x: softmax(x, -1), "Softmax"),
        (lambda tf, x: tf.nn.softmax(x, 1), lambda x: softmax(x, 1), "Softmax"),
        (lambda tf, x: tf.nn.softmax(x, axis=2), lambda x: softmax(x, 2), "Softmax"),
        (lambda tf, x: tf.reduce_mean(x, axis=[1, 2]), lambda x: x.mean((1, 2)),
         "GlobalAveragePooling2D"),
        (lambda tf, x: tf.reduce_mean(x, [-3, -2], keepdims=True),
         lambda x: x.mean((1, 2), keepdims=True), "GlobalAveragePooling2D"),
        (lambda tf, x: tf.reduce_max(x, (1, 2)), lambda x: x.max((1, 2)), "GlobalMaxPooling2D"),
        (lambda tf, x: tf.reshape(x, (-1, 24, 3)), lambda x: x.reshape(-1, 24, 3), "Reshape"),
        (lambda tf, x: tf.expand_dims(x, 1), lambda x: x[:, None], "Reshape"),
        (lambda tf, x: tf.transpose(x, [0, 2, 3, 1]), lambda x: x.transpose(0, 2, 3, 1),
         "Permute"),
    ],
)  # fmt: skip
def test_a_function_becomes_the_layer_that_computes_it(k, function, expected, kind):
    kinds, got, x = said(k, function)
    assert kinds[-1] == kind
    assert set(kinds[:-1]) <= {"Operation"}  # what the test itself turns round
    assert difference(got, expected(x)) < 1e-5


def test_a_mean_over_steps_becomes_pooling_along_one_axis(k):
    kinds, got, x = said(k, lambda tf, x: tf.reduce_mean(x, axis=1), (6, 3))
    assert kinds == ["GlobalAveragePooling1D"]
    assert difference(got, x.mean(1)) < 1e-6


def test_a_tensor_to_which_nothing_is_done_is_handed_on(k):
    kinds, got, x = said(k, lambda tf, x: tf.cast(tf.stop_gradient(tf.identity(x)), "float32"))
    assert set(kinds) <= {"Activation"}
    assert np.array_equal(got, x)


def test_a_shape_that_is_asked_for_is_computed(k):
    def flat(tf, x):
        return tf.reshape(x, [tf.shape(x)[0], 24, tf.shape(x)[3]])

    _, got, x = said(k, flat)
    assert np.array_equal(got, x.reshape(-1, 24, 3))


def test_constants_before_tensors_and_in_names_are_kept(k):
    _, got, x = said(k, lambda tf, x: tf.math.subtract(x=tf.constant(2.0), y=tf.nn.relu(x)))
    assert difference(got, 2 - np.maximum(x, 0)) < 1e-6


def test_what_is_saved_with_an_operation_is_read_back(k, tmp_path):
    from tfedge.networks.graph import build
    from tfedge.networks.keras2 import Keras2
    from tfedge.networks.reading import read
    from tfedge.networks.saving import load_model, save_model

    import tensorflow as tf  # isort: skip

    given = k.Input((4, 6, 3))
    x = tf.pad(given[:, ::2] @ M, [[0, 0], [0, 0], [1, 1], [0, 0]]) + given[:, :1, :1, :1]
    model = build(read(k.Model(given, x[..., -1]), Keras2()))
    save_model(model, tmp_path / "model.h5")
    values = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    assert np.array_equal(load_model(tmp_path / "model.h5")(values), model(values))


@pytest.mark.parametrize("function", ["io.read_file", "py_function", "print", "random.uniform"])
def test_a_function_that_does_more_than_compute_is_refused(k, function):
    from tfedge.networks.graph import Tensor
    from tfedge.networks.operators import call_of

    given, made = Tensor((None, 3)), Tensor((None, 3))
    with pytest.raises(UserError) as caught:
        call_of(function, "sly", ((given,), {}), [made])
    assert f"layer 'sly': is a call of tf.{function}, which is not known here" in str(caught.value)
    assert "write it with layers of Keras's" in str(caught.value)


def test_a_large_constant_is_refused_with_what_to_write(k):
    with pytest.raises(UserError, match="computes with a constant of 6000 numbers") as caught:
        said(k, lambda tf, x: x @ np.ones((3, 2000), np.float32))
    assert "Dense or Conv2D" in str(caught.value)
