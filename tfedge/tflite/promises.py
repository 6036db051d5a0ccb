"""Tests that hold exactly for any number of inputs: a promise they pass is broken in one of 20.

Each returns a p-value of the hypothesis that the promise is *not* kept, so that a small one speaks
for the promise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from scipy.special import bdtr, gammaln, xlog1py, xlogy
from scipy.stats import beta, binom

CONFIDENCE = 0.95

_OUTSIDE = 3e-3  # how often the share of answers that differ is above its bound
_GRID = 17  # values of that share at which the p-value is worked out; it is smooth between
_MANY = 10**6  # inputs that no tune split has
_Kind = TypeVar("_Kind")


def drop(lost: int, gained: int, count: int, most: float) -> float:
    """Return the p-value of "more than `most` of accuracy is lost" from paired answers.

    The statistic is `lost - gained`.  Its distribution at a drop of just `most` depends on how many
    answers differ at all, which is not known: the p-value is the largest for any share up to an
    exact upper bound (Clopper and Pearson 1934), plus the probability that the share is above it
    (Berger and Boos 1994, https://doi.org/10.1080/01621459.1994.10476836).

    Args:
      lost: Inputs that the reference has right, and the new way wrong.
      gained: Those that it is the other way round with.
      count: All inputs.
      most: The drop in accuracy that is promised, 0 to 1.
    """
    differ = lost + gained
    high = beta.ppf(1 - _OUTSIDE, differ + 1, count - differ) if differ < count else 1.0
    if high < most:  # so much cannot be lost where so few answers differ
        return _OUTSIDE
    shares = np.linspace(max(most, 1e-12), high, _GRID)
    return float(min(1, _at_most(lost - gained, count, shares, most).max() + _OUTSIDE))


def fewest(most: float) -> int | None:
    """Return how many inputs it takes to prove a drop of at most `most` if not one is lost.

    None where no number of them does, as for a drop of 0.
    """
    low, high = 0, 1
    while drop(0, 0, high, most) > 1 - CONFIDENCE:
        low, high = high, 2 * high
        if high > _MANY:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        proven = drop(0, 0, middle, most) <= 1 - CONFIDENCE
        low, high = (low, middle) if proven else (middle, high)
    return high


def mean(values: np.ndarray, most: float) -> float:
    """Return the p-value of "the mean is above `most`" for values from 0 to 1.

    That of Hoeffding and Bentkus, as in Angelopoulos et al. 2021, "Learn then Test", section 3.1
    (https://arxiv.org/abs/2110.01052); for values of 0 and 1 alone the binomial one.

    Args:
      values: Independent ones, float [count].
    """
    count, found = len(values), float(np.mean(values))
    if most >= 1:
        return 0.0
    if found >= most or most <= 0:
        return 1.0
    if np.isin(values, (0, 1)).all():
        return float(binom.cdf(round(float(np.sum(values))), count, most))
    rest = 1 - found
    divergence = rest * np.log(rest / (1 - most))
    divergence += found * np.log(found / most) if found else 0
    # A hair off, so that a sum that is whole but for rounding is not rounded up.
    bentkus = np.e * binom.cdf(np.ceil(float(np.sum(values)) - 1e-9), count, most)
    return float(min(1, np.exp(-count * divergence), bentkus))


def proven(ordered: Iterable[tuple[_Kind, float]]) -> list[_Kind]:
    """Return those before the first whose p-value is above 5 %: fixed-sequence testing.

    All of them are right together with 95 % confidence, if their order was settled without the
    inputs that the p-values are of (Angelopoulos et al. 2021, section 2.3).

    Args:
      ordered: Each with its p-value, the likeliest first; read no further than needed.
    """
    found = []
    for each, p_value in ordered:
        if p_value > 1 - CONFIDENCE:
            break
        found.append(each)
    return found


def _at_most(difference: int, count: int, shares: np.ndarray, most: float) -> np.ndarray:
    """Return P(lost - gained <= difference) where each of `shares` of the answers differ."""
    spread = 40 + 8 * np.sqrt(count * shares * (1 - shares))  # beyond it lies less than 1e-9
    low, high = (count * shares - spread).min(), (count * shares + spread).max()
    differ = np.arange(max(0, int(low)), min(count, int(high)) + 1)
    of_those = np.minimum(1, (shares + most) / (2 * shares))  # are lost
    limit = np.minimum((differ + difference) // 2, differ)
    below = bdtr(np.maximum(limit, 0), differ, of_those[:, None])
    ways = gammaln(count + 1) - gammaln(differ + 1) - gammaln(count - differ + 1)
    shares = shares[:, None]
    chances = np.exp(ways + xlogy(differ, shares) + xlog1py(count - differ, -shares))
    return np.asarray((chances * np.where(limit < 0, 0, below)).sum(axis=1))
