"""Cross-layer equalisation: channels of like range in the weights, and the same network.

Int8 has one scale for all channels of a feature map.  Where one channel is a thousand times larger
than another, nothing of the smaller one is left.  Scaling a channel down in the layer that makes it
and up in the layer that reads it evens that out, and changes no answer as long as only positively
homogeneous functions, f(s x) = s f(x) for s > 0, stand between the two (Nagel et al. 2019, section
4.1, https://arxiv.org/abs/1906.04721).

The paper's absorption of high biases (section 4.1.3) is left out: it assumes that a channel never
falls below its mean less three standard deviations, which holds for most inputs only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfedge.networks.backend import keras, refuse_nested

_K = keras.layers
_WEIGHTED = (_K.Conv2D, _K.DepthwiseConv2D, _K.Dense)
_HOMOGENEOUS = (
    *(_K.LeakyReLU, _K.PReLU, _K.Dropout, _K.SpatialDropout2D, _K.Flatten, _K.Reshape),
    *(_K.MaxPooling2D, _K.AveragePooling2D, _K.GlobalMaxPooling2D, _K.GlobalAveragePooling2D),
    *(_K.ZeroPadding2D, _K.Cropping2D, _K.UpSampling2D),
)
_ACTIVATIONS = (keras.activations.linear, keras.activations.relu, tf.nn.relu, tf.nn.leaky_relu)
_CAP = 6.0
_DEAD = float(np.finfo(np.float32).eps)
"""Share of a layer's largest weight below which a channel is nothing but float32's rounding."""
_SWEEPS = 100
_CLOSE = 1e-4


class Pair(NamedTuple):
    """Two layers by name, the second of which alone reads what the first makes.

    Attributes:
      between: Layers without an influence on the scales that stand between the two.
    """

    first: str
    second: str
    between: tuple[str, ...]


def equalised(model: keras.Model, *, relu6: bool = False) -> keras.Model:
    """Return a twin in which each pair's channels have the same range in both layers' weights.

    Channel i of a pair is divided by s = sqrt(r1 / r2), where r1 and r2 are the largest absolute
    weights that make and read it, so that both become sqrt(r1 * r2) (equations 10 and 11; the
    paper's factor of 2 in r falls out).  Where a layer is in two pairs, as a depthwise one between
    two others, all pairs are gone through again until the scales stay.  A channel that nothing
    makes or reads keeps its scale.

    Args:
      model: Flat, float32, its BatchNormalization folded: a pair with one between is left alone.
        Not changed.
      relu6: Also equalise over a ReLU that is capped at 6, and take off the cap, as the paper does
        (section 5.1.1).  The twin then answers otherwise wherever the cap was reached.

    Returns:
      A functional model that shares no weights with `model`; without `relu6` it answers the same
      but for float32's rounding.
    """
    twin = _twin(model)
    found = tuple(_pairs(twin, relu6=relu6))
    if relu6:
        names = {name for pair in found for name in (pair.first, *pair.between)}
        twin = _uncapped(twin, names)
    weights = {
        name: [np.array(weight, np.float64) for weight in twin.get_layer(name).get_weights()]
        for pair in found
        for name in pair[:2]
    }
    channels = {pair: int(twin.get_layer(pair.first).output_shape[-1]) for pair in found}
    for _ in range(_SWEEPS):
        moves = [_equalise(weights[p.first], weights[p.second], channels[p]) for p in found]
        if all(move < _CLOSE for move in moves):
            break
    for name, values in weights.items():
        twin.get_layer(name).set_weights([np.float32(value) for value in values])
    return twin


def pairs(model: keras.Model, *, relu6: bool = False) -> tuple[Pair, ...]:
    """Return the pairs that `equalised` equalises, from the input to the output."""
    return tuple(_pairs(_twin(model), relu6=relu6))


def _twin(model: keras.Model) -> keras.Model:
    """Return a functional twin, whose layers are in no other network."""
    refuse_nested(model)
    # A layer of `model` may have been called in other networks too, and knows all of these calls.
    flat = keras.Model(model.inputs, model.outputs, name=model.name)
    twin = keras.models.clone_model(flat)
    twin.set_weights(flat.get_weights())
    return twin


def _pairs(twin: keras.Model, *, relu6: bool) -> Iterator[Pair]:
    ends = {output._keras_history.layer.name for output in twin.outputs}
    for layer in twin.layers:
        if type(layer) in _WEIGHTED and _passes(layer, relu6=relu6) and _is_single(layer):
            pair = _followed(layer, ends, relu6=relu6)
            if pair is not None:
                yield pair


def _followed(first: keras.layers.Layer, ends: set[str], *, relu6: bool) -> Pair | None:
    """Follow what a layer makes to the only other layer with weights that reads it, if any."""
    channels = int(first.output_shape[-1])
    between: list[str] = []
    layer = first
    while layer.name not in ends and len(layer._outbound_nodes) == 1:
        layer = layer._outbound_nodes[0].outbound_layer
        if not _is_single(layer) or getattr(layer, "groups", 1) != 1:
            return None
        if type(layer) in _WEIGHTED:
            return Pair(first.name, layer.name, tuple(between))
        if not _passes(layer, relu6=relu6) or not _keeps(layer, channels):
            return None
        between.append(layer.name)
    return None


def _is_single(layer: keras.layers.Layer) -> bool:
    """Whether a layer is called once, with its channels last."""
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return len(layer._inbound_nodes) == 1 and last


def _passes(layer: keras.layers.Layer, *, relu6: bool) -> bool:
    """Whether what a layer does, or does behind its weights, is positively homogeneous."""
    if type(layer) is _K.ReLU:
        capped = layer.max_value is not None and not (relu6 and float(layer.max_value) == _CAP)
        return not capped and float(layer.threshold) == 0
    if type(layer) in (*_WEIGHTED, _K.Activation):
        return layer.activation in (*_ACTIVATIONS, *([tf.nn.relu6] if relu6 else []))
    return type(layer) in _HOMOGENEOUS


def _keeps(layer: keras.layers.Layer, channels: int) -> bool:
    """Whether a number's channel is still its place on the last axis, modulo `channels`.

    After a Flatten it is, because in memory the channel is the axis that moves first.
    """
    return (layer.output_shape[-1] or 1) % channels == 0


def _equalise(first: list[np.ndarray], second: list[np.ndarray], channels: int) -> float:
    """Change kernels and bias in place; return by how much, the largest |log s| of a channel."""
    made = first[0].reshape(-1, channels)
    read = second[0].reshape(-1, channels, second[0].shape[-1])
    r1, r2 = np.abs(made).max(axis=0), np.abs(read).max(axis=(0, 2))
    alive = (r1 > _DEAD * r1.max()) & (r2 > _DEAD * r2.max())
    scale = np.sqrt(np.divide(r1, r2, out=np.ones_like(r1), where=alive))
    made /= scale
    read *= scale[:, None]
    for bias in first[1:]:
        bias /= scale
    return float(np.abs(np.log(scale)).max())


def _uncapped(twin: keras.Model, names: set[str]) -> keras.Model:
    """Return a twin of a twin with a plain ReLU for each ReLU6 of the layers named."""

    def changed(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name in names and type(layer) is _K.ReLU:
            config["max_value"] = None
        elif layer.name in names and getattr(layer, "activation", None) is tf.nn.relu6:
            config["activation"] = "relu"
        return type(layer).from_config(config)

    plain = keras.models.clone_model(twin, clone_function=changed)
    plain.set_weights(twin.get_weights())
    return plain
