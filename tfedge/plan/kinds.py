"""What stages make, and which of it other stages take: checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfedge.errors import UserError, did_you_mean
from tfedge.plan import settings

NETWORKS = {
    "network": "a float network",
    "clustered network": "a clustered network",
    "8-bit network": "an 8-bit network",
}
"""What a stage may make that is a Keras model, in words."""

WITH_EXITS = " with exits"
"""Behind any of `NETWORKS` in a stage's `makes`, if the stage itself gives its network exits."""

Above = Mapping[str, Any]
"""The stages above one, by name."""


def makes(stage: Any, unknown: str = "") -> str:
    """Return what a stage makes, exits or not: a key of `NETWORKS`, "tflite", or `unknown`."""
    return str(getattr(stage, "makes", unknown)).removesuffix(WITH_EXITS)


def exits_of(name: str, above: Above) -> int | None:
    """Count the exits of what a stage makes, the last included; 1 where there are no others.

    A stage hands on those of the network in its input `of`.  None if a stage of the user's own
    gives exits and does not say how many, by an attribute `exits`.
    """
    stage = above[name]
    if str(getattr(stage, "makes", "")).endswith(WITH_EXITS):
        return getattr(stage, "exits", None)
    source = settings.inputs_of(stage).get("of")
    return exits_of(source, above) if source else 1


def check_named(stage: Any, where: str, above: Above) -> None:
    """Refuse an input that is not above."""
    for setting, source in settings.inputs_of(stage).items():
        if source not in above:
            problem = f"{source!r} is not a stage above this one"
            raise UserError(f"{where} {setting}", problem, did_you_mean(source, above))


def check_inputs(stage: Any, where: str, above: Above) -> None:
    """Refuse an input that made something else than is needed; all must be above.

    A stage with a method ``check_exits(count, where)`` is told how many exits its `of` has.
    """
    named = settings.inputs_of(stage)
    for setting, wanted in settings.wanted(stage).items():
        _check_kind(named[setting], wanted, f"{where} {setting}", above)
    for setting in settings.single(stage):
        if exits_of(named[setting], above) != 1:
            problem = f"{named[setting]!r} makes a network that has exits already"
            fix = "take a stage above the one that gave it exits"
            raise UserError(f"{where} {setting}", problem, fix)
    if "of" in named and hasattr(stage, "check_exits"):
        count = exits_of(named["of"], above)
        if count is not None:
            stage.check_exits(count, where)


def _check_kind(source: str, wanted: tuple[str, ...], where: str, above: Above) -> None:
    made = makes(above[source], wanted[0])
    if made == "clustered network" and wanted == ("network",):
        problem = f"{source!r} makes weights share values, which this stage would undo"
        fix = f"put it above {source!r}, which keeps the zeros that it finds"
        raise UserError(where, problem, fix)
    if made not in wanted:
        fits = [name for name, stage in above.items() if makes(stage, wanted[0]) in wanted]
        is_, asked = (NETWORKS.get(kind, f"a .{kind}") for kind in (made, wanted[0]))
        raise UserError(where, f"{source!r} makes {is_}, not {asked}", did_you_mean(source, fits))
