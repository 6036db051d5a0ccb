"""Whether a file has the zeros and the shared values of the network that it was made of.

Where a convolution has a scale for each channel, what stays of k values is k numbers at most in
every channel: BatchNormalization, which is folded into the kernel, stretches each by a factor.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfedge.networks.backend import keras
from tfedge.networks.kernels import is_clustered, is_sparse, kernel_of
from tfedge.tflite.counts import kernel_operand
from tfedge.tflite.facts import Facts, facts
from tfedge.tflite.graph import Tensor
from tfedge.tflite.names import Layers, inner, of_operators

_FOLDED = "BatchNormalization"


@dataclass(frozen=True)
class Compressed:
    """What compression has made of a layer's kernel.

    Attributes:
      clusters: The number of values that its weights share; 0 if they share none.
      zeros: How many of them are 0, if it was pruned; else 0.
    """

    layer: str
    weights: int
    clusters: int
    zeros: int


def compressed(model: keras.Model) -> list[Compressed]:
    """Look at the kernels of a Keras network, float or quantization-aware."""
    found = []
    for layer in model.layers:
        if (variable := kernel_of(layer)) is not None:
            kernel = variable.numpy()
            clusters = np.unique(kernel).size if is_clustered(kernel) else 0
            zeros = int(np.sum(kernel == 0)) if is_sparse(kernel) else 0
            found.append(Compressed(inner(layer).name, kernel.size, clusters, zeros))
    return [one for one in found if one.clusters or one.zeros]


def kept(
    before: list[Compressed], flatbuffer: bytes, layers: Layers, repairs: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Look in a .tflite for what its network had; return figures, and lines of what stayed.

    A line for each layer says what it lost.  Kernels that are not in int8 are left out: their
    numbers are the network's own.

    Args:
      repairs: What was done to the network on the way; see `repair.REPAIRS`.
    """
    if not before:
        return {}, []
    seen = facts(flatbuffer, "the file")
    tensors = _kernels(seen, layers)
    found, lost = [], []
    for one in before:
        folded = (_batchnorm(one.layer, layers), one.weights)
        tensor = tensors.get((one.layer, one.weights)) or tensors.get(folded)
        if tensor is None:
            lost.append(f"{one.layer}: not found in the file, so what it kept is not known")
        elif tensor.distinct is not None:
            found.append((one, tensor))
            lost += [f"{line}{_why(tensor, repairs)}" for line in _lost(one, tensor)]
    figures: dict[str, Any] = {}
    if clusters := {one.layer: tensor.distinct for one, tensor in found if one.clusters}:
        figures["clusters"] = clusters
    if any(one.zeros for one in before):
        figures["sparsity"] = seen.zero_weights
    return figures, [*_stayed(found), *lost]


def _stayed(found: list[tuple[Compressed, Tensor]]) -> list[str]:
    whole = [(one, tensor) for one, tensor in found if not _lost(one, tensor)]
    shared = [tensor.distinct or 0 for one, tensor in whole if one.clusters]
    pruned = [one for one, _ in whole if one.zeros]
    parts = []
    if shared:
        count = f"{max(shared)} a channel at most"
        parts.append(f"the shared values of {_layers(len(shared))} ({count})")
    if pruned:
        parts.append(f"the zeros of {_layers(len(pruned))}")
    return [f"kept in the file: {' and '.join(parts)}"] if parts else []


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _lost(one: Compressed, tensor: Tensor) -> list[str]:
    lines = []
    if one.clusters and (tensor.distinct or 0) > one.clusters:
        where = "the file" if tensor.axis is None else "a channel of the file"
        lines.append(f"{one.layer}: {one.clusters} values became {tensor.distinct} in {where}")
    if (tensor.zeros or 0) < one.zeros:
        lines.append(f"{one.layer}: {one.zeros} zeros became {tensor.zeros} in the file")
    return lines


def _why(tensor: Tensor, repairs: Sequence[str]) -> str:
    """Say, behind what a kernel has lost, what may have done it."""
    if any(name.startswith("equalise") for name in repairs):
        return "; equalisation gives each input channel a factor of its own: leave repair out"
    if tensor.axis is None:
        return "; BatchNormalization gives each output channel a factor of its own"
    return ""


def _batchnorm(layer: str, layers: Layers) -> str:
    """Return the layer by which the converter calls a dense one whose BatchNormalization it folds.

    Empty where the next layer of the network is none.
    """
    pairs = itertools.pairwise(layers)
    found = (after for (name, _), (after, kind) in pairs if (name, kind) == (layer, _FOLDED))
    return next(found, "")


def _kernels(seen: Facts, layers: Layers) -> dict[tuple[str, int], Tensor]:
    """Find the kernels of a file, by layer and number of weights."""
    found: dict[tuple[str, int], Tensor] = {}
    for subgraph in seen.subgraphs:
        owners = of_operators(subgraph, layers)
        for operator, names in zip(subgraph.operators, owners, strict=True):
            place = kernel_operand(operator)
            if names and place is not None:
                tensor = subgraph.tensors[operator.inputs[place]]
                found[names[0], tensor.elements] = tensor
    return found
