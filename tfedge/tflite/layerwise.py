"""What each layer of a quantised file keeps of its float network, with pictures of the worst."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfedge.tflite import counts, graph, names
from tfedge.tflite.comparison import Comparison, compare, flow_of
from tfedge.tflite.container import decoding, root, split
from tfedge.tflite.flow import INPUT, paired
from tfedge.tflite.names import Layers
from tfedge.tflite.running import Run

DRAWN = 3
"""Layers whose values and weights are counted into histograms."""

_BARS = 40
_FEW = 8


def evidence(
    float32: bytes,
    quantised: bytes,
    inputs: np.ndarray,
    layers: Layers,
    tell: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Compare two files of one network layer by layer, as JSON values.

    Args:
      float32: A .tflite in float.
      quantised: The other, with or without a card.
      inputs: Float32 [count, ...], normalised.
      layers: The network's, see `names.of_network`.
      tell: Called with how many inputs are done.

    Returns:
      ``inputs``, their number; ``layers``, the worst first, see `comparison.LayerDifference`; and
      ``histograms`` of the first of them by name: of what they answer (``values``) and of their
      ``weights``, each with ``low`` and ``high``, the ends of bars of equal width, and the counts
      ``float`` and ``quantised``.

    Raises:
      UserError: The two cannot be compared, see `comparison.compare`.
    """
    found = compare(float32, quantised, inputs, layers, tell)
    return {
        "inputs": found.count,
        "layers": rows(found),
        "histograms": _histograms(found, float32, quantised, inputs[:_FEW]),
    }


def rows(found: Comparison) -> list[dict[str, Any]]:
    """Return the layers of a comparison as JSON values; what a layer has not is absent."""
    told = [vars(layer) | {"fused": list(layer.fused)} for layer in found.layers]
    return [
        {name: value for name, value in row.items() if value is not None and name != "step"}
        for row in told
    ]


def zeros(content: bytes, layers: Layers) -> dict[str, float]:
    """Return the share of zeros in each layer's kernel, from 0 to 1, in the network's order.

    Args:
      content: A .tflite; only what its first graph multiplies with counts.
      layers: The network's, see `names.of_network`.
    """
    subgraph = _first_graph(content)
    owners = names.of_operators(subgraph, layers or names.guessed(subgraph))
    found: dict[str, tuple[int, int]] = {}
    for operator, own in zip(subgraph.operators, owners, strict=True):
        place = counts.kernel_operand(operator)
        tensor = None if place is None else subgraph.tensors[operator.inputs[place]]
        if tensor is not None and own and tensor.zeros is not None:
            none, every = found.get(own[0], (0, 0))
            found[own[0]] = none + tensor.zeros, every + tensor.elements
    return {name: none / every for name, (none, every) in found.items() if every}


def is_quantised(content: bytes) -> bool:
    """Whether anything in a .tflite is: of a float file there is nothing to compare."""
    return any(tensor.scales for tensor in _first_graph(content).tensors)


def _first_graph(content: bytes) -> graph.Subgraph:
    flatbuffer, _ = split(content)
    with decoding("the file"):
        return graph.read(root(flatbuffer, "the file")).subgraphs[0]


def _histograms(
    found: Comparison, float32: bytes, quantised: bytes, inputs: np.ndarray
) -> dict[str, Any]:
    ours, theirs = flow_of(float32, "the float file"), flow_of(quantised, "the quantised file")
    pairs = {INPUT: INPUT, **paired(ours, theirs)}
    runs = Run(split(float32)[0]), Run(split(quantised)[0])
    worst = [layer for layer in found.layers if layer.step != INPUT][:DRAWN]
    places = {
        layer.layer: (
            ours.values(layer.step)[0],
            theirs.read_as(theirs.values(pairs[layer.step])[0]),
        )
        for layer in worst
    }
    values: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in places}
    for x in inputs:
        for run in runs:
            run.feed(x)
        for name, tensors in places.items():
            both = zip(runs, tensors, strict=True)
            values[name].append(tuple(run.value(tensor).ravel() for run, tensor in both))
    drawn = {
        name: {"values": _counted(*map(np.concatenate, zip(*seen, strict=True)))}
        for name, seen in values.items()
    }
    for layer in worst:
        operators = ours.operator(layer.step), theirs.operator(pairs[layer.step])
        if (place := counts.kernel_operand(operators[0])) is not None:
            sides = zip(runs, operators, strict=True)
            kernels = [run.value(operator.inputs[place]).ravel() for run, operator in sides]
            drawn[layer.layer]["weights"] = _counted(*kernels)
    return drawn


def _counted(exact: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Count two sets of values into the same bars."""
    ends = min(exact.min(), other.min()), max(exact.max(), other.max())
    low, high = (float(end) for end in ends)
    high = high if high > low else low + 1.0
    both = {
        word: np.histogram(of, _BARS, (low, high))[0].tolist()
        for word, of in (("float", exact), ("quantised", other))
    }
    return {"low": low, "high": high, **both}
