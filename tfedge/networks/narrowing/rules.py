"""What each kind of layer does to channels: a rule a kind, and `follow`, which goes by them.

A rule returns the channels of what its call makes, or None where it cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from tfedge.errors import UserError, did_you_mean
from tfedge.networks import layers as own
from tfedge.networks.backend import keras
from tfedge.networks.graph import Call, Graph, Layer, Tensor
from tfedge.networks.narrowing.following import (
    PASSES,
    READS,
    SAYS,
    Channels,
    Trace,
    reshaped,
)

_K = keras.layers

Rule = Callable[[Trace, Call], Channels | None]

ANSWER = "is the network's answer"
"""Why channels stay of which nobody would expect otherwise."""


def follow(graph: Graph, protect: Iterable[str] = ()) -> Trace:
    """Follow all channels of a network from its inputs to its outputs, which keep theirs.

    Args:
      protect: Shell-like patterns of names of layers whose channels stay.

    Raises:
      UserError: A pattern matches no layer.
    """
    names = sorted({call.layer.name for call in graph.calls})
    for wish in protect:
        if not any(fnmatchcase(name, wish) for name in names):
            raise UserError("protect", f"no layer matches {wish!r}", did_you_mean(wish, names))
    trace = Trace(graph)
    for tensor in graph.inputs:
        trace.channels[tensor] = Channels(-1, trace.new(int(tensor.shape[-1] or 1)))
        trace.hold(trace.channels[tensor].ids, "goes with the network's input")
    for call in graph.calls:
        rule = RULES.get(call.layer.kind)
        made = rule(trace, call) if rule and len(call.outputs) == 1 else None
        found = trace.unknown(call) if made is None else [made]
        trace.channels |= dict(zip(call.outputs, found, strict=True))
        if any(fnmatchcase(call.layer.name, wish) for wish in protect):
            for channels in found:
                trace.hold(channels.ids, f"protect names {call.layer.name!r}")
    for tensor in graph.outputs:
        trace.hold(trace.channels[tensor].ids, ANSWER)
    return trace


def _each(trace: Trace, call: Call) -> Channels | None:
    """Follow what handles every number alone."""
    return trace.only(call)


def _spatial(trace: Trace, call: Call) -> Channels | None:
    """Follow what handles every channel alone."""
    ids = trace.last(call)
    return None if ids is None else Channels(-1, ids)


def _activation(trace: Trace, call: Call) -> Channels | None:
    found = trace.only(call)
    mixed = _mixes(call.layer) and found is not None and found.axis == -1
    return None if mixed else found


def _dropout(trace: Trace, call: Call) -> Channels | None:
    found, shape = trace.only(call), call.layer.config.get("noise_shape")
    counted = shape and found is not None and shape[found.axis] not in (None, 1)
    return None if counted else found


def _softmax(trace: Trace, call: Call) -> Channels | None:
    found = trace.only(call)
    return None if found is None or found.axis in _axes(call, "axis", -1) else found


def _operation(trace: Trace, call: Call) -> Channels | None:
    config = call.layer.config
    scalars = [*config["arguments"][1:], *(config.get("named") or {}).values()]
    alone = config["function"] in _ALONE and config["arguments"][:1] == [{"tensor": 0}]
    plain = all(isinstance(item, (int, float)) for item in scalars)
    return trace.only(call) if alone and plain else None


def _kernel(made_by: str, *, weight: int = 0, turned: bool = False) -> Rule:
    """Follow a kernel that ends the channels it reads and makes others.

    Args:
      made_by: The config's entry that says how many it makes.
      weight: Which of the layer's weights it is; the bias follows it.
      turned: Its axes are [..., made, read] and not [..., read, made].
    """
    read, made = (-1, -2) if turned else (-2, -1)

    def rule(trace: Trace, call: Call) -> Channels | None:
        layer, ids = call.layer, trace.last(call)
        if ids is None:
            return None
        if layer.config.get("groups", 1) > 1:
            return _grouped(trace, layer, ids)
        trace.place(layer, weight, read, ids, READS)
        return _made(trace, layer, made_by, trace.make(layer, weight, made), weight + 1)

    return rule


def _made(trace: Trace, layer: Layer, entry: str, ids: np.ndarray, bias: int) -> Channels:
    """Return the channels that a layer makes, which its config counts and its bias is added to."""
    trace.place(layer, entry, -1, ids, SAYS)
    if len(layer.weights) > bias:
        trace.place(layer, bias, -1, ids, PASSES)
    if _mixes(layer):
        trace.hold(ids, f"a softmax in {layer} mixes its channels")
    return Channels(-1, ids)


def _grouped(trace: Trace, layer: Layer, ids: np.ndarray) -> Channels:
    """Follow a grouped convolution, whose groups must stay equal.

    Either whole groups go, or of each group the channel at the same place: whichever leaves more
    to choose from.
    """
    groups = int(layer.config["groups"])
    made = trace.make(layer, 0, -1)
    given, out = ids.reshape(groups, -1), made.reshape(groups, -1)
    if groups >= given.shape[1]:
        trace.tie(given, given[:, :1])
        trace.tie(out, given[:, :1])
        trace.place(layer, "groups", -1, given[:, 0], SAYS)
    else:
        trace.tie(given, given[:1])
        trace.tie(out, out[:1])
        trace.place(layer, 0, -2, given[0], READS)
    return _made(trace, layer, "filters", made, 1)


def _depthwise(trace: Trace, call: Call) -> Channels | None:
    ids = _of_depthwise(trace, call)
    if ids is None:
        return None
    if len(call.layer.weights) > 1:
        trace.place(call.layer, 1, -1, ids, PASSES)
    if _mixes(call.layer):
        trace.hold(ids, f"a softmax in {call.layer} mixes its channels")
    return Channels(-1, ids)


def _separable(trace: Trace, call: Call) -> Channels | None:
    ids = _of_depthwise(trace, call)
    if ids is None:
        return None
    trace.place(call.layer, 1, -2, ids, READS)
    return _made(trace, call.layer, "filters", trace.make(call.layer, 1, -1), 2)


def _of_depthwise(trace: Trace, call: Call) -> np.ndarray | None:
    """Return the channels that a depthwise kernel gives on, a few of each that it reads."""
    ids = trace.last(call)
    if ids is None:
        return None
    trace.place(call.layer, 0, -2, ids, PASSES)
    return np.repeat(ids, int(call.layer.config["depth_multiplier"]))


def _normalised(trace: Trace, call: Call) -> Channels | None:
    """Follow what has weights for each index of one axis."""
    found = trace.only(call)
    axes = _axes(call, "axis", -1)
    if found is None or found.axis not in axes:
        return found
    if len(axes) > 1:
        return None
    for number in range(len(call.layer.weights)):
        trace.place(call.layer, number, -1, found.ids, PASSES)
    return found


def _prelu(trace: Trace, call: Call) -> Channels | None:
    found = trace.only(call)
    if found is not None and call.layer.weights[0].shape[found.axis] > 1:
        trace.place(call.layer, 0, found.axis, found.ids, PASSES)
    return found


def _merge(trace: Trace, call: Call) -> Channels | None:
    """Tie what is added or multiplied; a single number along the axis is for all channels."""
    found = [trace.channels[tensor] for tensor in call.inputs]
    axis = found[0].axis
    size = call.output.shape[axis]
    wide = [channels.ids for channels in found if len(channels.ids) == size]
    narrow = [channels.ids for channels in found if len(channels.ids) == 1 != size]
    if any(c.axis != axis for c in found) or not wide or len(wide) + len(narrow) < len(found):
        return None
    for ids in wide[1:]:
        trace.tie(wide[0], ids)
    return Channels(axis, wide[0])


def _concatenate(trace: Trace, call: Call) -> Channels | None:
    found = [trace.channels[tensor] for tensor in call.inputs]
    (along,) = _axes(call, "axis", -1)
    axis = found[0].axis
    if any(channels.axis != axis for channels in found):
        return None
    if axis == along:
        return Channels(axis, np.concatenate([channels.ids for channels in found]))
    for channels in found[1:]:
        trace.tie(found[0].ids, channels.ids)
    return found[0]


def _reshape(trace: Trace, call: Call) -> Channels | None:
    found = trace.only(call)
    before, after = _sizes(call.inputs[0]), _sizes(call.output)
    if found is None or before is None or after is None:
        return None
    made = reshaped(trace, found, before, after)
    if call.is_a(_K.Reshape):
        trace.place(call.layer, "target_shape", made.axis, made.ids, SAYS)
    return made


def _permute(trace: Trace, call: Call) -> Channels | None:
    found = trace.only(call)
    if found is None:
        return None
    rank = call.output.rank
    to = [int(axis) for axis in call.layer.config["dims"]].index(rank + found.axis)
    return Channels(to + 1 - rank, found.ids)


def _affine(trace: Trace, call: Call) -> Channels | None:
    found = trace.only(call)
    if found is not None and found.axis == -1:
        for number in (0, 1):
            trace.place(call.layer, number, -1, found.ids, PASSES)
    return found


def _rescaling(trace: Trace, call: Call) -> Channels | None:
    config = call.layer.config
    plain = np.ndim(config["scale"]) == np.ndim(config["offset"]) == 0
    return trace.only(call) if plain else None


def _sizes(tensor: Tensor) -> list[int] | None:
    """Return a tensor's shape without the batch; None if it is not fixed."""
    sizes = [size for size in tensor.shape[1:] if size is not None]
    return sizes if len(sizes) == tensor.rank - 1 else None


def _axes(call: Call, key: str, default: int) -> tuple[int, ...]:
    """Return the axes that a config names, counted from the end."""
    named = np.atleast_1d(call.layer.config.get(key, default))
    rank = call.output.rank
    return tuple(int(axis) - rank if axis >= 0 else int(axis) for axis in named)


def _mixes(layer: Layer) -> bool:
    """Whether a layer's activation makes each channel of all."""
    activation: Any = layer.config.get("activation")
    plain = activation is None or (isinstance(activation, str) and "softmax" not in activation)
    return not plain


def _named(pattern: str, *ranks: int) -> list[type]:
    return [getattr(_K, pattern.format(rank)) for rank in ranks]


_ALONE = frozenset(
    (
        *("math.exp", "math.abs", "math.sqrt", "math.rsqrt", "math.square", "math.log", "math.pow"),
        *("math.log1p", "math.expm1", "math.negative", "math.erf", "math.sign", "math.floor"),
        *("math.add", "math.subtract", "math.multiply", "math.divide", "math.maximum"),
        *("math.minimum", "clip_by_value", "abs", "exp", "sqrt", "square", "nn.gelu", "cast"),
        *("identity", "nn.leaky_relu", "nn.relu", "nn.relu6", "nn.elu", "nn.selu"),
    )
)

RULES: dict[type, Rule] = {
    **dict.fromkeys(
        (
            *(_K.ReLU, _K.LeakyReLU, _K.ELU, _K.ThresholdedReLU, _K.GaussianNoise),
            *(_K.GaussianDropout, _K.AlphaDropout, _K.ActivityRegularization),
            *(own.HardSigmoid, own.HardSwish, own.Augmentation),
            *_named("SpatialDropout{}D", 1, 2, 3),
        ),
        _each,
    ),
    **dict.fromkeys(
        (
            *_named("MaxPooling{}D", 1, 2, 3),
            *_named("AveragePooling{}D", 1, 2, 3),
            *_named("GlobalMaxPooling{}D", 1, 2, 3),
            *_named("GlobalAveragePooling{}D", 1, 2, 3),
            *_named("ZeroPadding{}D", 1, 2, 3),
            *_named("Cropping{}D", 1, 2, 3),
            *_named("UpSampling{}D", 1, 2, 3),
            *(_K.Resizing, _K.RepeatVector),
        ),
        _spatial,
    ),
    **dict.fromkeys((_K.Add, _K.Subtract, _K.Multiply, _K.Average, _K.Maximum, _K.Minimum), _merge),
    **dict.fromkeys(_named("Conv{}D", 1, 2, 3), _kernel("filters")),
    **dict.fromkeys(_named("Conv{}DTranspose", 1, 2, 3), _kernel("filters", turned=True)),
    **dict.fromkeys(_named("DepthwiseConv{}D", 1, 2), _depthwise),
    **dict.fromkeys(_named("SeparableConv{}D", 1, 2), _separable),
    **dict.fromkeys((_K.BatchNormalization, _K.LayerNormalization), _normalised),
    **dict.fromkeys((_K.Flatten, _K.Reshape), _reshape),
    _K.Dropout: _dropout,
    _K.Dense: _kernel("units"),
    _K.Concatenate: _concatenate,
    _K.Permute: _permute,
    _K.Activation: _activation,
    _K.Softmax: _softmax,
    _K.PReLU: _prelu,
    _K.Rescaling: _rescaling,
    own.Affine: _affine,
    own.Operation: _operation,
}
