"""The [targets] table: what a pipeline's file is to keep to, checked before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfedge.boards import measured
from tfedge.boards.pi import BOARDS
from tfedge.boards.ssh import is_name
from tfedge.boards.targets import TARGETS
from tfedge.declarations import setting
from tfedge.errors import UserError, did_you_mean
from tfedge.plan import kinds, settings
from tfedge.plan.job import COMPILED, TFLITE
from tfedge.plan.stages import Evaluate
from tfedge.progress import Progress
from tfedge.report import targets as report
from tfedge.report.targets import HOST, Case, Limit, Targets

Stages = Mapping[str, Any]
"""A pipeline's stages, by name."""

_PER_DEVICE = {"max_cost": "{ pi4 = 2000000 }", "max_ms": f"{{ {HOST} = 0.5 }}"}


@dataclass(frozen=True)
class Table:
    """The [targets] table: what the .tflite is to keep to.  A build exits with 1 if it does not."""

    stage: str = setting("", "whose .tflite is meant; if unset, the last that has one")
    max_bytes: int | None = setting(None, "of the .tflite, not zipped", low=1, high=10**12)
    max_cost: dict[str, int] = setting(
        {}, "Arm instructions of an inference: { pi4 = 2000000, pi5 = 1000000 }", low=1, high=10**15
    )
    max_ms: dict[str, float] = setting(
        {},
        'median milliseconds of an inference: { host = 0.5, "pi@raspberrypi.local" = 2 }, a board'
        " as `tfedge deploy` names it",
        low=1e-6,
        high=1e9,
    )
    min_accuracy: float | None = setting(None, "on the split that evaluate looks at", low=0, high=1)
    max_drop: float | None = setting(
        None, "of accuracy, against evaluate's `against` or else the first network", low=0, high=1
    )


def read(table: Mapping[str, Any], where: str, stages: Stages) -> Targets:
    """Read the table; every mistake is a UserError that names the key.

    Args:
      where: The file and the table, for messages.
    """
    if "use" in table:
        fix = "give a stage another name; targets are max_bytes, min_accuracy and the like"
        raise UserError(where, "is no stage, but what the file is to keep to", fix)
    for name, example in _PER_DEVICE.items():
        if not isinstance(table.get(name, {}), dict):
            problem = f"expected a limit for each device, got {table[name]!r}"
            raise UserError(f"{where} {name}", problem, f"write {name} = {example}")
    written = settings.read(Table, table, where, Path())
    limits = tuple(_limits(written))
    if not limits:
        raise UserError(where, "has no target", f"write one of {', '.join(_names())}")
    stage = _stage(written.stage, where, stages)
    evaluated = _evaluated(stage, stages)
    networks = [name for name, one in stages.items() if kinds.makes(one) in kinds.NETWORKS]
    asked = stages[evaluated].against if evaluated else ""
    against = asked or (networks[0] if networks else "")
    counts = (stages[evaluated].cost or ()) if evaluated else ()
    found = Targets(limits, stage, evaluated, against, counts)
    for limit in limits:
        _check(limit, found, where, stages)
    return found


def foreseen(targets: Targets) -> list[dict[str, Any]]:
    """List the targets as a plan tells them, with the reason where one cannot be measured here.

    What a board has measured is not known before it has the file.
    """
    missing = ""
    if any(limit.name == "max_cost" and limit.device not in targets.counts
           for limit in targets.limits):  # fmt: skip
        from tfedge.boards import counting  # not for every plan: it imports numpy

        missing = counting.missing()
    found = []
    for limit in targets.limits:
        uncounted = limit.name == "max_cost" and limit.device not in targets.counts
        device = {"device": limit.device} if limit.device else {}
        why = {"why": missing} if uncounted and missing else {}
        found.append({"target": limit.name, **device, "stage": targets.stage,
                      "limit": limit.value, **why})  # fmt: skip
    return found


def judge(
    targets: Targets,
    told: Mapping[str, Any],
    folders: Mapping[str, Path],
    pipeline: str,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Return a verdict for each target, see `report.targets.verdicts`.

    Instructions that no stage has counted are counted now, where nothing need be fetched for it;
    the same file's only once.

    Args:
      told: The report.
      folders: Those of the finished stages.
      pipeline: Its file, and what else its commands need.
    """
    rows = {row["name"]: row for row in told["stages"]}
    folder = folders.get(targets.stage, Path())
    files = [folder / name for name in (TFLITE, COMPILED) if (folder / name).is_file()]
    boards = told.get("boards", ())
    known = {measured.fingerprint(file) for file in files} if boards else set()
    boards = [one for one in boards if one["model_sha256"] in known]
    counted: dict[str, int | str] = {}
    row = rows.get(targets.evaluated, rows.get(targets.stage))
    if row and "leaving" not in row:
        asked = [limit.device for limit in targets.limits if limit.name == "max_cost"]
        lacking = [board for board in asked if report.cost(row, board) is None]
        counted = _counted(folder / TFLITE, lacking, progress)
    return report.verdicts(Case(targets, rows, boards, counted, pipeline))


def _counted(file: Path, boards: Sequence[str], progress: Progress) -> dict[str, int | str]:
    """Count a file's instructions by board, or say why that cannot be done here."""
    if not boards:
        return {}
    from tfedge.boards import counting

    if why := counting.missing():
        return dict.fromkeys(boards, why)
    from tfedge.boards.cost import counted_once

    try:
        return {board: counted_once(file, board, progress) for board in boards}
    except UserError as error:
        where, problem, _ = error.parts
        return dict.fromkeys(boards, f"{where}: {problem}")


def _names() -> list[str]:
    return [field.name for field in settings.fields_of(Table) if field.name != "stage"]


def _limits(table: Table) -> list[Limit]:
    found = []
    for name in _names():
        value = getattr(table, name)
        each = value if isinstance(value, dict) else {"": value}
        found += [Limit(name, one, device) for device, one in each.items() if one is not None]
    return found


def _stage(name: str, where: str, stages: Stages) -> str:
    """Return the stage that the targets are about."""
    made = [one for one, stage in stages.items() if kinds.makes(stage) == "tflite"]
    if name and name not in stages:
        raise UserError(f"{where} stage", f"there is no stage {name!r}", did_you_mean(name, made))
    if name and name not in made:
        problem = f"{name!r} makes no .tflite, which targets are about"
        raise UserError(f"{where} stage", problem, did_you_mean(name, made))
    if not made:
        fix = 'add a stage with use = "convert"'
        raise UserError(where, "no stage makes a .tflite for it to be about", fix)
    return name or made[-1]


def _evaluated(name: str, stages: Stages) -> str:
    """Return the `evaluate` that measures a stage's file: itself, or the last of it."""
    if isinstance(stages[name], Evaluate):
        return name
    of_it = [one for one, stage in stages.items()
             if isinstance(stage, Evaluate) and stage.of == name]  # fmt: skip
    return of_it[-1] if of_it else ""


def _check(limit: Limit, targets: Targets, where: str, stages: Stages) -> None:
    """Refuse a target that nothing in this pipeline could measure."""
    place = f"{where} {limit.name}"
    if limit.name == "max_cost":
        _check_counts(limit.device, targets, place, stages)
    if limit.name == "max_ms" and limit.device != HOST:
        _check_board(limit.device, targets.stage, place, stages)
    if limit.name == "min_accuracy" and not targets.evaluated:
        fix = f'add a stage with use = "evaluate" and of = "{targets.stage}"'
        raise UserError(place, f"no stage evaluates {targets.stage!r}", fix)
    if limit.name == "max_drop" and not targets.against:
        fix = 'write against = "STAGE" in an evaluate stage'
        raise UserError(place, "no stage makes a network that it could be against", fix)


def _check_counts(board: str, targets: Targets, place: str, stages: Stages) -> None:
    if board not in BOARDS:
        problem = f"there is no board {board!r} to count instructions for"
        raise UserError(place, problem, did_you_mean(board, BOARDS))
    wish = stages[targets.evaluated].cost if targets.evaluated else None
    if wish is not None and board not in wish:
        listed = ", ".join(f'"{name}"' for name in (*wish, board))
        fix = f"write cost = [{listed}] there, or leave cost out"
        raise UserError(place, f"[{targets.evaluated}] counts none for {board}", fix)


def _check_board(name: str, stage: str, place: str, stages: Stages) -> None:
    """Refuse a name that `tfedge deploy` would not take, and a file that it would not measure."""
    if name in TARGETS:
        problem = f"{name!r} is a kind of board, and milliseconds are those of one board"
        fix = f'write "{HOST}", or your board as tfedge deploy names it: "pi@raspberrypi.local"'
        instead = f"; max_cost = {{ {name} = ... }} needs no board" if name in BOARDS else ""
        raise UserError(place, problem, fix + instead)
    typo = len(name) <= len(HOST) + 1 and difflib.get_close_matches(name, [HOST])
    if typo or not is_name(name):
        problem = f"{name!r} is no board, nor {HOST}"
        fix = f'write "{HOST}", or your board as tfedge deploy names it: "pi@raspberrypi.local"'
        raise UserError(place, problem, fix)
    last = [one for one, made in stages.items() if kinds.makes(made) == "tflite"][-1]
    if _measured(stage, stages) != _measured(last, stages):
        problem = f"tfedge deploy takes the last file, that of {last!r}, and not that of {stage!r}"
        fix = f"write {HOST}, or leave out the stages of .tflite files behind {stage!r}"
        raise UserError(place, problem, fix)


def _measured(name: str, stages: Stages) -> str:
    """Return the stage that made the network in a stage's file."""
    stage = stages[name]
    return _measured(stage.of, stages) if isinstance(stage, Evaluate) else name
