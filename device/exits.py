"""Leave a network with exits as soon as it is sure, and say how sure it is.

infer.py alone runs the whole of such a network; console.py hands over to this file for its stages.
tfedge imports it, too, so that the thresholds it chooses are of these very numbers.
"""

from __future__ import annotations

import numpy as np

MEASURES = ("confidence", "margin", "entropy")
NEVER, ALWAYS = 2.0, -1000.0  # thresholds that no measure reaches, and that every one does

_UNIT = 2.0**28  # shares are multiples of its inverse
_LN2 = 0.6931471805599453


class Measure:
    """How sure an exit is of its answer, the same to the last bit on every processor.

    The quantised logits' softmax at a temperature, p, gives one of

    - confidence: the largest p,
    - margin: the largest p less the second largest,
    - entropy: sum(p ln p), which is that of Shannon below 0, so that more is surer here as well.

    numpy's exp, its log and the order of its sums differ between processors by a last bit, which
    is enough to take another exit.  So p follows from integers: a logit that lies d steps below
    the largest has the weight exp(-scale / temperature) ** d, rounded to a multiple of 2**-28,
    and those (of up to 65,536 classes) have one sum in whatever order.  All else are single
    float64 operations, which IEEE 754 defines to the bit; the last step rounds to float32.

    Args:
      name: One of `MEASURES`.
      scale: The logits' quantisation step; the zero point makes no difference.
      temperature: Above 0; divides the logits (Guo et al. 2017, section 4.2).
    """

    def __init__(self, name, scale, temperature):
        if name not in MEASURES:
            raise ValueError(f"must be one of {', '.join(MEASURES)}, got {name}")
        self._name, self._steepness = name, float(scale) / float(temperature)
        factors = np.full(256, _exp(-self._steepness))
        factors[0] = 1
        self._weights = np.rint(np.multiply.accumulate(factors) * _UNIT) / _UNIT

    def __call__(self, raw):
        """Return the measure of logits, int8 [..., classes], as float32 [...]."""
        steps = np.subtract(raw.max(axis=-1, keepdims=True), raw, dtype=np.int16)
        weights = self._weights.take(steps)
        total = weights.sum(axis=-1)
        if self._name == "confidence":
            return np.float32(1 / total)
        if self._name == "margin":
            second = np.partition(steps, 1, axis=-1)[..., 1]
            return np.float32((1 - self._weights.take(second)) / total)
        mean = (weights * steps).sum(axis=-1) / total
        return np.float32(-(_ln(total) + self._steepness * mean))


def sure(measure, threshold):
    """Whether an exit whose `Measure` is this, float32 [...], is one to leave by."""
    return measure >= np.float32(threshold)


def leaving(measures, thresholds):
    """Return which exit answers, int64 [count]: the first that is sure, or else the last.

    Args:
      measures: Float32 [count] of each exit but the last.
      thresholds: A number for each of those.
    """
    leaves = [sure(*each) for each in zip(measures, thresholds)]
    return np.argmax([*leaves, np.ones_like(leaves[0])], axis=0)


def point_of(points, effort):
    """Return the number of the last operating point that takes `effort`, 0 to 1, or less."""
    within = [number for number, point in enumerate(points) if point["effort"] <= effort]
    return within[-1] if within else 0


def _exp(x):
    """Return exp(x) of a float of at most 0, by sums and products alone (Taylor's series)."""
    halved = 0
    while x < -1:
        x, halved = x / 2, halved + 1
    total = term = 1.0
    for n in range(1, 24):
        term *= x / n
        total += term
    for _ in range(halved):
        total *= total
    return total


def _ln(x):
    """Return the logarithm of float64 x >= 1, by sums and products alone: 2 artanh of the rest."""
    rest, exponent = np.frexp(x)
    z = (rest - 1) / (rest + 1)
    total, square = 0.0, z * z
    for n in range(37, 0, -2):
        total = total * square + 1 / n
    return exponent * _LN2 + 2 * z * total
