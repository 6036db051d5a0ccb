"""The [search] table: what of a pipeline is free, and how long to look."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfedge.boards.pi import BOARDS
from tfedge.declarations import setting
from tfedge.errors import UserError, did_you_mean
from tfedge.plan import settings

COSTS = ("bytes", "macs", "arena", "parameters", *BOARDS)
"""What a search can make small; a board's name is its Arm instructions."""

_RANGE = ("low", "high", "step", "log")
_EXAMPLE = "write [8, 12, 16], or { low = 0.2, high = 0.8 }"


@dataclass(frozen=True)
class Manner:
    """The [search] table's own settings; its other keys are stages, with what is free of each."""

    trials: int = setting(40, "candidates to propose", low=1, high=1_000_000)
    hours: float = setting(
        0.0,
        "the whole search, the front's long training included, as far as that can be foreseen;"
        " 0 for no limit",
        low=0,
        high=10_000,
    )
    generation: int = setting(
        8,
        "candidates that are proposed together, from what earlier generations have shown; as many"
        " workers can be busy at once",
        low=1,
        high=4096,
    )
    sampler: str = setting(
        "tpe",
        "who proposes: a tree of Parzen estimators (Bergstra 2011), a genetic algorithm (NSGA-II,"
        " Deb 2002), or chance",
        choices=("tpe", "nsga2", "random"),
    )
    minimise: tuple[str, ...] = setting(
        ("bytes",), f"what is to be small where accuracy is high: some of {', '.join(COSTS)}"
    )
    short: float = setting(
        0.25,
        "epochs that a candidate trains, as a share of what its stages say; the front trains all",
        low=1e-3,
        high=1,
    )
    rungs: tuple[float, ...] = setting(
        (0.34,),
        "shares of those epochs after which only the best go on (successive halving, Jamieson and"
        " Talwalkar 2016); [] for none",
        low=1e-3,
        high=0.999,
    )
    keep: float = setting(
        0.34, "share of the candidates at a rung that goes on", low=0.01, high=0.99
    )
    finals: int = setting(
        4, "candidates of the front that are trained to full length", low=1, high=1000
    )

    def check(self, where: str) -> None:
        """Refuse what cannot be measured, and rungs that do not rise."""
        if not self.minimise or len(set(self.minimise)) < len(self.minimise):
            problem = f"must name one or several of {', '.join(COSTS)}, got {list(self.minimise)}"
            raise UserError(f"{where} minimise", problem)
        for name in self.minimise:
            if name not in COSTS:
                raise UserError(
                    f"{where} minimise", f"unknown cost {name!r}", did_you_mean(name, COSTS)
                )
        if list(self.rungs) != sorted(set(self.rungs)):
            raise UserError(f"{where} rungs", f"must rise, got {list(self.rungs)}")


@dataclass(frozen=True)
class Freed:
    """One setting of a stage that the search chooses.

    Attributes:
      stage: The stage's name in the pipeline.
      setting: The setting's, or an argument's of the stage's builder.
      choices: What it may be, as the pipeline file's values; empty for a range.
      low, high: The range's ends, both possible.
      step: Between two values of a range; 0 for any.
      log: Whether values are as likely by their logarithm.
    """

    stage: str
    setting: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    step: float = 0
    log: bool = False

    @property
    def name(self) -> str:
        """As --set writes it."""
        return f"{self.stage}.{self.setting}"

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return not self.choices and all(type(end) is int for end in (self.low, self.high))

    def ends(self) -> tuple[Any, ...]:
        """Return the values that show whether all are allowed."""
        return self.choices or (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value is one that the search can choose."""
        if self.choices:
            return any(same(value, choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        steps = (value - self.low) / self.step if self.step else 0
        on_step = math.isclose(steps, round(steps), abs_tol=1e-9)
        return self.low <= value <= self.high and on_step


@dataclass(frozen=True)
class Search:
    """A [search] table, checked.

    Attributes:
      freed: In the order of the file.
    """

    manner: Manner
    freed: tuple[Freed, ...]

    def with_limits(self, trials: int | None, hours: float | None) -> Search:
        """Return the same with other limits, where they are given."""
        manner = self.manner
        if trials is not None:
            manner = replace(manner, trials=trials)
        if hours is not None:
            manner = replace(manner, hours=hours)
        return replace(self, manner=manner)


def read(table: Mapping[str, Any], where: str, stages: Sequence[str]) -> Search:
    """Read the table; every mistake is a UserError that names the key.

    Args:
      where: The file and the table, for messages.
      stages: The pipeline's stages.
    """
    own = {key: value for key, value in table.items() if not isinstance(value, dict)}
    for key in own:
        if key in stages:
            raise UserError(f"{where} {key}", "is a stage", f"write {key}.setting = [8, 16]")
    manner: Manner = settings.read(Manner, own, where, Path())
    manner.check(where)
    freed: list[Freed] = []
    for stage, inner in table.items():
        if isinstance(inner, dict):
            if stage not in stages:
                raise UserError(
                    f"{where} {stage}", "there is no such stage", did_you_mean(stage, stages)
                )
            freed += _freed(stage, inner, f"{where} {stage}")
    if not freed:
        problem = "frees no setting of any stage"
        raise UserError(where, problem, "write, for a stage student: student.width = [8, 12, 16]")
    return Search(manner, tuple(freed))


def _freed(stage: str, table: Mapping[str, Any], where: str) -> Iterator[Freed]:
    for name, value in table.items():
        place = f"{where}.{name}"
        if isinstance(value, list):
            if len(value) < 1 or any(
                same(value[i], value[j]) for i in range(len(value)) for j in range(i)
            ):
                raise UserError(place, f"must hold different values, got {value}", _EXAMPLE)
            yield Freed(stage, name, tuple(value))
        elif isinstance(value, dict):
            yield _range(stage, name, value, place)
        else:
            raise UserError(place, f"expected what it may be, got {value!r}", _EXAMPLE)


def _range(stage: str, name: str, value: Mapping[str, Any], where: str) -> Freed:
    for key in value:
        if key not in _RANGE:
            raise UserError(where, f"unknown key {key!r} of a range", did_you_mean(key, _RANGE))
    low, high = _number(value, "low", where), _number(value, "high", where)
    step, log = _number({"step": 0, **value}, "step", where), value.get("log", False)
    if type(low) is not int or type(high) is not int:
        low, high = float(low), float(high)
    _check_ends(low, high, step, where)
    if type(low) is int and type(step) is float:
        raise UserError(where, f"step must be a whole number, as low and high are, got {step}")
    if type(log) is not bool:
        raise UserError(where, f"log must be true or false, got {log!r}")
    if log and (low <= 0 or step):
        raise UserError(where, "log needs a low above 0, and no step")
    return Freed(stage, name, (), low, high, step, log)


def _check_ends(low: float, high: float, step: float, where: str) -> None:
    if not low < high:
        raise UserError(where, f"low must be below high, got {low} and {high}")
    if not 0 <= step <= high - low:
        raise UserError(where, f"step must be from 0 to {high - low}, got {step}")


def _number(value: Mapping[str, Any], key: str, where: str) -> int | float:
    number = value.get(key)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise UserError(where, f"{key} must be a number, got {number!r}", _EXAMPLE)
    if not math.isfinite(number):
        raise UserError(where, f"{key} must be finite, got {number}", _EXAMPLE)
    return number


def change(freed: Freed, value: Any) -> str:
    """Write a value of a freed setting as --set takes it."""
    return f"{freed.name}={json.dumps(value)}"


def same(one: Any, other: Any) -> bool:
    """Whether two values of a setting are the same; true is not 1."""
    return type(one) is type(other) and bool(one == other)
