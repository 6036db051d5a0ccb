"""What is known of a candidate before it is trained: its file is made of the untrained network."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfedge import paths
from tfedge.plan import pipeline, running, settings
from tfedge.plan.job import TFLITE, file_figures
from tfedge.plan.stages import Cluster, Prune, Qat
from tfedge.plan.steps import Pipeline, Step
from tfedge.progress import Progress, Silent
from tfedge.search.tasks import Task

if TYPE_CHECKING:
    from tfedge.data.dataset import Data, Split

INPUTS = 256
"""Of each split: enough to calibrate ranges that nobody uses."""

QUIET = Silent()

_SAME_FILE = (Prune, Cluster, Qat)
"""Stages after which a file has the size, the operators and the cost that it had before."""


def look(loaded: Pipeline, task: Task, progress: Progress) -> dict[str, Any]:
    """Make the candidate's file untrained and measure it.

    Stages that are not finished run on a few inputs without a step of training, in a folder that is
    thrown away; of those that are finished, such as a teacher, what they made is used.  A `narrow`
    that chooses by what the data shows may so choose a little differently than it will.

    Returns:
      bytes, parameters, macs (where they can be counted), arena (bytes), instructions by board, and
      for int8 `coral`: the share of operators that an Edge TPU takes.  Empty if a stage of the
      user's own, which could train, is in the way.
    """
    passed = _passed(loaded)
    steps = [step for step in pipeline.plan(loaded, task.root, data=dict(task.data), compared=False)
             if step.name in needed(loaded, task.answer)]  # fmt: skip
    if any(step.why and not _ours(step.stage) for step in steps):
        return {}
    kept = task.root / loaded.name / "search" / "looks" / f"{_key(steps, passed, task)}.json"
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return found
    with tempfile.TemporaryDirectory(prefix="tfedge-look-") as place:
        file = _made(loaded, steps, passed, task, Path(place), progress)
        found = of_file(file, task.boards, progress)
    kept.parent.mkdir(parents=True, exist_ok=True)
    paths.replace(kept, json.dumps(found, indent=1, sort_keys=True))
    return found


def needed(loaded: Pipeline, stage: str) -> set[str]:
    """Name the stages that a stage rests on, and itself."""
    found = {stage}
    for source in settings.inputs_of(loaded.stages[stage]).values():
        found |= needed(loaded, source)
    return found


def of_file(file: Path, boards: Sequence[str] = (), progress: Progress = QUIET) -> dict[str, Any]:
    """Measure a .tflite, as `look` says."""
    from tfedge.boards import cost, edgetpu
    from tfedge.tflite.card import strip

    content = file.read_bytes()
    known = file_figures(content, file)
    names = {"parameters": "parameters", "macs": "macs", "arena_bytes": "arena"}
    found = {"bytes": len(content)} | {to: known[of] for of, to in names.items() if of in known}
    for board in boards:
        found[board] = cost.counted_once(file, board, progress)
    mapped = edgetpu.mapping(strip(content), file)
    return found | ({} if mapped.refused else {"coral": mapped.mapped / mapped.total})


def _made(
    loaded: Pipeline,
    steps: Sequence[Step],
    passed: Mapping[str, str],
    task: Task,
    place: Path,
    progress: Progress,
) -> Path:
    """Make the answer's file in `place`; return it."""
    folders: dict[str, Path] = {}
    work = running.Work(loaded, lambda: few(opened(loaded, task)), progress, untrained=True)
    for step in steps:
        if step.name in passed:
            folders[step.name] = folders[passed[step.name]]
            continue
        folders[step.name] = step.folder
        if step.why:
            folders[step.name] = place / step.folder.name
            running.run_step(replace(step, folder=folders[step.name]), folders, work)
    return folders[task.answer] / TFLITE


def opened(loaded: Pipeline, task: Task) -> Data:
    """Open the data, once a process: candidates differ in stages, not in their data."""
    own = tuple(change for change in task.changes if change.startswith("data."))
    return _opened(loaded.file, own, task.root)


@cache
def _opened(file: Path, changes: tuple[str, ...], root: Path) -> Data:
    found: Data = pipeline.load(file, changes).source.open(root, Silent())
    return found


def few(data: Data, count: int = INPUTS) -> Data:
    """Return the same data with at most `count` inputs a split, evenly from all of it."""

    def some(split: Split) -> Split:
        step = max(1, len(split.classes) // count)
        return type(split)(split.inputs[::step][:count], split.classes[::step][:count])

    return replace(data, train=some(data.train), tune=some(data.tune), test=some(data.test))


def _passed(loaded: Pipeline) -> dict[str, str]:
    """Map the stages that a look leaves out to the ones that stand in for them."""
    found: dict[str, str] = {}
    for name, stage in loaded.stages.items():
        if type(stage) in _SAME_FILE:
            source = settings.inputs_of(stage)["of"]
            found[name] = found.get(source, source)
    return found


def _ours(stage: Any) -> bool:
    return type(stage).__module__.startswith("tfedge.plan.stages")


def _key(steps: Sequence[Step], passed: Mapping[str, str], task: Task) -> str:
    """Hash what decides a look: training does not, nor does what leaves the file as it is."""
    rows: list[Any] = [list(task.boards), INPUTS]
    for step in steps:
        if step.name not in passed:
            free = {key: value for key, value in step.recipe["settings"].items()
                    if not (step.why and key in _COURSE)}  # fmt: skip
            inputs = {key: passed.get(name, name) for key, name in step.inputs.items()}
            whole = "" if step.why else step.key
            rows.append([step.recipe["stage"], step.recipe["code"], free, inputs, whole])
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def _course() -> frozenset[str]:
    from tfedge.training.course import Course

    return frozenset(field.name for field in settings.fields_of(Course))


_COURSE = _course()
