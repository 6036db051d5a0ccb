"""Whether a network is right as often as it says: calibration of its confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, softmax

BINS = 15
"""As in Guo et al. 2017, section 4.1."""


def reliability(logits: np.ndarray, classes: np.ndarray, kind: str = "softmax") -> dict[str, Any]:
    """Compare how sure a network says it is with how often it is right.

    Inputs are put into bins of equal width by the confidence of their answer, which is its
    probability.  The error is the mean distance of a bin's accuracy from its mean confidence, by
    its share of the inputs (expected calibration error, Guo et al. 2017, section 2, equation 3,
    https://arxiv.org/abs/1706.04599).

    Args:
      logits: Float [count, classes].
      classes: The true ones, int [count].
      kind: ``softmax``, or ``sigmoid`` where classes do not compete.

    Returns:
      ``error`` from 0 to 1, and ``bins``: of each that is not empty, in order, ``count``,
      ``confidence`` and ``accuracy`` from 0 to 1.
    """
    logits = np.asarray(logits, np.float64)
    shares = expit(logits) if kind == "sigmoid" else softmax(logits, axis=-1)
    confidence, right = shares.max(axis=-1), logits.argmax(axis=-1) == classes
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = [
        {
            "count": int((places == place).sum()),
            "confidence": float(confidence[places == place].mean()),
            "accuracy": float(right[places == place].mean()),
        }
        for place in np.unique(places)
    ]
    distances = (one["count"] * abs(one["accuracy"] - one["confidence"]) for one in bins)
    return {"error": float(sum(distances) / len(classes)), "bins": bins}
