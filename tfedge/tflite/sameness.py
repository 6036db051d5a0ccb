"""Whether two files have the same weights, or one has them with its channels scaled otherwise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_CLOSE_DB = 20.0
"""From here on weights are the same but for rounding."""

_BETTER_DB = 10.0
_VALUES_A_FACTOR = 2
_ROUNDS = 20

_Reals = npt.NDArray[np.float64]


def rescaled(kernel: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> bool:
    """Whether `other` is far from `kernel`, and close once each channel has a factor of its own.

    That is what equalisation makes of weights (`networks.equalisation`): w[o, .., i] becomes
    a[o] w[o, .., i] b[i].  Rounding does nothing of the kind, and neither does training.

    Args:
      kernel: [out, .., in], or [1, .., channels] of a depthwise layer.
      other: Of the same shape.
    """
    outs, ins = kernel.shape[0], kernel.shape[-1]
    if kernel.size < _VALUES_A_FACTOR * (outs + ins):
        return False  # factors of its own fit anything
    ours, theirs = (np.asarray(x, np.float64).reshape(outs, -1, ins) for x in (kernel, other))
    plain = _db(theirs, ours)
    if plain >= _CLOSE_DB:
        return False
    return _db(theirs, _fitted(ours, theirs)) > plain + _BETTER_DB


def _fitted(ours: _Reals, theirs: _Reals) -> _Reals:
    """Scale the channels of `ours` to where the squared difference is the least."""
    fitted = ours
    for _ in range(_ROUNDS):
        for axes in ((0, 1), (1, 2)):
            power = np.square(fitted).sum(axes, keepdims=True)
            product = (fitted * theirs).sum(axes, keepdims=True)
            fitted = fitted * np.divide(product, power, out=np.zeros_like(power), where=power > 0)
    return fitted


def _db(signal: _Reals, other: _Reals) -> float:
    """Return the signal to noise ratio, where each channel of `signal` counts alike.

    Else the largest channels, which a scaling may leave as they are, would decide.
    """
    size = np.square(signal).sum((0, 1))
    noise = np.square(signal - other).sum((0, 1))
    shares = noise[size > 0] / size[size > 0]
    if not len(shares) or not shares.any():
        return np.inf
    return float(-10 * np.log10(np.median(shares) + np.finfo(np.float64).tiny))
