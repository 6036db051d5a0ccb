"""BatchNormalization and all other x * scale + offset: into the layer before, or behind, or alone.

Jacob et al. 2018, section 3.2 (https://arxiv.org/abs/1712.05877): at inference a normalisation is a
scale and an offset for each channel, which the convolution before it can hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfedge.networks.backend import keras
from tfedge.networks.graph import Call, Graph, Layer
from tfedge.networks.layers import Affine
from tfedge.networks.operators import affine

_K = keras.layers
_CONVOLUTIONS = (_K.Conv1D, _K.Conv2D, _K.Conv3D)
_DEPTHWISE = (_K.DepthwiseConv1D, _K.DepthwiseConv2D)
_SEPARABLE = (_K.SeparableConv1D, _K.SeparableConv2D)
_HOLDERS = (*_CONVOLUTIONS, *_DEPTHWISE, *_SEPARABLE, _K.Dense, _K.Conv2DTranspose)
_PICTURES = 4


def scales(graph: Graph, *, keep_trained: bool) -> int:
    """Say BatchNormalization, Rescaling and Normalization as `Affine`.

    Args:
      keep_trained: Leave a BatchNormalization that follows a convolution or dense layer, for
        training to come.
    """
    done = 0
    for call in list(graph.calls):
        ends = _as_affine(call)
        if ends is None or graph.shared(call.layer):
            continue
        maker = graph.producer(call.input)
        if (
            keep_trained
            and call.is_a(_K.BatchNormalization)
            and maker
            and _takes(graph, maker, call)
        ):
            continue
        layer = affine(call.layer.name, *ends, int(call.input.shape[-1] or 0))
        graph.replace(call, [Call(layer, ((call.input,), {}), call.outputs)])
        done += 1
    return done


def folded(graph: Graph) -> int:
    """Fold each `Affine` into the affine, convolution or dense layer before or behind it."""
    done = 0
    changed = True
    while changed:
        changed = False
        for call in [call for call in graph.calls if call.is_a(Affine)]:
            if call in graph.calls and (_into_maker(graph, call) or _into_readers(graph, call)):
                done, changed = done + 1, True
    return done


def alone(graph: Graph) -> int:
    """Make each `Affine` that is left on feature maps a depthwise 1x1 convolution.

    That is one operator with a scale for each channel, which int8, XNNPACK and the Edge TPU know;
    a multiplication and an addition would be two, with one scale for all channels.
    """
    done = 0
    for call in [call for call in graph.calls if call.is_a(Affine)]:
        if call.output.rank != _PICTURES or graph.shared(call.layer):
            continue
        scale, offset = call.layer.weights
        weights = [scale.reshape(1, 1, -1, 1)] + ([offset] if offset.any() else [])
        config = {"kernel_size": (1, 1), "use_bias": bool(offset.any())}
        layer = Layer(call.layer.name, _K.DepthwiseConv2D, config, weights)
        graph.replace(call, [Call(layer, call.arguments, call.outputs)])
        done += 1
    return done


def leading(graph: Graph) -> tuple[np.ndarray, np.ndarray] | None:
    """Take the scale and offset at the network's input out of it, and return them, [channels]."""
    (start,) = graph.inputs
    while (call := graph.only_reader(start)) and call.is_a(Affine):
        behind = graph.only_reader(call.output)
        if behind is None or not behind.is_a(Affine) or not _into_maker(graph, behind):
            break
    if call is None or not call.is_a(Affine) or (call.layer.weights[0] <= 0).any():
        return None
    graph.bypass(call)
    scale, offset = call.layer.weights
    return scale, offset


def _wide(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)


def _narrow(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def _as_affine(call: Call) -> tuple[Any, Any] | None:
    """Return scale and offset, [channels] or one for all, of what only scales and shifts."""
    layer = call.layer
    if call.is_a(_K.BatchNormalization):
        return _of_batchnorm(call)
    if call.is_a(_K.Rescaling):
        return np.asarray(layer.config["scale"]), np.asarray(layer.config["offset"])
    if call.is_a(_K.Normalization) and not layer.config.get("invert"):
        return _of_normalization(call)
    return None


def _of_batchnorm(call: Call) -> tuple[Any, Any] | None:
    config, weights = call.layer.config, list(call.layer.weights)
    axes = config.get("axis", -1)
    axes = [axes] if isinstance(axes, int) else list(axes)
    if [axis % call.input.rank for axis in axes] != [call.input.rank - 1]:
        return None
    gamma = weights.pop(0) if config.get("scale", True) else _narrow(1)
    beta = weights.pop(0) if config.get("center", True) else _narrow(0)
    mean, variance = (_wide(weight) for weight in weights)
    scale = _wide(gamma) / np.sqrt(variance + config.get("epsilon", 1e-3))
    return scale, beta - mean * scale


def _of_normalization(call: Call) -> tuple[Any, Any] | None:
    config = call.layer.config
    mean, variance = config.get("mean"), config.get("variance")
    if mean is None and call.layer.weights:
        mean, variance = call.layer.weights[:2]
    mean, variance = _wide(mean).reshape(-1), _wide(variance).reshape(-1)
    if not {mean.size, variance.size} <= {1, call.input.shape[-1]}:
        return None
    # Keras divides by at least its epsilon (Normalization.call).
    scale = 1 / np.maximum(np.sqrt(variance), keras.backend.epsilon())
    return scale, -mean * scale


def _takes(graph: Graph, maker: Call, reader: Call) -> bool:
    """Whether a scale behind `maker` can go into its weights."""
    return (
        maker.is_a(*_HOLDERS)
        and maker.layer.config.get("activation", "linear") in ("linear", None)
        and not graph.shared(maker.layer)
        and graph.only_reader(maker.output) is reader
    )


def _into_maker(graph: Graph, call: Call) -> bool:
    """Fold an `Affine` into the layer that makes what it reads."""
    maker = graph.producer(call.input)
    if maker is None or graph.shared(call.layer):
        return False
    scale, offset = (_wide(end) for end in call.layer.weights)
    if maker.is_a(Affine) and graph.only_reader(maker.output) is call:
        if graph.shared(maker.layer):
            return False
        first, start = (_wide(end) for end in maker.layer.weights)
        maker.layer.weights = [_narrow(first * scale), _narrow(start * scale + offset)]
    elif _takes(graph, maker, call):
        _scale_outputs(maker.layer, scale, offset)
    else:
        return False
    graph.bypass(call)
    return True


def _scale_outputs(layer: Layer, scale: np.ndarray, offset: np.ndarray) -> None:
    """Change a layer's weights so that it answers y * scale + offset."""
    kernels = layer.weights[:-1] if layer.config.get("use_bias", True) else list(layer.weights)
    bias = layer.weights[-1] if layer.config.get("use_bias", True) else _narrow(0)
    last = _wide(kernels[-1])
    if layer.kind in _DEPTHWISE:  # [..., inputs, multiplier]: output number inputs * multiplier
        last = last * scale.reshape(last.shape[-2:])
    elif layer.kind is _K.Conv2DTranspose:  # [height, width, outputs, inputs]
        last = last * scale[:, None]
    else:
        last = last * scale
    layer.weights = [*kernels[:-1], _narrow(last), _narrow(bias * scale + offset)]
    layer.config = {**layer.config, "use_bias": True}


def _into_readers(graph: Graph, call: Call) -> bool:
    """Fold an `Affine` into all layers that read what it makes, if each of them can hold it."""
    scale, offset = (_wide(end) for end in call.layer.weights)
    readers = graph.readers(call.output)
    holds = [_holds_before(graph, reader, shift=bool(offset.any())) for reader in readers]
    if not readers or not all(holds) or call.output in graph.outputs or graph.shared(call.layer):
        return False
    for reader in readers:
        _scale_inputs(reader.layer, scale, offset)
    graph.bypass(call)
    return True


def _holds_before(graph: Graph, reader: Call, *, shift: bool) -> bool:
    """Whether a scale before `reader`, and an offset if `shift`, can go into its weights.

    An offset cannot where zeros are padded, because it would be added to them, too.
    """
    config = reader.layer.config
    if graph.shared(reader.layer) or not reader.is_a(*_CONVOLUTIONS, *_DEPTHWISE, _K.Dense):
        return False
    if reader.is_a(_K.Dense) or not shift:
        return int(config.get("groups", 1)) == 1
    unpadded = config.get("padding", "valid") == "valid"
    single = set(np.atleast_1d(config["kernel_size"]).tolist()) == {1}
    return int(config.get("groups", 1)) == 1 and (unpadded or single)


def _scale_inputs(layer: Layer, scale: np.ndarray, offset: np.ndarray) -> None:
    """Change a layer's weights so that it answers to x as it did to x * scale + offset."""
    kernel = _wide(layer.weights[0])
    bias = layer.weights[1] if layer.config.get("use_bias", True) else _narrow(0)
    places = tuple(range(kernel.ndim - 2))
    moved = (kernel * offset[:, None]).sum(axis=places)  # [inputs, outputs]
    moved = moved.reshape(-1) if layer.kind in _DEPTHWISE else moved.sum(axis=0)
    layer.weights = [_narrow(kernel * scale[:, None])]
    if offset.any() or layer.config.get("use_bias", True):
        layer.weights.append(_narrow(bias + moved))
        layer.config = {**layer.config, "use_bias": True}
