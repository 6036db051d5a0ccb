"""Quantization-aware training with tfmot: the network learns to live with 8 bits.

The scheme is Jacob et al. 2018, section 3 (https://arxiv.org/abs/1712.05877): every weight and
every activation passes a fake quantisation in the forward pass, and gradients go straight through.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from tensorflow_model_optimization.experimental import combine
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_registry,
)
from tensorflow_model_optimization.quantization import keras as quantization

from tfedge.errors import UserError, did_you_mean
from tfedge.networks.backend import keras, refuse_nested
from tfedge.training.pruning import zeros

SPARSE = 0.05
"""From this share of exact zeros on, a layer counts as pruned: none of them come by chance."""

_LAYERS = keras.layers
_REWRITTEN = (_LAYERS.SeparableConv2D,)
_BEFORE_BATCHNORM = (_LAYERS.Conv2D, _LAYERS.DepthwiseConv2D, _LAYERS.Dense, *_REWRITTEN)


def quantization_aware(
    model: keras.Model,
    samples: np.ndarray,
    limits: tuple[float, float],
    leave: Sequence[str] = (),
) -> keras.Model:
    """Return a twin of `model` that computes as if in int8, to be trained a little more.

    Zeros that pruning made stay zeros (tfmot's prune-preserving scheme).

    Args:
      samples: Float32 [count, ...], normalised.  The activations' ranges start where these inputs
        put them; tfmot alone starts at -6 to 6 and averages so slowly that a short training ends
        there, too.
      limits: Least and largest value of a normalised input.  They fix the input's scale and zero
        point, which tfmot would otherwise start at -6 to 6.
      leave: Shell-like patterns of layers to leave as they are.
    """
    names = [layer.name for layer in model.layers]
    for wish in leave:
        if not any(fnmatchcase(name, wish) for name in names):
            raise UserError("leave", f"no layer matches {wish!r}", did_you_mean(wish, names))
    # tfmot's wrappers take hold of the layers they are given; the caller's stay untouched.
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    left = left_alone(twin, leave)

    def annotated(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in left or isinstance(layer, _LAYERS.InputLayer):
            return layer
        return quantization.quantize_annotate_layer(layer)

    scheme: tuple[object, ...] = ()
    if any(share > SPARSE for share in zeros(model).values()):
        scheme = (combine.Default8BitPrunePreserveQuantizeScheme(),)
    marked = keras.models.clone_model(twin, clone_function=annotated)
    own = {type(layer).__name__: type(layer) for layer in model.layers}
    with quantization.quantize_scope(own):
        aware = quantization.quantize_apply(marked, *scheme)
    _fix_input(aware, limits)
    _start_ranges(aware, model, samples)
    return aware


def left_alone(model: keras.Model, leave: Sequence[str] = ()) -> dict[str, str]:
    """Name the layers that are trained in float, and why.

    The converter quantises them afterwards from calibration, so that the file is int8 all the same;
    what they lose by it is not trained back.
    """
    refuse_nested(model)
    registry = default_8bit_quantize_registry.Default8BitQuantizeRegistry()
    left = {}
    for layer in model.layers:
        if isinstance(layer, _LAYERS.InputLayer):
            continue
        kind = type(layer).__name__
        if any(fnmatchcase(layer.name, wish) for wish in leave):
            left[layer.name] = "named in leave"
        elif isinstance(layer, _LAYERS.BatchNormalization):
            if not _follows_weights(layer):
                left[layer.name] = "BatchNormalization that follows no convolution or dense layer"
        elif not registry.supports(layer) and not isinstance(layer, _REWRITTEN):
            left[layer.name] = f"tfmot has no rule for {kind}"
    return left


def float_twin(aware: keras.Model, model: keras.Model) -> keras.Model:
    """Return a twin of the float `model` with the weights that `aware`, made of it, has learned."""
    twin = keras.models.clone_model(model)
    learned = {weight.name: weight.numpy() for weight in aware.weights}
    twin.set_weights([learned.get(weight.name, weight.numpy()) for weight in model.weights])
    return twin


def _follows_weights(layer: keras.layers.Layer) -> bool:
    before = layer.inbound_nodes[0].inbound_layers
    # Of a convolution that others read as well, tfmot cannot move the BatchNormalization into it.
    return isinstance(before, _BEFORE_BATCHNORM) and len(before.outbound_nodes) == 1


def _fix_input(model: keras.Model, limits: tuple[float, float]) -> None:
    for layer in model.layers:
        if type(layer).__name__ == "QuantizeLayer":
            _set_range(layer, *limits)


def _start_ranges(aware: keras.Model, model: keras.Model, samples: np.ndarray) -> None:
    """Give each activation's quantizer the range that the float `model` shows on `samples`."""
    names = {layer.name for layer in model.layers}
    wrapped = {
        layer.layer.name: layer
        for layer in aware.layers
        if hasattr(layer, "layer") and layer.layer.name in names and _ends(layer)
    }
    if not wrapped:
        return
    seen = keras.Model(model.inputs, [model.get_layer(name).output for name in wrapped])
    ranges = {name: [0.0, 0.0] for name in wrapped}  # 0 must be exact: padding is made of it
    for start in range(0, len(samples), 32):
        values = seen(samples[start : start + 32], training=False)
        values = values if len(wrapped) > 1 else [values]
        for span, value in zip(ranges.values(), values, strict=True):
            span[0] = min(span[0], float(np.min(value)))
            span[1] = max(span[1], float(np.max(value)))
    for name, layer in wrapped.items():
        if ranges[name][0] < ranges[name][1]:
            _set_range(layer, *ranges[name])


def _ends(layer: keras.layers.Layer) -> dict[str, Any]:
    """Find the variables of an activation's range; a kernel's are set anew at every step."""
    return {
        name[-3:]: weight
        for weight in layer.weights
        if (name := weight.name.split(":")[0]).endswith(("_min", "_max")) and "kernel" not in name
    }


def _set_range(layer: keras.layers.Layer, low: float, high: float) -> None:
    for end, variable in _ends(layer).items():
        variable.assign({"min": low, "max": high}[end])
