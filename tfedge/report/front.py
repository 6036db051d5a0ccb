"""Stages as points: accuracy over what it costs, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfedge.report import targets

COSTS = {
    "raw_bytes": "bytes of the file",
    "arm_pi5": "Pi 5 instructions",
    "arm_pi4": "Pi 4 instructions",
    "macs": "multiply-accumulates",
    "host_ms_p50": "milliseconds on this machine",
}
"""What accuracy is drawn over, with the words for it."""

_BOARDS = {"arm_pi4": "pi4", "arm_pi5": "pi5"}


@dataclass(frozen=True)
class Point:
    """A stage in a picture.

    Attributes:
      name: Its own; several stages in the one place are joined by commas.
      cost: In the unit of the picture.
      accuracy: From 0 to 1, between `low` and `high`.
      split: What it was measured on.
    """

    name: str
    cost: float
    accuracy: float
    low: float
    high: float
    split: str


def points(report: Mapping[str, Any], cost: str) -> list[Point]:
    """List the stages of a report that have an accuracy and this cost, in their order.

    Of a file with exits, accuracy and instructions are what leaving early comes to.
    """
    found: dict[tuple[float, float, str], Point] = {}
    for stage in report["stages"]:
        right = stage.get("leaving", stage)
        spent = targets.cost(stage, _BOARDS[cost]) if cost in _BOARDS else stage.get(cost)
        if not spent or "accuracy" not in right or "split" not in right:
            continue
        at = (spent, right["accuracy"], right["split"])
        names = [found[at].name] if at in found else []
        ends = (right.get("accuracy_low", at[1]), right.get("accuracy_high", at[1]))
        found[at] = Point(", ".join([*names, stage["name"]]), spent, at[1], *ends, at[2])
    return list(found.values())


def front(among: Sequence[Point]) -> list[Point]:
    """Return those that no other beats in accuracy without costing more, by cost.

    Accuracies of one split are compared: of test where it has several points, else of the one that
    most have.
    """
    splits = [point.split for point in among]
    several = splits.count("test") > 1
    split = "test" if several else max(splits, key=splits.count, default="")
    best: list[Point] = []
    for point in sorted(among, key=lambda one: (one.cost, -one.accuracy)):
        if point.split == split and (not best or point.accuracy > best[-1].accuracy):
            best.append(point)
    return best
