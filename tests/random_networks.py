"""Networks of either shape and depth by a seed, of all that channels can go through."""

import numpy as np
from random_weights import randomise

from tfedge.networks import layers as own
from tfedge.networks.backend import keras

layers = keras.layers
SHAPE = (8, 8, 3)


def network(seed):
    """Return a network of ten random pieces, with random weights; some have two answers."""
    rng = np.random.default_rng(seed)
    keras.backend.clear_session()
    given = keras.Input(SHAPE)
    x = _conv(given, rng)
    for _ in range(10):
        x = rng.choice(PIECES)(x, rng)
    answers = [layers.Dense(4)(layers.GlobalAveragePooling2D()(x))]
    if rng.random() < 0.3:
        answers.append(layers.Dense(2)(layers.Flatten()(layers.MaxPooling2D()(x))))
    return randomise(keras.Model(given, answers), seed)


def _conv(x, rng, width=None, size=None):
    size = size or int(rng.choice([1, 3]))
    width = width or int(rng.choice([6, 8, 12]))
    x = layers.Conv2D(width, size, padding="same", use_bias=rng.random() < 0.5)(x)
    return layers.BatchNormalization()(x) if rng.random() < 0.5 else x


def _active(x, rng):
    kinds = (
        layers.ReLU(6.0),
        layers.PReLU(shared_axes=[1, 2]),
        own.HardSwish(),
        layers.LeakyReLU(),
        layers.BatchNormalization(),
        layers.Dropout(0.2),
    )
    return kinds[rng.integers(len(kinds))](x)


def _residual(x, rng):
    return layers.Add()([x, _conv(_conv(x, rng), rng, x.shape[-1])])


def _joined(x, rng):
    parts = [_conv(x, rng), x, _conv(x, rng)]
    return layers.Concatenate()(parts[: rng.integers(2, 4)])


def _joined_and_added(x, rng):
    """Two kernels side by side on one, so that what goes with each differs."""
    y = layers.Concatenate()([_conv(x, rng, 6), _conv(x, rng, 6)])
    return layers.Maximum()([_conv(x, rng, 12), y])


def _squeezed(x, rng):
    width = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Dense(6, activation="relu")(gate)
    gate = layers.Conv2D(width, 1, activation="sigmoid")(gate)
    return layers.Multiply()([x, gate])


def _depthwise(x, rng):
    return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(x)


def _separable(x, rng):
    return layers.SeparableConv2D(8, 3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(x)


def _grouped(x, rng):
    groups = int(rng.choice([2, 6]))
    x = layers.Conv2D(12, 3, padding="same", groups=groups)(_conv(x, rng, 12))
    return layers.ReLU()(x)


def _shuffled(x, rng):
    x = layers.Reshape((*x.shape[1:3], 2, 4))(_conv(x, rng, 8))
    return layers.Reshape((*x.shape[1:3], 8))(layers.Permute((1, 2, 4, 3))(x))


def _turned(x, rng):
    return layers.Conv2DTranspose(8, 3, padding="same")(x)


def _twice(x, rng):
    """A layer called twice, on channels that it then ties."""
    shared = layers.Conv2D(8, 3, padding="same")
    x = shared(_conv(x, rng, 8))
    return shared(layers.ReLU()(x))


def _masked(x, rng):
    """A map of one channel for all others."""
    return layers.Multiply()([x, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x)])


def _in_columns(x, rng):
    """Rows and channels on one axis and back."""
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height, width * channels))(x)
    return layers.Reshape((height, width, channels))(layers.ReLU()(x))


PIECES = (
    *(_active, _residual, _joined, _joined_and_added, _squeezed, _depthwise, _separable, _grouped),
    *(_shuffled, _turned, _twice, _masked, _in_columns, _conv),
)
