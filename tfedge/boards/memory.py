"""How much memory a file's process needs on a board, estimated without running it."""

from __future__ import annotations

import math

from tfedge.tflite.arena import element_bytes, planned
from tfedge.tflite.facts import Facts
from tfedge.tflite.graph import Subgraph
from tfedge.tflite.staging import exits

MIB = 1 << 20

PROCESS_MIB = 48
"""Python with numpy, a runtime and Pillow, without a model: 33 to 41 MiB resident on x86-64."""

_POINTER = 8


def process_bytes(of: Facts, *, xnnpack: bool) -> int:
    """Estimate what a process needs: itself, the file twice, activations, and the kernels' own.

    Twice, for a runtime may keep the weights once more, in the order in which XNNPACK reads them.
    It is meant as an upper bound and is none where a runtime does otherwise on another processor.

    Args:
      xnnpack: XNNPACK runs the network, and not TFLite's own kernels.
    """
    needs = [planned(graph) + _scratch(graph, xnnpack=xnnpack) for graph in of.subgraphs]
    if exits(of):  # the whole network and each stage are laid out, each with weights of its own
        return PROCESS_MIB * MIB + 3 * of.sizes.total + sum(needs)
    return PROCESS_MIB * MIB + 2 * of.sizes.total + max(needs)


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
            columns = max(columns, 2 * places * fed.shape[-1] * element_bytes(fed))
    return pointers if xnnpack else columns
