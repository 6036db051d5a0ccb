"""Quantization-aware training with tfmot: the network learns to live with 8 bits.

The scheme is Jacob et al. 2018, section 3 (https://arxiv.org/abs/1712.05877): every weight and
every activation passes a fake quantisation in the forward pass, and gradients go straight through.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_configs,
    default_8bit_quantize_registry,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import (
    QuantizeWrapper,
)
from tensorflow_model_optimization.quantization import keras as quantization

from tfedge.data.grid import on_grid
from tfedge.errors import UserError, did_you_mean
from tfedge.networks.backend import keras, refuse_nested
from tfedge.networks.kernels import clusters
from tfedge.networks.layers import Affine, HardSigmoid, HardSwish, Operation
from tfedge.networks.separable import depthwise_half, split_separable
from tfedge.training.schemes import Scheme

_LAYERS = keras.layers
_SPLIT = (_LAYERS.SeparableConv2D,)
_MERGES = (_LAYERS.Multiply, _LAYERS.Subtract, _LAYERS.Maximum, _LAYERS.Minimum, _LAYERS.Average)
_CURVES = (_LAYERS.ELU, _LAYERS.Softmax, HardSigmoid, HardSwish, Affine)
# TFLite's kernels of these write on the scale that they read, and the converter refuses two; tfmot
# gives the output a range of its own, which training moves away from the input's.
_SAME_SCALE = (_LAYERS.AveragePooling1D, _LAYERS.AveragePooling2D, _LAYERS.UpSampling2D)
_ACTIVATIONS_OF_TFMOT = ("linear", "relu", "swish", "gelu", "softmax", "sigmoid", "tanh")
_BEFORE_BATCHNORM = (_LAYERS.Conv2D, _LAYERS.DepthwiseConv2D, _LAYERS.Dense, *_SPLIT)


def quantization_aware(
    model: keras.Model,
    samples: np.ndarray,
    limits: tuple[float, float],
    leave: Sequence[str] = (),
) -> keras.Model:
    """Return a twin of `model` that computes as if in int8, to be trained a little more.

    Zeros that pruning made, and values that clustering made, need `preserving.Preserving` while it
    is trained.

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
    left = left_alone(model, leave)
    _refuse_activations(model, left)
    # tfmot would split separable convolutions, too, but gives the halves names that others have.
    model = split_separable(model, keep=left)
    # tfmot's wrappers take hold of the layers they are given; the caller's stay untouched.
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    if all(layer.name in left or isinstance(layer, _LAYERS.InputLayer) for layer in twin.layers):
        fix = "convert it without: conversion makes it int8 all the same"
        raise UserError(f"network {model.name!r}", "has no layer left to train in 8 bits", fix)

    marked = keras.models.clone_model(twin, clone_function=partial(_annotated, left=left))
    own = {type(layer).__name__: type(layer) for layer in model.layers}
    own |= {keras.saving.get_registered_name(kind): kind for kind in own.values()}
    with quantization.quantize_scope(own):
        aware = quantization.quantize_apply(marked, Scheme(clusters(twin)))
    _fix_input(aware, limits)
    _start_ranges(aware, model, samples)
    measure_kernels(aware)
    return aware


def _refuse_activations(model: keras.Model, left: Collection[str]) -> None:
    """Refuse activations inside of layers that tfmot does not know; `import` takes them out."""
    for layer in model.layers:
        if layer.name in left or isinstance(layer, _LAYERS.Activation):
            continue
        name = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if name not in _ACTIVATIONS_OF_TFMOT:
            where = f"layer {layer.name!r} ({type(layer).__name__})"
            fix = f'leave it out there and put keras.layers.Activation("{name}") behind the layer'
            raise UserError(where, f'has activation="{name}" inside, which tfmot refuses', fix)


def _annotated(layer: keras.layers.Layer, left: Collection[str]) -> keras.layers.Layer:
    """Mark a layer for tfmot with what is quantised of it; those in `left` stay as they are."""
    if layer.name in left or isinstance(layer, _LAYERS.InputLayer):
        return layer
    config = None
    if _by_output(layer):
        config = default_8bit_quantize_configs.Default8BitOutputQuantizeConfig()
    elif isinstance(layer, _SAME_SCALE):
        config = default_8bit_quantize_configs.NoOpQuantizeConfig()
    return quantization.quantize_annotate_layer(layer, config)


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
            before = layer.inbound_nodes[0].inbound_layers
            if not _takes_batchnorm(before):
                left[layer.name] = "BatchNormalization that follows no convolution or dense layer"
            elif before.name in left:
                left[layer.name] = f"BatchNormalization after {before.name}, which is left, too"
        elif not (registry.supports(layer) or _by_output(layer) or isinstance(layer, _SPLIT)):
            left[layer.name] = f"tfmot has no rule for {kind}"
    return left


def by_output(model: keras.Model, leave: Sequence[str] = ()) -> dict[str, str]:
    """Name the layers of which training sees 8 bits of what they make, and no more; with the class.

    tfmot has no rule for them.  Weights that they have are quantised by the converter afterwards.
    """
    left = left_alone(model, leave)
    seen = [layer for layer in model.layers if not isinstance(layer, _LAYERS.InputLayer)]
    return {
        layer.name: type(layer).__name__
        for layer in seen
        if layer.name not in left and _by_output(layer)
    }


def measure_kernels(aware: keras.Model) -> None:
    """Set the ranges of kernels to what their weights span now.

    tfmot sets them at each step, before the step moves the weights: without this, a network is
    measured and converted with the ranges of the weights that it had a step ago.
    """
    for layer in aware.layers:
        for weight, quantizer, ends in getattr(layer, "_weight_vars", ()):
            quantizer(weight, True, weights=ends)  # noqa: FBT003 - tfmot's own order


def kernel_ranges(aware: keras.Model) -> keras.callbacks.Callback:
    """Return the callback with which each epoch is measured as it would be converted.

    An epoch's accuracy on tune is then that of the int8 file but for the rounding of sums: what is
    fake-quantised in the network is quantised in the file, on the same grid.  So the best epoch is
    chosen by it without a conversion an epoch, which takes longer than many an epoch.
    """
    callback = keras.callbacks.LambdaCallback()
    callback.on_test_begin = lambda logs: measure_kernels(aware)  # noqa: ARG005
    return callback


def float_twin(aware: keras.Model, model: keras.Model) -> keras.Model:
    """Return a twin of the float `model` with the weights that `aware`, made of it, has learned."""
    twin = keras.models.clone_model(model)
    makers = {getattr(layer, "layer", layer).name: layer for layer in aware.layers}
    makers |= {layer.name: layer for layer in aware.layers}
    for layer in twin.layers:
        if layer.weights:
            half = makers.get(depthwise_half(layer.name))
            layer.set_weights(
                [*(_learned(half, layer) if half else []), *_learned(makers[layer.name], layer)]
            )
    return twin


def _learned(maker: keras.layers.Layer, layer: keras.layers.Layer) -> list[np.ndarray]:
    """Return the weights of a layer, or of the wrapper that has taken them from it."""
    if not isinstance(maker, QuantizeWrapper):
        return maker.get_weights()
    found = {weight.name.split("/")[-1]: weight.numpy() for weight in maker.weights}
    names = [weight.name.split("/")[-1] for weight in layer.weights]
    if isinstance(layer, _SPLIT):
        names = [name.removeprefix("pointwise_") for name in names]
    return [found[name] for name in names if name in found]


def _by_output(layer: keras.layers.Layer) -> bool:
    """Whether 8 bits of what a layer makes are all there is to learn, and tfmot has no rule."""
    if isinstance(layer, _LAYERS.Activation):
        return getattr(layer.activation, "__name__", "") not in _ACTIVATIONS_OF_TFMOT
    return isinstance(layer, (*_MERGES, *_CURVES)) or _multiplies(layer)


def _multiplies(layer: keras.layers.Layer) -> bool:
    """Whether a layer may hold a product of matrices without a rule of tfmot's.

    Where the converter knows what range such a product reads and not what it makes, it writes an
    operator that is half in int8 and does not run (TensorFlow 2.21, for tensors of rank 3 and 4).
    """
    if isinstance(layer, Operation):
        return layer.function in ("linalg.matmul", "matmul", "einsum", "tensordot")
    own = not type(layer).__module__.startswith(("tf_keras.", "tfedge.", "tensorflow_model_"))
    ends = (layer.input, layer.output)
    return own and not any(isinstance(end, (list, tuple, dict)) for end in ends)


def _takes_batchnorm(before: Any) -> bool:
    """Whether tfmot moves the BatchNormalization that follows into this layer."""
    return (
        isinstance(before, _BEFORE_BATCHNORM)
        and len(before.outbound_nodes) == 1  # else others read what has no BatchNormalization yet
        and before.activation is keras.activations.linear
    )


def _fix_input(model: keras.Model, limits: tuple[float, float]) -> None:
    for layer in model.layers:
        if type(layer).__name__ == "QuantizeLayer":
            _set_range(layer, *on_grid(*limits))


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
