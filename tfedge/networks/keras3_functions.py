"""The functions of keras.ops as TensorFlow's.

Keras 3 stores each as an object of a class, with some arguments as attributes; TensorFlow has a
function of much the same name, which may mean something else by an argument of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfedge.errors import UserError
from tfedge.networks.operators import Arguments


def as_tensorflow(operation: Any, arguments: Arguments) -> tuple[str, Arguments]:
    """Return the name below ``tf`` and the arguments of a call of keras.ops.

    Args:
      operation: The object that stands for the function.
      arguments: Positional and named ones of its call.

    Raises:
      UserError: TensorFlow has no such function, or an attribute has another meaning there.
    """
    word, where = type(operation).__name__, f"layer {operation.name!r}"
    if word not in _FUNCTIONS:
        fix = "write it with layers of Keras's, or give tfedge a network without it"
        raise UserError(where, f"keras.ops' {word} is not known here", fix)
    name, attributes = _FUNCTIONS[word]
    for attribute, values in _KNOWN.get(word, {}).items():
        if (value := getattr(operation, attribute)) not in values:
            problem = f"keras.ops' {word} with {attribute} = {value!r} is not known here"
            raise UserError(where, problem, "write it with layers of Keras's")
    positional, named = arguments
    own = {key: getattr(operation, attribute) for attribute, key in attributes.items()}
    named = {**named, **own}
    if change := _OTHERWISE.get(word):
        positional, named = change(positional, named)
    return name, (positional, named)


def _same(name: str, **attributes: str) -> tuple[str, dict[str, str]]:
    return name, attributes


def _over_axes(name: str) -> tuple[str, dict[str, str]]:
    return name, {"axis": "axis", "keepdims": "keepdims"}


_IN_MATH = (
    *("Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum", "Exp", "Log", "Sqrt"),
    *("Rsqrt", "Square", "Negative", "Floor", "Greater", "Less", "Equal", "Log1p", "Expm1"),
    *("Sin", "Cos", "Sign", "Ceil", "Reciprocal", "Erf"),
)
_IN_NN = ("Relu", "Relu6", "Sigmoid", "Tanh", "Silu", "Softplus", "Softsign", "Selu")

_FUNCTIONS: dict[str, tuple[str, dict[str, str]]] = {
    **{word: (f"math.{word.lower()}", {}) for word in _IN_MATH},
    **{word: (f"nn.{word.lower()}", {}) for word in _IN_NN},
    **dict.fromkeys(("Identity", "StopGradient", "Copy"), _same("identity")),
    "TrueDivide": _same("math.divide"),
    "FloorDivide": _same("math.floordiv"),
    "Mod": _same("math.floormod"),
    "Power": _same("math.pow"),
    "Absolute": _same("math.abs"),
    "Abs": _same("math.abs"),
    "Round": _same("math.round"),
    "GreaterEqual": _same("math.greater_equal"),
    "LessEqual": _same("math.less_equal"),
    "NotEqual": _same("math.not_equal"),
    "LogicalAnd": _same("math.logical_and"),
    "LogicalOr": _same("math.logical_or"),
    "LogicalNot": _same("math.logical_not"),
    "Where": _same("where"),
    "Elu": _same("nn.elu"),
    "Gelu": _same("nn.gelu", approximate="approximate"),
    "HardSigmoid": _same("hard_sigmoid"),
    "HardSilu": _same("hard_swish"),
    "LeakyRelu": _same("nn.leaky_relu", negative_slope="alpha"),
    "Softmax": _same("nn.softmax", axis="axis"),
    "LogSoftmax": _same("nn.log_softmax", axis="axis"),
    "Normalize": _same("math.l2_normalize", axis="axis", epsilon="epsilon"),
    "Norm": _same("linalg.norm", ord="ord", axis="axis", keepdims="keepdims"),
    "Mean": _over_axes("reduce_mean"),
    "Max": _over_axes("reduce_max"),
    "Min": _over_axes("math.reduce_min"),
    "Sum": _over_axes("math.reduce_sum"),
    "Prod": _over_axes("math.reduce_prod"),
    "Var": _over_axes("math.reduce_variance"),
    "Std": _over_axes("math.reduce_std"),
    "Logsumexp": _over_axes("math.reduce_logsumexp"),
    "Any": _over_axes("math.reduce_any"),
    "All": _over_axes("math.reduce_all"),
    "Argmax": _same("math.argmax", axis="axis"),
    "Argmin": _same("math.argmin", axis="axis"),
    "Cumsum": _same("math.cumsum", axis="axis"),
    "Reshape": _same("reshape", newshape="shape"),
    "Transpose": _same("transpose", axes="perm"),
    "Swapaxes": _same("transpose", axis1="source", axis2="destination"),
    "Moveaxis": _same("transpose", source="source", destination="destination"),
    "Squeeze": _same("squeeze", axis="axis"),
    "ExpandDims": _same("expand_dims", axis="axis"),
    "Concatenate": _same("concat", axis="axis"),
    "Stack": _same("stack", axis="axis"),
    "Unstack": _same("unstack", num="num", axis="axis"),
    "Flip": _same("reverse", axis="axis"),
    "Roll": _same("roll", shift="shift", axis="axis"),
    "Tile": _same("tile", repeats="multiples"),
    "Repeat": _same("repeat", repeats="repeats", axis="axis"),
    "Take": _same("gather", axis="axis"),
    "GetItem": _same("getitem"),
    "Matmul": _same("linalg.matmul"),
    "Clip": _same("clip", x_min="clip_value_min", x_max="clip_value_max"),
    "Split": _same("split", indices_or_sections="num_or_size_splits", axis="axis"),
    "Cast": _same("cast", dtype="dtype"),
    "Pad": _same("pad", pad_width="paddings", mode="mode"),
    "Einsum": _same("einsum", subscripts="equation"),
    "Resize": _same("image.resize", size="size", interpolation="method", antialias="antialias"),
    "MaxPool": _same("nn.max_pool", pool_size="ksize", strides="strides", padding="padding"),
    "AveragePool": _same("nn.avg_pool", pool_size="ksize", strides="strides", padding="padding"),
}
"""Classes of keras.ops: TensorFlow's function, and its arguments by the class's attributes."""

_LAST = {"data_format": ("channels_last", None)}
_KNOWN: dict[str, dict[str, tuple[Any, ...]]] = {
    "Elu": {"alpha": (1.0,)},
    "Max": {"initial": (None,)},
    "Min": {"initial": (None,)},
    "Prod": {"dtype": (None,)},
    "Cumsum": {"dtype": (None,)},
    "Round": {"decimals": (0,)},
    "Argmax": {"keepdims": (False,), "axis": (*range(-8, 8),)},
    "Argmin": {"keepdims": (False,), "axis": (*range(-8, 8),)},
    "Normalize": {"order": (2,)},
    "Norm": {"ord": (None, "euclidean", 1, 2)},
    "Pad": {"mode": ("constant", "reflect", "symmetric")},
    "Resize": {
        **_LAST,
        "interpolation": ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5"),
        "crop_to_aspect_ratio": (False,),
        "pad_to_aspect_ratio": (False,),
    },
    "MaxPool": _LAST,
    "AveragePool": _LAST,
    "Repeat": {"axis": (*range(-8, 8),)},
    "Roll": {"axis": (*range(-8, 8),)},
    "Take": {"axis": (*range(-8, 8),)},
}
"""Values of attributes with which TensorFlow's function computes the same."""

_EPSILON = 1e-7  # Keras's own, unless the user sets another


def _by_sizes(positional: tuple[Any, ...], named: dict[str, Any]) -> Arguments:
    """Say where to split as TensorFlow does: by sizes, not by places."""
    places = named["num_or_size_splits"]
    if np.ndim(places):
        whole = positional[0].shape[named["axis"]]
        sizes = np.diff([0, *places, whole]).tolist()
        named = {**named, "num_or_size_splits": sizes}
    return positional, named


def _along_axes(positional: tuple[Any, ...], named: dict[str, Any]) -> Arguments:
    axes = range(len(positional[0].shape)) if named["axis"] is None else named["axis"]
    return positional, {**named, "axis": np.atleast_1d(axes).tolist()}


def _around_each_axis(positional: tuple[Any, ...], named: dict[str, Any]) -> Arguments:
    """Say a padding that is one for all axes once for each."""
    pairs, axes = [list(pair) for pair in named["paddings"]], len(positional[0].shape)
    pairs = pairs * axes if len(pairs) == 1 else pairs
    return positional, {**named, "paddings": pairs, "mode": named["mode"].upper()}


def _swapped(positional: tuple[Any, ...], named: dict[str, Any]) -> Arguments:
    order = [*range(len(positional[0].shape))]
    a, b = named["source"], named["destination"]
    order[a], order[b] = order[b], order[a]
    return positional, {"perm": order}


def _moved(positional: tuple[Any, ...], named: dict[str, Any]) -> Arguments:
    axes = len(positional[0].shape)
    pairs = {
        to % axes: source % axes
        for source, to in zip(named["source"], named["destination"], strict=True)
    }
    rest = iter(axis for axis in range(axes) if axis not in pairs.values())
    return positional, {"perm": [pairs[to] if to in pairs else next(rest) for to in range(axes)]}


def _length_of_one(positional: tuple[Any, ...], named: dict[str, Any]) -> Arguments:
    """Give TensorFlow the square of the least length, as it asks for."""
    epsilon = _EPSILON if named["epsilon"] is None else named["epsilon"]
    return positional, {**named, "epsilon": float(epsilon) ** 2}


def _euclidean(positional: tuple[Any, ...], named: dict[str, Any]) -> Arguments:
    """Say what Keras means by no order, and one axis as a number."""
    axis, order = named["axis"], named.get("ord")
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    return positional, {**named, "axis": axis, "ord": "euclidean" if order is None else order}


_OTHERWISE: Mapping[str, Callable[[tuple[Any, ...], dict[str, Any]], Arguments]] = {
    "Split": _by_sizes,
    "Flip": _along_axes,
    "Pad": _around_each_axis,
    "Swapaxes": _swapped,
    "Moveaxis": _moved,
    "Normalize": _length_of_one,
    "Norm": _euclidean,
    "Einsum": lambda positional, named: ((named["equation"], *positional), {}),
}
"""Where TensorFlow means something else by an argument of the same name."""
