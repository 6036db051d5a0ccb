"""A few examples that stand for many."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfedge.data.dataset import Data


def stratified(classes: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Choose examples with every class in its turn; the same each time.

    Args:
      classes: Int64 [examples].
      count: How many to choose; all if there are fewer.

    Returns:
      Int64 [chosen], positions in `classes`, one of each class before a second of any.
    """
    rank = np.zeros(len(classes), np.int64)
    for number in np.unique(classes):
        place = classes == number
        rank[place] = np.arange(place.sum())
    return np.lexsort((classes, rank))[:count]


def calibration(data: Data, count: int) -> npt.NDArray[Any]:
    """Return normalised tune inputs of every class, float32 [count, ...], to set ranges with."""
    return data.normalise(data.tune.inputs[np.sort(stratified(data.tune.classes, count))])
