"""The .tflite that engines are compared on, its inputs, and how answers to them differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.errors import UserError
from tfedge.tflite import running
from tfedge.tflite.comparison import flow_of
from tfedge.tflite.container import split
from tfedge.tflite.graph import Tensor

_BYTE = 1


@dataclass(frozen=True)
class Network:
    """A .tflite with one input and one output, of a batch of 1.

    Attributes:
      flatbuffer: The file without the card behind it, which not every importer skips.
    """

    file: Path
    flatbuffer: bytes
    given: Tensor
    made: Tensor

    def inputs(self, count: int) -> np.ndarray:
        """Return inputs at random, [count, 1, ...] of the input's type; each call the same.

        They are even over -1 to 1 in float and over the whole of int8; of wider integers a network
        looks something up, and 0 is there in every table.
        """
        random, shape = np.random.default_rng(0), (count, *self.given.shape)
        kind = np.dtype(self.given.dtype)
        if kind.kind == "f":
            return random.uniform(-1, 1, shape).astype(kind)
        if kind.itemsize > _BYTE:
            return np.zeros(shape, kind)
        bounds = np.iinfo(kind)
        return random.integers(bounds.min, bounds.max, shape, kind, endpoint=True)

    def fed(self, x: np.ndarray) -> np.ndarray:
        """Return normalised float32 [count, ...] as this network takes it, [count, 1, ...]."""
        scale = self.given.scales[0] if self.given.scales else 0.0
        zero = self.given.zero_points[0] if self.given.zero_points else 0
        detail = {"quantization": (scale, zero), "dtype": np.dtype(self.given.dtype)}
        return running.quantised(x, detail)[:, None]


def read(file: Path, content: bytes) -> Network:
    """Read what there is to know of a .tflite.

    Raises:
      UserError: It is none, has several inputs or outputs, or inputs of no fixed shape.
    """
    graph = flow_of(content, file).subgraph
    given, made = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    if given.dynamic or given.shape[:1] != (1,):
        problem = f"takes {given.shape} with a batch that is not 1"
        raise UserError(file, problem, "convert it with a fixed batch of 1, as tfedge does")
    return Network(file, split(content)[0], given, made)


def difference(network: Network, answers: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Say how far answers are from those of another engine.

    Args:
      answers: [count, ...] of the output's type; float of an integer output is quantised first.
      reference: The same.

    Returns:
      ``largest_difference_steps``, in steps of an integer output, or ``largest_difference`` in
      float, as a share of the reference's largest value; and ``same_answers``, the share of inputs
      to which both answer the same class, where there are classes.
    """
    ours, theirs = (_steps(network.made, of).reshape(len(of), -1) for of in (answers, reference))
    if ours.shape != theirs.shape:
        raise ValueError(f"expected answers {reference.shape}, got {answers.shape}")
    largest = float(np.abs(ours - theirs).max())
    found: dict[str, Any] = {}
    if np.dtype(network.made.dtype).kind == "f":
        found["largest_difference"] = largest / (float(np.abs(theirs).max()) or 1.0)
    else:
        found["largest_difference_steps"] = largest
    if ours.shape[1] > 1:
        found["same_answers"] = float(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1)))
    return found


def _steps(tensor: Tensor, answers: np.ndarray) -> np.ndarray:
    """Return answers in float64, those of an integer output in its steps."""
    wanted = np.dtype(tensor.dtype)
    values = answers.astype(np.float64)
    if wanted.kind == "f" or answers.dtype.kind != "f" or not tensor.scales:
        return values
    return np.round(values / tensor.scales[0]) + tensor.zero_points[0]
