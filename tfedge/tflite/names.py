"""Which Keras layer a tensor of a .tflite comes from.

The converter names a tensor by the path of the operation that made it, ``net/conv/Conv2D``.  What
it fuses keeps all names, joined by semicolons in no certain order
(``net/relu/Relu;net/bn/FusedBatchNormV3;net/conv/Conv2D``).  To make a name unique it appends
digits, and what it made up itself is called ``arith.constant1``, ``tfl.pseudo_qconst`` or, at the
network's end, ``StatefulPartitionedCall:0``.  Quantization-aware training puts ``quant_`` before a
layer's name, and a layer that is called twice is ``conv_1`` the second time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tfedge.tflite import recurrent
from tfedge.tflite.graph import Operator, Subgraph

Layers = recurrent.Layers
"""A network's Keras layers, each with the name of its class, in the order of the network."""

SEAMS = frozenset(("QUANTIZE", "DEQUANTIZE"))
"""Operators that only change how numbers are written."""

_AWARE = "quant_"
_CALLED_AGAIN = re.compile(r"_\d+$")
_COMPUTES = re.compile(r"(Conv2D|depthwise|MatMul|conv2d_transpose|separable_conv2d)\d*$")
_FAKE = ("FakeQuant", "ReadVariableOp")  # what only rounds, in quantization-aware training


def of_network(model: Any) -> tuple[tuple[str, str], ...]:
    """Return a Keras network's `Layers`, by the names and classes that a user gave.

    Args:
      model: Of either Keras; wrappers of quantization-aware training are looked into, and the
        layer that it puts behind the input is left out.
    """
    kinds = [(layer.name, type(layer).__name__) for layer in map(inner, model.layers)]
    return tuple((name, kind) for name, kind in kinds if kind != "QuantizeLayer")


def inner(layer: Any) -> Any:
    """Return the layer in a wrapper of quantization-aware training; another as it is."""
    return layer.layer if type(layer).__name__.startswith("QuantizeWrapper") else layer


def guessed(subgraph: Subgraph) -> tuple[tuple[str, str], ...]:
    """Return the `Layers` that a file's own names tell of, without their classes.

    In a flat network a layer is the second part of a path.
    """
    found: dict[str, str] = {}
    for operator in subgraph.operators:
        made = [subgraph.tensors[index].name for index in operator.outputs]
        paths = [path for name in made for path in _paths(name) if len(path) > 1]
        if not paths:
            given = [subgraph.tensors[index].name for index in _constants(operator, subgraph)]
            paths = [path for name in given for path in _paths(name) if len(path) > 1]
        # What is fused into a layer stands before it more often than not.
        found |= {path[1].removeprefix(_AWARE): "" for path in reversed(paths)}
    return tuple(found.items())


def guessed_of(tensor: str) -> tuple[str, ...]:
    """Return the layers that a tensor's name tells of, the first to compute first."""
    paths = [path for path in _paths(tensor) if len(path) > 1]
    return tuple(dict.fromkeys(path[1].removeprefix(_AWARE) for path in reversed(paths)))


def layers_of(tensor: str, layer_names: Iterable[str]) -> tuple[str, ...]:
    """Name all layers that were fused into a tensor, in the order of the network.

    Args:
      tensor: Its name in the file.
      layer_names: The network's, in its order.
    """
    names = list(layer_names)
    known = _index(names)
    found = {_known(path, known) for path in _paths(tensor)}
    return tuple(name for name in names if name in found)


def layer_of(tensor: str, layer_names: Iterable[str]) -> str | None:
    """Name the layer whose result a tensor is: of several that were fused the network's last."""
    found = layers_of(tensor, layer_names)
    return found[-1] if found else None


def of_operators(subgraph: Subgraph, layers: Layers) -> tuple[tuple[str, ...], ...]:
    """Name, for each operator, the layers it computes: the one with the weights, then the others.

    The others, be it padding before or activations behind, come in the order of the network.  The
    name of what an operator makes decides, then the names of its constants, then, of the one that
    makes the graph's output, the network's last layer; what only changes the type belongs to where
    its input comes from.  An LSTM, which tells nothing, is known by its place (`recurrent`); other
    operators that tell nothing have an empty tuple.
    """
    names = [name for name, _ in layers]
    found: list[tuple[str, ...]] = []
    made: dict[int, tuple[str, ...]] = {}
    for index in subgraph.inputs:
        entry = [name for name, kind in layers if kind == "InputLayer"]
        made[index] = tuple(entry[:1])
    for operator in subgraph.operators:
        own = _together((subgraph.tensors[index].name for index in operator.outputs), names)
        own = own or _together(
            (subgraph.tensors[index].name for index in _constants(operator, subgraph)), names
        )
        if not own and operator.name in SEAMS:
            own = made.get(operator.inputs[0], ())
        if not own and set(operator.outputs) & set(subgraph.outputs):
            own = tuple(names[-1:])
        made |= dict.fromkeys(operator.outputs, own)
        found.append(own)
    return recurrent.named(subgraph, layers, found)


def of_tensors(subgraph: Subgraph, layers: Layers) -> tuple[tuple[str, ...], ...]:
    """Name, for each tensor, the layers that make it, else of the first operator that reads it."""
    found: dict[int, tuple[str, ...]] = {}
    by_operator = of_operators(subgraph, layers)
    for operator, own in zip(subgraph.operators, by_operator, strict=True):
        found |= dict.fromkeys(operator.outputs, own)
        for index in operator.inputs:
            found[index] = found.get(index) or own
    names = [name for name, _ in layers]
    return tuple(
        layers_of(tensor.name, names) or found.get(index, ())
        for index, tensor in enumerate(subgraph.tensors)
    )


def described(layer: str, layers: Layers) -> str:
    """Name a layer and its class for a message."""
    kind = dict(layers).get(layer, "")
    return f"layer {layer!r} ({kind})" if kind else f"layer {layer!r}"


def _constants(operator: Operator, subgraph: Subgraph) -> list[int]:
    return [i for i in operator.inputs if i >= 0 and subgraph.tensors[i].constant]


def _together(tensors: Iterable[str], names: list[str]) -> tuple[str, ...]:
    """Name the layers of several tensors, what has a kernel first, then in the network's order."""
    paths = [path for tensor in tensors for path in _paths(tensor)]
    paths = [path for path in paths if not path[-1].startswith(_FAKE)] or paths
    known = _index(names)
    heads = {_known(path, known) for path in paths if _COMPUTES.match(path[-1])}
    found = {_known(path, known) for path in paths}
    ordered = [name for name in names if name in found]
    return tuple(sorted(ordered, key=lambda name: name not in heads))


def _index(names: list[str]) -> dict[str, str]:
    known = {name.removeprefix(_AWARE): name for name in reversed(names)}
    return known | {name: name for name in names}


def _paths(tensor: str) -> list[list[str]]:
    return [path.split(":")[0].split("/") for path in tensor.split(";") if path]


def _known(path: list[str], known: dict[str, str]) -> str | None:
    """Find the layer in a path, whose first part is the network's name unless nothing else fits."""
    for start in (*range(1, len(path)), 0):
        for stop in range(len(path), start, -1):  # a name with slashes before its parts
            word = "/".join(path[start:stop])
            for form in (word, word.removeprefix(_AWARE)):
                for name in (form, _CALLED_AGAIN.sub("", form)):
                    if name in known:
                        return known[name]
    return None
