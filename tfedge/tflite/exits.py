"""When to leave a file of stages: what its card says of that, and what it comes to on a split.

How sure an exit is, and which exit that takes, is worked out by ``device/exits.py``, the board's
own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from tfedge import paths
from tfedge.figures import accuracy_figures
from tfedge.tflite.facts import facts
from tfedge.tflite.leaving import Answers
from tfedge.tflite.staging import stage, stages
from tfedge.tflite.thresholds import choose
from tfedge.tflite.wishes import Leaving

_ROUNDED = 5


def entry(
    content: bytes, answers: Answers, classes: np.ndarray, costs: Sequence[float], wish: Leaving
) -> dict[str, Any]:
    """Choose thresholds and return what a card says of the exits.

    Args:
      content: A file of stages.
      answers: To the tune split.
      classes: The right ones, int [count].
      costs: Of answering at each exit, relative to the whole network's; see `relative_macs`.

    Returns:
      ``signatures``; ``features``, the names handed on at each seam; ``measure`` and
      ``temperatures``, which see `device/exits.py`; ``logits``, each exit's scale and zero point;
      ``costs``; ``points``, each with its ``effort``, ``thresholds``, ``accuracy``, ``shares`` and
      ``mean_cost``; ``chosen``, the number of the one that the ``promise`` is of.
    """
    known = stages(content)
    chosen = choose(answers.logits, answers.quantisation, classes, [*costs, 1.0], **wish.bounds())
    return {
        "signatures": [one.name for one in known],
        "features": [list(one.features) for one in known[:-1]],
        **chosen.entry(),
        "costs": list(costs),
    }


def relative_macs(content: bytes) -> list[float]:
    """Return the multiply-accumulates up to each exit, relative to those of the whole network.

    The last is above 1 by what the heads before it cost.
    """
    count = len(stages(content))
    each = [facts(stage(content, number), "stage").macs for number in range(count)]
    return relative(each, facts(content, "model").macs)


def relative(each: Sequence[int], whole: int) -> list[float]:
    """Return what it costs to come to each exit, relative to the whole network.

    Args:
      each: What the stages cost, one by one.
    """
    return [round(cost / max(whole, 1), _ROUNDED) for cost in accumulate(each)]


def taken(exits: Mapping[str, Any], answers: Answers, thresholds: Sequence[float]) -> np.ndarray:
    """Return by which exit each input leaves, int64 [count].

    Args:
      exits: As in a card.
      thresholds: One for each exit but the last.
    """
    return np.asarray(_device().leaving(measures(exits, answers)[:-1], thresholds), np.int64)


def measures(exits: Mapping[str, Any], answers: Answers) -> list[np.ndarray]:
    """Return how sure each exit is of each input, float32 [count] an exit, as the board has it."""
    ends = zip(answers.logits, answers.quantisation, exits["temperatures"], strict=True)
    return [
        _device().Measure(exits["measure"], scale, temperature)(logits)
        for logits, (scale, _), temperature in ends
    ]


def figures(
    exits: Mapping[str, Any],
    answers: Answers,
    classes: np.ndarray,
    split: str,
    macs: Sequence[float],
    boards: Mapping[str, tuple[int, Sequence[int]]],
) -> dict[str, Any]:
    """Say what leaving at the card's thresholds comes to on a split.

    Args:
      exits: As in a card.
      answers: To the split's inputs.
      classes: The right ones, int [count].
      split: What the split is called in the figures.
      macs: From `relative_macs`.
      boards: For each board the Arm instructions of the whole network, and of each stage.

    Returns:
      ``accuracy`` of the answers given, with its interval; ``last_accuracy`` of the last exit
      alone, and the ``drop`` from it; ``exits``, an entry each with the ``share`` that leaves
      there, the ``accuracy`` of those, and ``accuracy_of_all`` if all left there; ``cost`` in
      multiply-accumulates relative to the whole network and, under ``boards``, in Arm instructions:
      the mean, p50 and p99 of the inputs, the worst case, and the share ``saved`` of the mean; the
      ``points`` of the card as they are on this split.
    """
    answered = np.stack([logits.argmax(axis=-1) for logits in answers.logits])
    right = answered == classes
    chosen = exits["points"][exits["chosen"]]
    left = taken(exits, answers, chosen["thresholds"])
    given = right[left, np.arange(len(classes))]
    last = float(right[-1].mean())
    bills = {board: _Bill([*accumulate(each)], whole) for board, (whole, each) in boards.items()}
    found = accuracy_figures(int(given.sum()), len(classes), split)
    return found | {
        "last_accuracy": last,
        "drop": last - found["accuracy"],
        "effort": chosen["effort"],
        "thresholds": list(chosen["thresholds"]),
        "exits": [_exit(number, left, given, right) for number in range(len(right))],
        "cost": _Bill(macs, 1.0).described(left, chosen["thresholds"]),
        "boards": {
            board: bill.described(left, chosen["thresholds"]) for board, bill in bills.items()
        },
        "points": [
            _point(point, taken(exits, answers, point["thresholds"]), right, macs, bills)
            for point in exits["points"]
        ],
    }


def examples(exits: Mapping[str, Any], answers: Answers, count: int) -> list[list[int]]:
    """Choose inputs that leave at each exit, by their number in the split.

    Those that an exit is surest of come first; of the last exit, those of which the one before it
    is least sure.
    """
    left = taken(exits, answers, exits["points"][exits["chosen"]]["thresholds"])
    sure = measures(exits, answers)
    sure[-1] = -sure[-2]
    found = []
    for number, measure in enumerate(sure):
        (here,) = np.nonzero(left == number)
        ordered = here[np.argsort(-measure[here], kind="stable")]
        found.append(ordered[:count].tolist())
    return found


def _exit(number: int, left: np.ndarray, given: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    here = left == number
    own = {"accuracy": float(given[here].mean())} if here.any() else {}
    return {
        "exit": number,
        "share": float(here.mean()),
        **own,
        "accuracy_of_all": float(right[number].mean()),
    }


@dataclass(frozen=True)
class _Bill:
    """What it costs to come to each exit, and what the whole network alone costs."""

    totals: Sequence[float]
    whole: float

    def each(self, left: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
        """Return what inputs cost that leave by these exits, float64 [count].

        A board that is never to leave early runs the whole network, without the exits on the way.
        """
        if _is_never(thresholds):
            return np.full(len(left), float(self.whole))
        return np.asarray(self.totals, np.float64)[left]

    def described(self, left: np.ndarray, thresholds: Sequence[float]) -> dict[str, Any]:
        """Return the mean of inputs, their p50 and p99, and the worst that one can cost."""
        each = self.each(left, thresholds)
        p50, p99 = np.percentile(each, [50, 99], method="higher")
        mean = float(each.mean())
        return {
            "mean": mean,
            "p50": float(p50),
            "p99": float(p99),
            "worst": float(self.whole if _is_never(thresholds) else self.totals[-1]),
            "saved": 1 - mean / self.whole,
            "whole": self.whole,
            "exits": list(self.totals),
        }


def always_one(exits: Mapping[str, Any]) -> int | None:
    """Return the exit that a card has all inputs leave at; None where that depends on them."""
    at = exits["points"][exits["chosen"]]["thresholds"]
    if at[0] <= _device().ALWAYS:
        return 0
    return len(at) if _is_never(at) else None


def _is_never(thresholds: Sequence[float]) -> bool:
    return all(threshold >= _device().NEVER for threshold in thresholds)


def _point(
    point: Mapping[str, Any],
    left: np.ndarray,
    right: np.ndarray,
    macs: Sequence[float],
    bills: Mapping[str, _Bill],
) -> dict[str, Any]:
    """Describe a point of the card as it is on a split."""
    given, at = right[left, np.arange(len(left))], point["thresholds"]
    return {
        "effort": point["effort"],
        "accuracy": float(given.mean()),
        "shares": [float(np.mean(left == number)) for number in range(len(right))],
        "mean_cost": float(_Bill(macs, 1.0).each(left, at).mean()),
        "boards": {board: float(bill.each(left, at).mean()) for board, bill in bills.items()},
    }


def _device() -> Any:
    """Return device/exits.py."""
    return paths.beside("exits")
