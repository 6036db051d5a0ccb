"""Ranges of activations that lose least, instead of ranges that hold every value.

With the least and the largest value as its ends, one outlier in a million makes the steps wide for
all.  A narrower range clips a few values and rounds the others finer.  The best trade is the one
with the smallest mean squared error (Nagel et al. 2021, section 3.1, "MSE",
https://arxiv.org/abs/2106.08295).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from tfedge.tflite.running import Run, packed, unpacked

_STEPS = 255
_FINE = 1 << 14
_TRIES = np.linspace(1, 0, 100, endpoint=False)
_ROUNDS = 3


def with_best_ranges(calibrated: bytes, samples: np.ndarray) -> bytes:
    """Replace each activation's range by the one with the smallest error on `samples`.

    The input keeps its range, which the data's limits set, and so do the answers: what is largest
    among logits decides, and to clip it makes classes equal (section 3.1, "Cross entropy").  Where
    an operator needs its operands and its result on one scale, the quantiser chooses among theirs
    as it always does.

    Args:
      calibrated: A float file with ranges, from `calibration.calibrated`.
      samples: Float32 [count, ...], normalised, such as those of the calibration.

    Returns:
      The same file with other ranges.
    """
    file = unpacked(calibrated)
    graph = file.subgraphs[0]
    tallies = {
        index: Tally.between(float(tensor.quantization.min[0]), float(tensor.quantization.max[0]))
        for index, tensor in enumerate(graph.tensors)
        if index in _changeable(graph) and tensor.quantization.max[0] > tensor.quantization.min[0]
    }
    run = Run(calibrated)
    for sample in samples:
        run.feed(sample)
        for index, tally in tallies.items():
            tally.add(run.raw(index))
    for index, tally in tallies.items():
        quantization = graph.tensors[index].quantization
        low, high = best_range(tally.values, tally.counts)
        quantization.min, quantization.max = [low], [high]
    return packed(file)


@dataclass(frozen=True)
class Tally:
    """How often each value occurred, on a grid so fine that int8's is 64 times coarser.

    Attributes:
      values: Float64 [points], ascending, 0 among them.
      counts: Int64 [points], changed in place by `add`.
    """

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def between(cls, low: float, high: float) -> Tally:
        """Make an empty tally; values outside will count as the ends."""
        low, high = min(low, 0.0), max(high, 0.0)
        width = (high - low) / (_FINE - 1)
        points = np.arange(-np.ceil(-low / width), np.ceil(high / width) + 1)
        return cls(points * width, np.zeros(len(points), np.int64))

    def add(self, found: npt.NDArray[Any]) -> None:
        """Count every element of `found`."""
        width = self.values[1] - self.values[0]
        places = np.rint((found.astype(np.float64).ravel() - self.values[0]) / width)
        places = np.clip(places, 0, len(self.values) - 1).astype(np.int64)
        self.counts[:] += np.bincount(places, minlength=len(self.values))


def best_range(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """Find the range whose 256 steps, 0 among them, lose least of a distribution.

    The ends are shrunk together first, in hundredths, and then each for itself until nothing
    improves.

    Args:
      values: Float64 [points], ascending; the first is at most 0, the last at least 0.
      counts: Int64 [points], how often each occurs.

    Returns:
      The range's ends, as of a grid with 0 on it.
    """
    kept = counts > 0
    values, counts = values[kept], counts[kept]
    if not len(values) or not values.any():
        return 0.0, 1.0  # a dead activation: any range holds its zeros
    low, high = min(float(values[0]), 0.0), max(float(values[-1]), 0.0)
    whole, error = (low, high), squared_error(values, counts, low, high)

    def better(tries: list[tuple[float, float]]) -> bool:
        nonlocal low, high, error
        errors = [squared_error(values, counts, *ends) for ends in tries]
        best = int(np.argmin(errors))
        if errors[best] >= error:
            return False
        (low, high), error = tries[best], errors[best]
        return True

    better([(whole[0] * share, whole[1] * share) for share in _TRIES])
    for _ in range(_ROUNDS if low < 0 < high else 0):
        moved = better([(whole[0] * share, high) for share in _TRIES])
        moved |= better([(low, whole[1] * share) for share in _TRIES])
        if not moved:
            break
    return low, high


def squared_error(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], low: float, high: float
) -> float:
    """Return the mean squared difference between values and what int8 keeps of them."""
    scale = (high - low) / _STEPS
    first = np.rint(low / scale)  # so that 0 is a step, as the quantiser will have it
    steps = np.clip(np.rint(values / scale), first, first + _STEPS)
    return float(np.dot((values - steps * scale) ** 2, counts) / counts.sum())


def _changeable(graph: schema.SubGraphT) -> set[int]:
    """Number the float tensors with a range that operators make, but for the graph's answers."""
    made = {int(index) for operator in graph.operators for index in operator.outputs}
    return {
        index
        for index in made - {int(index) for index in graph.outputs}
        if graph.tensors[index].type == schema.TensorType.FLOAT32
        and graph.tensors[index].quantization is not None
        and graph.tensors[index].quantization.min is not None
    }
