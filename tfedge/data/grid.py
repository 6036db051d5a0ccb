"""The grid of int8 values that normalised inputs are put on."""

from __future__ import annotations

import numpy as np

_LOWEST, _HIGHEST = -128, 127


def on_grid(low: float, high: float) -> tuple[float, float]:
    """Widen a range as little as it takes for 0 to be one of int8's 256 values.

    The quantiser moves a range to that end, instead: by up to half a step, which is bad where
    inputs lie on a grid of their own.  Pixels normalised to [-1, 1] are 2/255 apart, and 0 is in
    the middle between two: moved by half a step, each pixel is in the middle between two int8
    values.  Rounding half to even then gives one value to two neighbours, all along the range, and
    the input has 7 bits.  With a scale of 1/127 instead, just two of 256 pixels fall together.

    Args:
      low: The range's ends; if 0 is not between them, the range is widened to it first.

    Returns:
      The ends scale * (-128 - zero_point) and scale * (127 - zero_point) with the smallest scale
      that covers `low` and `high`, for any integer zero point.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        raise ValueError("a range must hold more than 0")
    zeros = np.arange(_LOWEST, _HIGHEST + 1)
    below, above = zeros - _LOWEST, _HIGHEST - zeros
    scales = np.full(len(zeros), np.inf)
    possible = ((below > 0) | (low == 0)) & ((above > 0) | (high == 0))
    scales[possible] = np.maximum(
        -low / np.maximum(below[possible], 1), high / np.maximum(above[possible], 1)
    )
    best = int(scales.argmin())
    return -float(scales[best] * below[best]), float(scales[best] * above[best])
