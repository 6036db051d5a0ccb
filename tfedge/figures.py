"""Accuracies with their intervals, in the one form in which every stage reports them."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any


def accuracy_figures(correct: int, count: int, split: str) -> dict[str, Any]:
    """Return a share of right answers with its 95 % interval.

    The interval is Wilson's score interval, which unlike the normal one stays inside 0 to 1 and
    holds its promise for small counts and shares near 1 (Brown, Cai and DasGupta 2001, section
    3.1.1, https://doi.org/10.1214/ss/1009213286).

    Returns:
      ``accuracy``, ``accuracy_low``, ``accuracy_high`` from 0 to 1, ``count`` and ``split``.
    """
    z = NormalDist().inv_cdf(0.975)
    share = correct / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    half = spread / (1 + z * z / count)
    return {
        "accuracy": share,
        "accuracy_low": max(0.0, centre - half),
        "accuracy_high": min(1.0, centre + half),
        "count": count,
        "split": split,
    }
