"""Arithmetic on tensors, as layers that tfmot and the converter know.

What a user writes as ``x * tf.nn.relu6(x + 3) / 6`` comes in as calls of functions.  `call_of` says
each of them as a layer of Keras's where there is one, as `layers.Affine` where a constant is added
or multiplied, and as a `layers.Operation` where neither fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import Call, Layer, Tensor, mapped
from tfedge.networks.layers import Affine, HardSigmoid, HardSwish, Operation

_K = keras.layers
_CONSTANTS = 4096
_SPATIAL = 4

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def call_of(function: str, name: str, arguments: Arguments, outputs: Sequence[Tensor]) -> Call:
    """Return the call of a layer that computes what TensorFlow's ``tf.<function>`` does.

    Args:
      function: As in the name of a TFOpLambda: ``math.multiply``, ``__operators__.getitem``.
      arguments: Positional and named, with a `Tensor` for each tensor; constants as numbers,
        numpy arrays or TensorFlow's.
      outputs: What the call makes.

    Raises:
      UserError: Nothing here knows the function.
    """
    positional, named = mapped(arguments, lambda tensor: tensor)
    positional = tuple(_plain(item) for item in positional)
    named = {key: _plain(item) for key, item in named.items() if key != "name" and item is not None}
    word = _SYNONYMS.get(function, function)
    for rule in (_arithmetic, _activation, _reduction, _pooling, _shape):
        made = rule(word, positional, named, outputs)
        if made is not None:
            kind, config, weights, inputs = made
            given = (inputs[0] if len(inputs) == 1 else list(inputs),)
            return Call(Layer(name, kind, config, weights), (given, {}), list(outputs))
    return _operation(word, name, positional, named, outputs)


def is_known(function: str) -> bool:
    """Whether ``tf.<function>`` is a function that does nothing but compute."""
    word = _SYNONYMS.get(function, function)
    if any(part.startswith("_") for part in word.split(".")):
        return False
    return word.split(".")[0] in _MODULES or word in {*_NAMES, *_BY_NAME, "clip"}


def refuse_unknown(function: str, name: str) -> None:
    """Refuse a function that does anything but compute.

    Args:
      name: Of the call.
    """
    if not is_known(function):
        fix = "write it with layers of Keras's, or as a layer of your own and name it in custom"
        problem = f"is a call of tf.{function}, which is not known here"
        raise UserError(f"layer {name!r}", problem, fix)


Made = tuple[type, dict[str, Any], list[np.ndarray], list[Tensor]]


def affine(name: str, scale: Any, offset: Any, channels: int) -> Layer:
    """Return the layer x * scale + offset; numbers, or arrays [channels]."""
    ends = [np.broadcast_to(np.float32(value).reshape(-1), channels) for value in (scale, offset)]
    return Layer(name, Affine, {}, [end.astype(np.float32) for end in ends])


_SYNONYMS = {
    "__operators__.add": "math.add",
    "__operators__.getitem": "getitem",
    "math.truediv": "math.divide",
    "math.sigmoid": "nn.sigmoid",
    "math.tanh": "nn.tanh",
    "math.softplus": "nn.softplus",
    "math.reduce_mean": "reduce_mean",
    "math.reduce_max": "reduce_max",
    "compat.v1.transpose": "transpose",
    "compat.v1.squeeze": "squeeze",
    "nn.swish": "nn.silu",
    "stop_gradient": "identity",
    "clip_by_value": "clip",
}

_MERGES = {
    "math.add": _K.Add,
    "math.subtract": _K.Subtract,
    "math.multiply": _K.Multiply,
    "math.maximum": _K.Maximum,
    "math.minimum": _K.Minimum,
}


def _arithmetic(
    word: str, positional: tuple[Any, ...], named: dict[str, Any], outputs: Sequence[Tensor]
) -> Made | None:
    """Say a binary function as a merging layer or, with a constant, as an `Affine`."""
    operands = [*positional, *(named[key] for key in ("x", "y") if key in named)]
    if word not in {*_MERGES, "math.divide"} or len(operands) != 2:  # noqa: PLR2004
        return None
    left, right = operands
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        kind = _MERGES.get(word)
        fits = left.rank == right.rank and left is not right
        return (kind, {}, [], [left, right]) if kind and fits else None
    tensor, constant = (left, right) if isinstance(left, Tensor) else (right, left)
    per_channel = _per_channel(constant, tensor)
    if per_channel is None or not isinstance(tensor, Tensor) or tensor.shape != outputs[0].shape:
        return None
    swapped = tensor is right
    terms: dict[str, tuple[Any, Any]] = {
        "math.add": (1, per_channel),
        "math.subtract": (-1, per_channel) if swapped else (1, -per_channel),
        "math.multiply": (per_channel, 0),
    }
    if word == "math.divide" and not swapped:
        terms[word] = (1 / per_channel, 0)
    if word not in terms:
        return None
    channels = int(tensor.shape[-1] or 0)
    return Affine, {}, affine("", *terms[word], channels).weights, [tensor]


def _per_channel(constant: Any, tensor: Any) -> np.ndarray | None:
    """Return a constant as one number, or one for each channel; None if it has other axes."""
    value = np.asarray(constant, np.float32) if not isinstance(constant, Tensor) else None
    if value is None or not isinstance(tensor, Tensor) or tensor.shape[-1] is None:
        return None
    fits = value.size in (1, tensor.shape[-1]) and value.shape[-1:] in ((), (1,), (value.size,))
    return value.reshape(-1) if fits else None


def _activation(
    word: str, positional: tuple[Any, ...], named: dict[str, Any], outputs: Sequence[Tensor]
) -> Made | None:
    if not positional or not isinstance(positional[0], Tensor):
        return None
    tensor, *rest = positional
    if word in _BY_NAME:
        kind, config = _BY_NAME[word]
        return kind, dict(config), [], [tensor]
    if word == "nn.softmax":
        return _K.Softmax, {"axis": int((*rest, named.get("axis", -1))[0])}, [], [tensor]
    if word == "nn.leaky_relu":
        slope = float((*rest, named.get("alpha", 0.2))[0])
        return _K.LeakyReLU, {"alpha": slope}, [], [tensor]
    if word == "cast" and outputs[0].shape == tensor.shape:
        return _K.Activation, {"activation": "linear"}, [], [tensor]
    if word == "clip":
        ends = [*rest, *(named[k] for k in ("clip_value_min", "clip_value_max") if k in named)]
        low, high = (float(end) for end in ends)
        return (_K.ReLU, {"max_value": high}, [], [tensor]) if low == 0 else None
    if word == "nn.gelu" and not (*rest, named.get("approximate", False))[0]:
        return _K.Activation, {"activation": "gelu"}, [], [tensor]  # Keras's is the exact one
    return None


_NAMED = ("sigmoid", "tanh", "elu", "selu", "softplus", "softsign")
_BY_NAME: dict[str, tuple[type, dict[str, Any]]] = {
    "nn.relu": (_K.ReLU, {}),
    "nn.relu6": (_K.ReLU, {"max_value": 6.0}),
    "hard_sigmoid": (HardSigmoid, {}),
    "hard_swish": (HardSwish, {}),
    "identity": (_K.Activation, {"activation": "linear"}),
    **{f"nn.{name}": (_K.Activation, {"activation": name}) for name in _NAMED},
    "nn.silu": (_K.Activation, {"activation": "swish"}),
}


def _reduction(
    word: str, positional: tuple[Any, ...], named: dict[str, Any], _: Sequence[Tensor]
) -> Made | None:
    """Say a mean or maximum over all places as global pooling."""
    pools = {"reduce_mean": "Average", "reduce_max": "Max"}
    if word not in pools or not isinstance(positional[0], Tensor):
        return None
    tensor, *rest = positional
    axes = (*rest, named.get("axis"))[0]
    keepdims = bool((*rest[1:], named.get("keepdims", False))[0])
    axes = (
        sorted(int(axis) % tensor.rank for axis in np.atleast_1d(axes)) if axes is not None else []
    )
    if axes != list(range(1, tensor.rank - 1)) or tensor.rank not in (3, _SPATIAL):
        return None
    kind = getattr(_K, f"Global{pools[word]}Pooling{tensor.rank - 2}D")
    return kind, {"keepdims": keepdims}, [], [tensor]


def _pooling(
    word: str, positional: tuple[Any, ...], named: dict[str, Any], _: Sequence[Tensor]
) -> Made | None:
    """Say a maximum or mean over windows as pooling."""
    found = _POOLS.fullmatch(word)
    given = dict(zip(("input", "ksize", "strides", "padding"), positional, strict=False)) | named
    tensor = given.get("input")
    if not found or not isinstance(tensor, Tensor) or tensor.rank not in (3, _SPATIAL):
        return None
    axes, padding = tensor.rank - 2, str(given.get("padding", "valid")).lower()
    size, steps = (_of_places(given.get(key), axes) for key in ("ksize", "strides"))
    first = str(given.get("data_format") or "").startswith("NC")
    if first or size is None or padding not in ("same", "valid"):
        return None
    kind = getattr(_K, f"{'Max' if found[1] == 'max' else 'Average'}Pooling{axes}D")
    config = {"pool_size": size, "strides": steps or size, "padding": padding}
    return kind, config, [], [tensor]


_POOLS = re.compile(r"nn\.(max|avg)_pool([12]d)?")


def _of_places(value: Any, axes: int) -> tuple[int, ...] | None:
    """Return one number an axis of a window; None if there is none, or it spans inputs."""
    numbers = [int(number) for number in np.atleast_1d(value)] if value is not None else []
    if len(numbers) == axes + 2 and numbers[0] == numbers[-1] == 1:
        numbers = numbers[1:-1]
    numbers = numbers * axes if len(numbers) == 1 else numbers
    return tuple(numbers) if len(numbers) == axes else None


def _shape(
    word: str, positional: tuple[Any, ...], named: dict[str, Any], outputs: Sequence[Tensor]
) -> Made | None:
    """Say what only moves numbers about as the layer that does so."""
    static = all(None not in output.shape[1:] for output in outputs)
    tensors = list(_tensors_of(positional)) or list(_tensors_of(named.values()))
    moved: dict[str, Callable[[], Made | None]] = {
        **dict.fromkeys(
            ("reshape", "squeeze", "expand_dims"),
            lambda: (_K.Reshape, {"target_shape": outputs[0].shape[1:]}, [], tensors[:1]),
        ),
        "transpose": lambda: _transposed(positional, named),
        "concat": lambda: (
            _K.Concatenate,
            {"axis": int(([*positional[1:]] or [named.get("axis", -1)])[0])},
            [],
            tensors,
        ),
    }
    return moved[word]() if word in moved and static else None


def _transposed(positional: tuple[Any, ...], named: dict[str, Any]) -> Made | None:
    order = (*positional[1:], named.get("perm"))[0]
    if order is None or int(order[0]) != 0:
        return None
    return _K.Permute, {"dims": [int(axis) for axis in order[1:]]}, [], [positional[0]]


_MODULES = ("math", "nn", "linalg", "image", "signal")
_NAMES = frozenset(
    (
        *("getitem", "split", "unstack", "stack", "concat", "pad", "reshape", "transpose", "tile"),
        *("squeeze", "expand_dims", "reverse", "slice", "strided_slice", "gather", "where", "cast"),
        *("reduce_mean", "reduce_max", "shape", "compat.v1.shape", "clip_by_value", "one_hot"),
        *("abs", "exp", "sqrt", "square", "matmul", "einsum", "broadcast_to", "range", "fill"),
        *("zeros_like", "ones_like", "compat.v1.pad", "compat.v1.gather", "repeat", "roll"),
    )
)


def _operation(
    word: str,
    name: str,
    positional: tuple[Any, ...],
    named: dict[str, Any],
    outputs: Sequence[Tensor],
) -> Call:
    """Say a function as it is."""
    word = {"clip": "clip_by_value", "reduce_mean": "math.reduce_mean"}.get(word, word)
    refuse_unknown(word, name)
    tensors: list[Tensor] = []
    config = {
        "function": word,
        "arguments": [_written(item, tensors, name) for item in positional],
        "named": {key: _written(item, tensors, name) for key, item in named.items()},
    }
    given: Any = tensors[0] if len(tensors) == 1 else tensors
    return Call(Layer(name, Operation, config), ((given,), {}), list(outputs))


def _written(item: Any, tensors: list[Tensor], name: str) -> Any:
    """Return an argument as JSON takes it; tensors are numbered in `tensors`."""
    if isinstance(item, Tensor):
        if item not in tensors:
            tensors.append(item)
        return {"tensor": tensors.index(item)}
    if isinstance(item, np.ndarray) and item.size > _CONSTANTS:
        fix = "make it a layer's weight: Dense or Conv2D multiply with constants"
        raise UserError(f"layer {name!r}", f"computes with a constant of {item.size} numbers", fix)
    if isinstance(item, (list, tuple)):
        return [_written(part, tensors, name) for part in item]
    if isinstance(item, dict) and "start" in item:  # as a SlicingOpLambda has it
        return {"slice": [item["start"], item["stop"], item["step"]]}
    plain: dict[type, Callable[[Any], Any]] = {
        slice: lambda part: {"slice": [part.start, part.stop, part.step]},
        type(Ellipsis): lambda _: {"ellipsis": True},
        np.ndarray: lambda array: {"array": array.tolist(), "dtype": array.dtype.name},
    }
    if isinstance(item, np.generic):
        return item.item()
    return plain.get(type(item), lambda part: part)(item)


def _plain(item: Any) -> Any:
    """Return TensorFlow's constants, in lists too, as numpy's, and types by name."""
    if type(item) in (list, tuple):
        return type(item)(_plain(part) for part in item)
    if hasattr(item, "numpy"):
        return np.asarray(item.numpy())
    return item.name if hasattr(item, "as_numpy_dtype") else item


def _tensors_of(items: Any) -> Iterator[Tensor]:
    for item in items:
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, (list, tuple)):
            yield from _tensors_of(item)
