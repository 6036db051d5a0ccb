"""What a worker does of a search: look at a candidate, or build it as far as it is asked to.

Nothing is handed back but figures: networks stay in the build folder, by their stages' keys, where
whoever goes on with a candidate finds them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tfedge.errors import Paused, UserError
from tfedge.plan import pipeline, running, store
from tfedge.plan.job import TFLITE
from tfedge.plan.shelf import Shelf, open_shelf
from tfedge.plan.steps import Pipeline, Step
from tfedge.progress import Lines
from tfedge.search import looking
from tfedge.search.tasks import LOOK, WHOLE, Outcome, Task

THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
"""What tells TensorFlow how many threads it may have."""


def do(task: Task) -> Outcome:
    """Do a task; what the candidate's settings make impossible is an outcome, too."""
    with _logging(task.log) as progress:
        try:
            loaded = pipeline.load(task.file, task.changes)
            if task.kind == LOOK:
                return Outcome(looking.look(loaded, task, progress))
            return _train(loaded, task, progress)
        except UserError as error:
            progress.say(str(error))
            return Outcome(refused=str(error))


def _train(loaded: Pipeline, task: Task, progress: Lines) -> Outcome:
    outcome = Outcome()
    folders: dict[str, Path] = {}
    until = "" if task.kind == WHOLE else task.answer
    needed = None if task.kind == WHOLE else looking.needed(loaded, task.answer)
    for step in pipeline.plan(loaded, task.root, data=dict(task.data), compared=False):
        if needed is not None and step.name not in needed:
            continue
        folders[step.name] = step.folder
        label = f"{step.name}-{step.key[:8]}"
        if not step.why:
            outcome.shared.append(label)
        elif not _run(step, loaded, folders, task, outcome, progress):
            return outcome
        if step.name == task.judged:
            record = store.read_record(step.folder) or {}
            outcome.epochs = int(record.get("figures", {}).get("epochs", 0))
        if step.name == until:
            break
    outcome.figures |= _figures(folders[task.answer])
    return outcome


def _run(
    step: Step,
    loaded: Pipeline,
    folders: Mapping[str, Path],
    task: Task,
    outcome: Outcome,
    progress: Lines,
) -> bool:
    """Run a step, unless another worker does; return whether it is finished."""
    started = time.perf_counter()

    def watch(epochs: int, row: dict[str, float]) -> None:
        if step.name != task.judged:
            return
        outcome.epochs = epochs
        outcome.figures = {"accuracy": row["val_accuracy"]}
        if 0 < task.epoch <= epochs:
            raise Paused(f"after epoch {epochs}")

    work = running.Work(
        loaded,
        lambda: looking.opened(loaded, task),
        progress,
        watch=watch,
        shelf=_shelf(task.store) if task.store else None,
    )
    try:
        made = running.run_step(step, folders, work)
    except Paused:
        outcome.paused = True
        return False
    label = f"{step.name}-{step.key[:8]}"
    if made:
        outcome.made[label] = round(time.perf_counter() - started, 3)
    else:
        outcome.shared.append(label)
    return True


@cache
def _shelf(url: str) -> Shelf:
    return open_shelf(url)


def _figures(folder: Path) -> dict[str, Any]:
    record = store.read_record(folder) or {}
    known = record.get("figures", {})
    found = {name: known[name] for name in ("accuracy", "count") if name in known}
    file = folder / TFLITE
    return found | looking.of_file(file) if file.is_file() else found


@contextmanager
def _logging(log: Path | None) -> Iterator[Lines]:
    """Let the task's lines go to its log."""
    if log is None:
        yield Lines()
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        yield Lines(stream)


def begin(threads: int) -> None:
    """Make a process a worker: TensorFlow, once it is imported, takes so many threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever runs the search ends its workers
    for name in THREADS:
        os.environ[name] = str(threads)
