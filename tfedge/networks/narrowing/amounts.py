"""Which channels stay: the most that a budget pays for, the best ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import gcd, inf

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

    def least_of(self, groups: Groups) -> np.ndarray:
        """Return how many channels must stay in each group, int [groups]."""
        return np.array([self.widths(group)[0] for group in groups.all], int)


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


def choose(
    groups: Groups,
    scores: Scores,
    cost: Cost,
    budget: float,
    steps: Steps,
    *,
    by_cost: bool = True,
) -> Kept:
    """Choose the channels that stay, so that little worth goes for the cost that must go.

    From all channels on, that step of a group goes next whose channels are worth least for what
    they cost at that moment, until `cost` is within `budget`; this is the greedy answer to the
    knapsack that Aflalo et al. 2020, section 3.1 (https://arxiv.org/abs/2002.08258) put the
    question as.  By worth alone, layers whose channels are many and cheap would be emptied for
    little gain.

    Args:
      scores: Comparable between groups.
      cost: Falls with every channel that goes.
      by_cost: Whether worth counts for what it costs, or alone.

    Raises:
      UserError: Even the least of every group costs more.
    """
    ranks = [np.argsort(-scores[group.name], kind="stable") for group in groups.all]
    worth = [
        np.concatenate([[0.0], np.cumsum(scores[group.name][rank])])
        for group, rank in zip(groups.all, ranks, strict=True)
    ]
    ladder = _Ladder([steps.widths(group).tolist() for group in groups.all], worth, cost, by_cost)
    while ladder.spent > budget:
        down = list(ladder.steps(-1))
        if not down:
            share = budget and ladder.spent / budget
            problem = f"the least that can stay costs {share:.2f} times what may be left"
            fix = "remove a smaller share, or give smaller multiple and least, or a shorter protect"
            raise UserError("remove", problem, fix)
        ladder.take(min(down))
    while up := [step for step in ladder.steps(+1) if step.spent <= budget]:
        ladder.take(max(up))
    return {
        group.name: np.sort(rank[:count])
        for group, rank, count in zip(groups.all, ranks, ladder.counts.tolist(), strict=True)
    }


@dataclass(frozen=True, order=True)
class _Step:
    """One group with a step more or less: worth for cost, the group, its count, and all's cost."""

    rate: float
    group: int
    count: int
    spent: float


class _Ladder:
    """How many channels each group has, and what it would be with a step more or less.

    Args:
      widths: What each group may have, rising; it begins with the last.
      worth: Of so many channels of a group, the best ones, from none on.
    """

    def __init__(
        self, widths: list[list[int]], worth: list[np.ndarray], cost: Cost, by_cost: bool
    ) -> None:
        self._widths, self._worth, self._cost, self._by_cost = widths, worth, cost, by_cost
        self.counts = np.array([choices[-1] for choices in widths], int)
        self.spent = cost(self.counts)

    def steps(self, way: int) -> Iterator[_Step]:
        """Yield each group's next step, up for +1 and down for -1."""
        for group, choices in enumerate(self._widths):
            place = choices.index(self.counts[group]) + way
            if 0 <= place < len(choices):
                other = self.counts.copy()
                other[group] = choices[place]
                spent = self._cost(other)
                worth = self._worth[group]
                change = float(worth[choices[place]] - worth[self.counts[group]])
                amount = spent - self.spent if self._by_cost else other[group] - self.counts[group]
                # What costs nothing comes before all else on the way up, and goes last.
                rate = change / float(amount) if amount else inf
                yield _Step(rate, group, choices[place], spent)

    def take(self, step: _Step) -> None:
        self.counts[step.group], self.spent = step.count, step.spent


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
