"""The pipeline that a search goes out from, and what of it is free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfedge.boards.pi import BOARDS
from tfedge.errors import UserError
from tfedge.plan import freeing, kinds, pipeline, settings, store
from tfedge.plan.stages import Evaluate
from tfedge.plan.steps import Pipeline
from tfedge.report.targets import Limit


@dataclass(frozen=True)
class Base:
    """The pipeline that is searched around, as it is written.

    Attributes:
      changes: The user's own --set.
      data: What stands for the data in recipes.
      answer: The stage whose .tflite counts.
      free: The stages that a candidate may make otherwise than another, in their order.
      values: Of the freed settings, as the file has them; None if the space does not hold them.
    """

    loaded: Pipeline
    changes: tuple[str, ...]
    root: Path
    data: dict[str, Any]
    search: freeing.Search
    answer: str
    free: tuple[str, ...]
    values: dict[str, Any] | None

    def broken(self, figures: Mapping[str, Any], grows: int = 0) -> dict[str, float]:
        """Say of each target by what share it is broken, 0 or below where it is kept.

        Args:
          figures: Costs by name, and accuracy on tune; a target whose figure is not here is not.
          grows: Bytes that the file may yet grow by.
        """
        found = {}
        for limit in self.limits:
            name = figure_of(limit)
            if name in figures:
                value = figures[name] + (grows if name == "bytes" else 0)
                sign = -1 if limit.name == "min_accuracy" else 1
                found[limit.label] = round(sign * (value - limit.value) / max(limit.value, 1e-9), 6)
        return found

    def changes_of(self, values: Mapping[str, Any]) -> list[str]:
        """Write a candidate's values as --set takes them."""
        return [freeing.change(freed, values[freed.name]) for freed in self.search.freed]

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The targets that are known of a file without a board: bytes, instructions, accuracy."""
        known = ("max_bytes", "max_cost", "min_accuracy")
        limits = self.loaded.targets.limits if self.loaded.targets else ()
        return tuple(limit for limit in limits if limit.name in known)

    @property
    def boards(self) -> tuple[str, ...]:
        """The boards whose instructions matter."""
        targets = [limit.device for limit in self.limits if limit.name == "max_cost"]
        costs = [cost for cost in self.search.manner.minimise if cost in BOARDS]
        return tuple(dict.fromkeys([*costs, *targets]))


def epochs_of(loaded: Pipeline, stages: Sequence[str]) -> dict[str, int]:
    """Map those of `stages` that train to their epochs."""
    found = {}
    for name in stages:
        stage = loaded.stages.get(name)
        epochs = getattr(getattr(stage, "course", None), "epochs", None)
        if epochs:
            found[name] = int(epochs)
    return found


def figure_of(limit: Limit) -> str:
    """Name the figure of a candidate that a target is about."""
    return {"max_bytes": "bytes", "max_cost": limit.device}.get(limit.name, "accuracy")


def read(
    file: Path, changes: Sequence[str], root: Path, trials: int | None, hours: float | None
) -> Base:
    """Read a pipeline with a [search] table, and hold every value that it frees to its stage."""
    loaded = pipeline.load(file, changes)
    where = f"{file.name} [search]"
    if loaded.search is None:
        fix = "write [search] with, for a stage student: student.width = [8, 12, 16]"
        raise UserError(file, "has no [search] table", fix)
    names = [*loaded.stages, *loaded.skipped]
    search = freeing.read(loaded.search, where, names).with_limits(trials, hours)
    for freed in search.freed:
        for value in freed.ends():
            try:
                pipeline.load(file, [*changes, freeing.change(freed, value)])
            except UserError as error:
                raise UserError(f"{where} {freed.name}", str(error)) from None
    all_in = [f"{freed.stage}.skip=false" for freed in search.freed if freed.setting == "skip"]
    whole = pipeline.load(file, [*changes, *all_in])
    free = _free(whole, {freed.stage for freed in search.freed})
    answer = _answer(whole, free, where)
    data = loaded.source.recipe(root)
    values = _values(whole, search, loaded.skipped)
    return Base(loaded, tuple(changes), root, data, search, answer, free, values)


def study_name(of: Base) -> str:
    """Name the study: another space, data, seed or manner of proposing is another study."""
    manner = of.search.manner
    decides = {
        "file": {name: settings.plain(stage) for name, stage in of.loaded.stages.items()},
        "data": of.data,
        "seed": of.loaded.seed,
        "freed": [repr(freed) for freed in of.search.freed],
        "targets": [repr(limit) for limit in of.limits],
        "manner": [manner.generation, manner.sampler, manner.minimise, manner.short,
                   manner.rungs, manner.keep],
    }  # fmt: skip
    return f"{of.loaded.name}-{store.key_of(decides)[:8]}"


def _free(loaded: Pipeline, freed: set[str]) -> tuple[str, ...]:
    """Name the stages with a freed setting, and all that rest on one."""
    found: list[str] = []
    for name, stage in loaded.stages.items():
        if name in freed or set(settings.inputs_of(stage).values()) & set(found):
            found.append(name)
    return tuple(found)


def _answer(loaded: Pipeline, free: Sequence[str], where: str) -> str:
    """Return the stage whose .tflite the search is about: the targets', or else the last."""
    made = [name for name in free if kinds.makes(loaded.stages[name]) == "tflite"
            and not isinstance(loaded.stages[name], Evaluate)]  # fmt: skip
    if loaded.targets:
        about = loaded.targets.stage
        stage = loaded.stages[about]
        about = settings.inputs_of(stage)["of"] if isinstance(stage, Evaluate) else about
        if about in made:
            return about
    if not made:
        problem = "nothing that it frees leads to a .tflite"
        fix = "free settings of a stage that a convert rests on"
        raise UserError(where, problem, fix)
    return made[-1]


def _values(
    whole: Pipeline, search: freeing.Search, skipped: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return what the file itself says of the freed settings, if the space holds it.

    Args:
      whole: With all stages that may be left out.
    """
    found = {}
    for freed in search.freed:
        value: Any = freed.stage in skipped
        if freed.setting != "skip":
            plain = settings.plain(whole.stages[freed.stage])
            value = json.loads(json.dumps(plain.get(freed.setting)))
        if not freed.holds(value):
            return None
        found[freed.name] = value
    return found
