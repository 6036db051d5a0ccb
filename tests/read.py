"""What is read of models in tests, and whether it answers as they do."""

import numpy as np
from random_weights import difference, randomise


def read(model, shape=None):
    from tfedge.networks.keras2 import Keras2
    from tfedge.networks.reading import read

    return read(model, Keras2(), shape)


def same(model, shape=None):
    """Read a model, prove that its graph answers as it does, and return the graph."""
    from tfedge.networks.graph import build

    graph = read(model, shape)
    shape = tuple(size or 6 for size in (shape or model.input_shape[1:]))
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    expected = model(x, training=False)
    assert difference(build(graph)(x, training=False), expected) < 1e-5
    return graph


def kinds(graph):
    return [call.layer.kind.__name__ for call in graph.calls]


def base(b, name="base", channels=3):
    """Return a functional model of a convolution, a BatchNormalization and a ReLU."""
    layers = b.keras.layers
    x = given = b.keras.Input((8, 8, channels))
    x = layers.Conv2D(channels, 3, padding="same", name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    return b.keras.Model(given, x, name=name)


def head(b, given, x, classes=4):
    x = b.keras.layers.GlobalAveragePooling2D()(x)
    return randomise(b.keras.Model(given, b.keras.layers.Dense(classes)(x)))
