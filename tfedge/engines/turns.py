"""Time engines in turn, and say how sure the medians are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
from scipy import stats

PAUSE_S = 0.01
"""Idle time before a turn: thread pools spin for some milliseconds after their last work."""
CONFIDENCE = 0.95
LEAST_ROUNDS = 6
"""Of fewer values no two enclose the median with 95 % confidence: 1 - 2 / 2**5 is less."""

Turn = Callable[[], Sequence[float]]
"""Calls an engine for a while and returns the seconds that each call took."""


def interleaved(
    turns: Sequence[Turn], rounds: int, tell: Callable[[int], None] = lambda _: None
) -> list[list[float]]:
    """Let all take turns, `rounds` times, every other round backwards.

    What else the machine does then slows all alike, and values of one round belong together.

    Args:
      tell: Called with how many rounds are done.

    Returns:
      For each, the median seconds of a call in each round.
    """
    times: list[list[float]] = [[] for _ in turns]
    for number in range(rounds):
        for one in range(len(turns))[:: -1 if number % 2 else 1]:
            time.sleep(PAUSE_S)
            times[one].append(median(turns[one]()))
        tell(number + 1)
    return times


def median_of(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median with the ends of its 95 % interval.

    The ends are two of the values in order, for whatever the distribution (Conover 1999, section
    3.2); the values are those of rounds, for calls of one turn are not independent.
    """
    ends = stats.quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    return float(np.median(values)), float(ends.low), float(ends.high)


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the median ratio within a round, with its 95 % interval.

    Args:
      ours: A value a round.
      theirs: Of the same rounds.
    """
    return median_of([a / b for a, b in zip(ours, theirs, strict=True)])
