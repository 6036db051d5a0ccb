"""Which candidates go on from a rung: those that are good for what they cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""[candidates, figures], each figure the better the smaller."""


def front(values: Values) -> npt.NDArray[np.bool_]:
    """Say of each row whether no other is as small in all figures and smaller in one; [rows]."""
    return np.asarray(~_beats(values).any(axis=0))


def order(values: Values) -> npt.NDArray[np.int64]:
    """Sort rows from the best to the worst; [rows].

    By front after front, those within one by how far their neighbours are, the loneliest first, and
    of equals the first (NSGA-II, Deb et al. 2002, sections III A and B).
    """
    beats = _beats(values)
    by_many = beats.sum(axis=0)
    ranked: list[int] = []
    while len(ranked) < len(values):
        of_front = np.flatnonzero(by_many == 0)
        lonely = _crowding(values[of_front])
        ranked += of_front[np.argsort(-lonely, kind="stable")].tolist()
        by_many -= beats[of_front].sum(axis=0)
        by_many[of_front] = -1
    return np.asarray(ranked, np.int64)


def _beats(values: Values) -> npt.NDArray[np.bool_]:
    """Say of each pair of rows whether the one beats the other; [one, other]."""
    as_small = np.ones((len(values),) * 2, bool)
    smaller = np.zeros_like(as_small)
    for figure in values.T:
        as_small &= figure[:, None] <= figure
        smaller |= figure[:, None] < figure
    return as_small & smaller


def go_on(earlier: Values, now: Values, share: float) -> list[int]:
    """Say which of the candidates that reach a rung `now` go on.

    They are held against all that reached it before, too, and at most `share` of all ever go on
    unless they are so few that none would.

    Args:
      earlier: Of the candidates of earlier generations.
      share: Of all candidates at this rung, from 0 to 1.

    Returns:
      Rows of `now`, the best first.
    """
    count = len(earlier) + len(now)
    best = order(np.concatenate([earlier, now]))[: max(1, int(share * count + 1e-9))]
    chosen = [int(row) - len(earlier) for row in best if row >= len(earlier)]
    return chosen[: max(1, int(share * len(now) + 1e-9))]


def _crowding(values: Values) -> Values:
    """Add up, over the figures, how far apart each row's neighbours are; [rows]."""
    found = np.zeros(len(values))
    for figure in values.T:
        rows = np.argsort(figure, kind="stable")
        apart = figure[rows[-1]] - figure[rows[0]]
        found[rows[[0, -1]]] = np.inf
        if apart:
            found[rows[1:-1]] += (figure[rows[2:]] - figure[rows[:-2]]) / apart
    return found


def as_values(rows: Sequence[Sequence[float]], width: int) -> Values:
    """Return [rows, width] of what may be no row at all."""
    return np.asarray(rows, np.float64).reshape(-1, width)
