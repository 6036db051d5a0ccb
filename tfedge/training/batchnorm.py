"""BatchNormalization's statistics: held while a network is trained on, or estimated anew.

In training, BatchNormalization divides by the statistics of the batch at hand; in the file it
divides by moving averages, which are folded into the convolution before it.  Where little is left
to learn, that difference, and its noise, is larger than what is learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from tfedge.networks.backend import keras


def normalisations(model: keras.Model) -> list[keras.layers.Layer]:
    """List a network's BatchNormalization layers, those inside of tfmot's wrappers as well."""
    inner = [getattr(layer, "layer", layer) for layer in model.layers]
    return [layer for layer in inner if isinstance(layer, keras.layers.BatchNormalization)]


@contextmanager
def held_statistics(model: keras.Model) -> Iterator[None]:
    """Have `model` train with the moving averages that it has, and leave them as they are.

    This is the freezing of Krishnamoorthi 2018, section 3.2.2 (https://arxiv.org/abs/1806.08342).
    A layer in tfmot's wrapper still learns its scale and offset; one without holds them, too.
    """
    layers = [layer for layer in normalisations(model) if layer.trainable]
    for layer in layers:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in layers:
            layer.trainable = True


def estimate(model: keras.Model, batches: tf.data.Dataset) -> None:
    """Make each layer's statistics the averages over `batches`; nothing else changes.

    Precise BatchNorm (Wu and Johnson 2021, section 3, https://arxiv.org/abs/2105.07576; Yu and
    Huang 2019, section 3.2, https://arxiv.org/abs/1903.05134): moving averages are those of weights
    that have moved meanwhile, and of the last few batches alone.

    Args:
      batches: Of float32 [batch, ...] inputs and whatever else.
    """
    layers = normalisations(model)
    moving = {id(w) for layer in layers for w in (layer.moving_mean, layer.moving_variance)}
    others = [(w, w.numpy()) for w in model.weights if id(w) not in moving]
    momenta = [layer.momentum for layer in layers]
    for count, (inputs, *_) in enumerate(batches):
        for layer in layers:
            layer.momentum = count / (count + 1)  # the moving average is then the plain one
        model(inputs, training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for weight, value in others:
        weight.assign(value)
