"""A network narrowed once: scored, what stays chosen, and rebuilt without the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import build
from tfedge.networks.keras2 import Keras2
from tfedge.networks.narrowing.amounts import Steps, choose, comparable, counted, fewer
from tfedge.networks.narrowing.costs import Costs
from tfedge.networks.narrowing.groups import Groups, groups
from tfedge.networks.narrowing.scores import SCORES, Batches, Scores
from tfedge.networks.narrowing.surgery import Kept, without
from tfedge.networks.narrowing.wishes import BOARDS, Wishes
from tfedge.networks.reading import read

Instructions = Callable[[keras.Model], float]
"""What an inference of a network costs a board."""

_NEAR = 0.985
_COUNTS = 7


@dataclass(frozen=True, eq=False)
class Cut:
    """A narrower network.

    Attributes:
      widths: Of each group that lost channels: the names of the layers that make them, and how
        many it had and has.
      whole: Layers that make channels of which none can go, and why.
    """

    network: keras.Model
    widths: dict[str, tuple[int, int]]
    whole: dict[str, str]


def cost_of(network: keras.Model, wishes: Wishes, instructions: Instructions) -> float:
    """Measure what `wishes.share_of` names.

    Args:
      instructions: Only called where it names a board.
    """
    if wishes.share_of in BOARDS:
        return instructions(network)
    costs = Costs(groups(read(network, Keras2())))
    return float(getattr(costs, wishes.share_of)(costs.widths))


def cut(
    network: keras.Model,
    wishes: Wishes,
    budget: float,
    batches: Batches,
    instructions: Instructions,
) -> Cut:
    """Take out the channels that are worth least, until the cost is within a budget.

    Args:
      network: Functional, in float; it is not changed.
      budget: As `cost_of` counts.
      batches: Labelled inputs for the score, each batch a few.
      instructions: As for `cost_of`.

    Raises:
      UserError: No layer can lose channels, or not so many; a pattern of `protect` fits none.
    """
    found = groups(read(network, Keras2()), wishes.protect)
    if not found.all:
        reasons = "; ".join(f"{name} {why}" for name, why in found.whole.items())
        raise UserError("narrow", f"no layer of this network can lose channels: {reasons}")
    score = SCORES[wishes.score]
    scores = comparable(
        score.function(found, batches), layerwise=wishes.scope == "layer", compares=score.compares
    )
    kept = _chosen(found, scores, wishes, budget, instructions)
    return Cut(build(without(found, kept)), dict(fewer(found, kept)), found.whole)


def _chosen(
    found: Groups, scores: Scores, wishes: Wishes, budget: float, instructions: Instructions
) -> Kept:
    costs, steps = Costs(found), Steps(wishes.multiple, wishes.least)
    by_cost = wishes.scope == "global"
    if wishes.share_of not in BOARDS:
        cost = getattr(costs, wishes.share_of)
        return choose(found, scores, cost, budget, steps, by_cost=by_cost)

    def count(kept: Kept) -> float:
        return instructions(build(without(found, kept)))

    def at(macs: float) -> Kept:
        return choose(found, scores, costs.macs, macs, steps, by_cost=by_cost)

    ends = costs.macs(steps.least_of(found)), costs.macs(costs.widths)
    return _within(found, ends, budget, at, count)


def _within(
    found: Groups,
    ends: tuple[float, float],
    budget: float,
    at: Callable[[float], Kept],
    count: Callable[[Kept], float],
) -> Kept:
    """Find the choice by multiply-accumulates whose instructions come nearest below a budget.

    Instructions rise with multiply-accumulates, nearly in proportion, so a few counts do.  Where
    little stays, most of them are for what is no multiplication.

    Args:
      ends: The multiply-accumulates of the least that can stay, and of all.
    """
    low, high = ends
    tried: dict[tuple[int, ...], float] = {}
    best: Kept | None = None
    guess = max(low, high * min(1.0, budget / count({})))
    for _ in range(_COUNTS):
        kept = at(guess)
        key = tuple(counted(found, kept).tolist())
        again = key in tried
        tried[key] = tried[key] if again else count(kept)
        if tried[key] <= budget:
            low, best = guess, kept
            if tried[key] >= _NEAR * budget:
                break
        else:
            high = guess
        middle = (low + high) / 2 if again else guess * budget / tried[key]
        guess = float(np.clip(middle, low + (high - low) / 10, high - (high - low) / 10))
    if best is None:
        problem = f"the smallest that was tried takes {min(tried.values()) / budget:.2f} times that"
        raise UserError("remove", problem, "remove a smaller share, or more in multiples of 1")
    return best
