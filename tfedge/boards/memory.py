"""How much memory a file's process needs on a board, estimated without running it."""

from __future__ import annotations

import math

from tfedge.tflite.facts import Facts
from tfedge.tflite.graph import Subgraph, Tensor

MIB = 1 << 20

PROCESS_MIB = 48
"""Python with numpy, a runtime and Pillow, without a model: 33 to 41 MiB resident on x86-64."""

_BYTES = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
}
_ALIGNMENT = 64
_POINTER = 8


def process_bytes(of: Facts, *, xnnpack: bool) -> int:
    """Estimate what a process needs: itself, the file twice, activations, and the kernels' own.

    Twice, for a runtime may keep the weights once more, in the order in which XNNPACK reads them.
    It is meant as an upper bound and is none where a runtime does otherwise on another processor.

    Args:
      xnnpack: XNNPACK runs the network, and not TFLite's own kernels.
    """
    activations = max(
        arena_bytes(graph) + _scratch(graph, xnnpack=xnnpack) for graph in of.subgraphs
    )
    return PROCESS_MIB * MIB + 2 * of.sizes.total + activations


def arena_bytes(subgraph: Subgraph) -> int:
    """Return how large the memory is that holds the activations.

    Two tensors share a place unless both are needed at once: from the operator that makes a tensor
    to the last that reads it, inputs from the start and outputs to the end.  The largest is placed
    first, each at the lowest place that is free all its life, as TFLite's own planner does
    (arena_planner.cc).
    """
    lives = _lives(subgraph)
    order = sorted(lives, key=lambda index: -_size(subgraph.tensors[index]))
    placed: list[tuple[int, int, int]] = []  # start, end, tensor
    for index in order:
        size = _size(subgraph.tensors[index])
        start = 0
        for low, high, other in sorted(placed):
            if not _together(lives[index], lives[other]):
                continue
            if start + size <= low:
                break
            start = max(start, high)
        placed.append((start, start + size, index))
    return max((end for _, end, _ in placed), default=0)


def _scratch(subgraph: Subgraph, *, xnnpack: bool) -> int:
    """Return what convolutions need beside the activations.

    TFLite's own write each output's whole neighbourhood into a matrix and then pack that, one
    convolution after another (im2col in conv.cc, and ruy).  XNNPACK keeps a pointer for each place
    under the kernel, for all convolutions at once.
    """
    pointers, columns = 0, 0
    for operator in subgraph.operators:
        if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        fed, kernel = (subgraph.tensors[index] for index in operator.inputs[:2])
        window = math.prod(kernel.shape[1:3])
        places = math.prod(subgraph.tensors[operator.outputs[0]].shape[:3]) * window
        if window > 1:
            pointers += _POINTER * places
        if window > 1 and operator.name == "CONV_2D":
            columns = max(columns, 2 * places * fed.shape[-1] * _BYTES.get(fed.dtype, 1))
    return pointers if xnnpack else columns


def _lives(subgraph: Subgraph) -> dict[int, tuple[int, int]]:
    """Map every tensor that is worked out to the first and the last operator that needs it."""
    last = len(subgraph.operators)
    lives = dict.fromkeys(subgraph.inputs, (0, 0))
    for number, operator in enumerate(subgraph.operators):
        for index in (*operator.inputs, *operator.outputs):
            if index >= 0 and not subgraph.tensors[index].constant:
                lives[index] = (lives.get(index, (number, 0))[0], number)
    return lives | {index: (lives.get(index, (0, 0))[0], last) for index in subgraph.outputs}


def _together(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _size(tensor: Tensor) -> int:
    size = tensor.elements * _BYTES.get(tensor.dtype, 1)
    return -(-size // _ALIGNMENT) * _ALIGNMENT
