"""Which channels stay: the most that a budget pays for, the best ones first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import numpy as np

from tfedge.errors import UserError
from tfedge.networks.narrowing.groups import Group, Groups
from tfedge.networks.narrowing.scores import Scores
from tfedge.networks.narrowing.surgery import Kept

Cost = Callable[[np.ndarray], float]
"""Of so many channels in each group, int [groups] in the order of `Groups.all`."""


@dataclass(frozen=True)
class Steps:
    """In what steps channels may go.

    Attributes:
      multiple: A layer keeps a multiple of so many, or all.  XNNPACK's int8 kernels make 8 or 16
        channels at once, so 9 take as long as 16.
      least: A layer keeps at least so many, or all.
    """

    multiple: int = 8
    least: int = 8

    def widths(self, group: Group) -> np.ndarray:
        """Return how many channels a group may keep, rising, the last its own width."""
        step = self.multiple // gcd(self.multiple, group.made_at_once)
        first = -(-self.least // (step * group.made_at_once)) * step
        return np.array([*range(max(step, first), group.width, step), group.width])


def comparable(scores: Scores, *, layerwise: bool, compares: bool) -> Scores:
    """Return scores that can be compared between groups.

    Args:
      layerwise: Each channel's rank in its group instead, so that all lose the same share.
      compares: Whether the scores are of one scale already; else a group's mean becomes 1.
    """
    if layerwise:
        return {
            name: (np.argsort(np.argsort(of_group, kind="stable")) + 0.5) / len(of_group)
            for name, of_group in scores.items()
        }
    if compares:
        return scores
    return {name: of_group / (of_group.mean() or 1.0) for name, of_group in scores.items()}


def choose(groups: Groups, scores: Scores, cost: Cost, budget: float, steps: Steps) -> Kept:
    """Choose the channels that stay: the best for which `cost` stays within `budget`.

    Every group begins with its least, and gets more in the order of what these are worth on
    average.  Where the next would cost too much, a cheaper one further down may still fit.

    Args:
      scores: Comparable between groups.
      cost: Falls with every channel that goes.

    Raises:
      UserError: Even the least of every group costs more.
    """
    ranks = [np.argsort(-scores[group.name], kind="stable") for group in groups.all]
    widths = [steps.widths(group) for group in groups.all]
    counts = np.array([choices[0] for choices in widths], int)
    if (least := cost(counts)) > budget:
        share = budget and least / budget
        problem = f"the least that can stay costs {share:.2f} times what may be left"
        fix = "remove a smaller share, or give smaller multiple and least, or a shorter protect"
        raise UserError("remove", problem, fix)
    blocks = sorted(
        (
            (-float(scores[group.name][rank[low:high]].mean()), index, int(high))
            for index, (group, rank, choices) in enumerate(
                zip(groups.all, ranks, widths, strict=True)
            )
            for low, high in pairwise(choices.tolist())
        )
    )
    full: set[int] = set()
    for _, index, high in blocks:
        if index in full:
            continue
        before, counts[index] = counts[index], high
        if cost(counts) > budget:
            counts[index] = before
            full.add(index)
    return {
        group.name: np.sort(rank[:count])
        for group, rank, count in zip(groups.all, ranks, counts.tolist(), strict=True)
    }


def counted(groups: Groups, kept: Kept) -> np.ndarray:
    """Return how many channels of each group stay, int [groups]."""
    return np.array([len(kept.get(group.name, range(group.width))) for group in groups.all], int)


def fewer(groups: Groups, kept: Kept) -> Mapping[str, tuple[int, int]]:
    """Return how many channels each narrowed group had and has, by its makers' names."""
    return {
        ", ".join(group.makers): (group.width, len(kept[group.name]))
        for group in groups.all
        if len(kept[group.name]) < group.width
    }
