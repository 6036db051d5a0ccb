"""What the processes beside the chief do in a build: they train along, and write nothing to keep.

All see the same build folder.  The chief makes every stage, as it does alone; the others wait for a
stage's folder to be finished.  A stage with ``strategy = "multi_worker"`` they run as well, each in
a folder of its own that is thrown away, because a step of training, and the saving of weights that
are on all machines, needs every process.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from tfedge.errors import UserError
from tfedge.plan import pipeline as pipelines
from tfedge.plan import running, store
from tfedge.plan.meeting import is_spread, meet
from tfedge.plan.steps import Pipeline
from tfedge.progress import Progress
from tfedge.training.team import VARIABLE, member

POLL_S = 0.5
PATIENCE_S = 30.0
"""How long no chief may be seen: one that ends, and one that begins anew, take a moment."""


def follow(pipeline: Pipeline, root: Path, progress: Progress, *, until: str = "") -> None:
    """Take part in a build that the chief runs with the same command, until it is done.

    Args:
      until: As the chief's.
    """
    wanted = pipelines.upto(pipeline, until)
    steps = pipelines.plan(pipeline, root)[: len(wanted)]
    if not meet([step for step in steps if step.why], pipeline.file.name, progress.say):
        progress.say(f"{member()}: no stage is left for it; the chief does the rest alone")
        return
    progress.say(f"{member()}: trains along; the chief, {member().addresses[0]}, keeps the results")
    chief = _Chief(root / pipeline.name)
    folders = {step.name: step.folder for step in steps}
    work = running.Work(pipeline, cache(lambda: pipeline.source.open(root, progress)), progress)
    with tempfile.TemporaryDirectory(prefix="tfedge-") as scratch:
        for step in steps:
            if is_spread(step.stage) and store.damage(step.folder):
                own = replace(step, folder=Path(scratch) / step.folder.name)
                _take_over(step.folder, own.folder, chief)
                running.run_step(own, folders, work)
            elif store.damage(step.folder):
                progress.say(f"{step.name:12} waits  the chief makes it")
            chief.wait(partial(_is_finished, step.folder), step.name)
    progress.say(f"{member()}: done")


def _is_finished(folder: Path) -> bool:
    return not store.damage(folder)


@dataclass(frozen=True)
class _Chief:
    """The process that keeps the results.

    Attributes:
      folder: Where it holds the lock while it is at work.
    """

    folder: Path

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Return when it has `done` something; give up if it is gone."""
        seen = time.monotonic()
        while not done():
            now = time.monotonic()
            if store.is_locked(self.folder):
                seen = now
            elif now - seen > PATIENCE_S and not done():
                problem = f"the chief has ended before {what} was finished, or works elsewhere"
                fix = (
                    "its own message says why; start all with the same commands, and with a"
                    f" --build-dir that all of them see: {VARIABLE} names the chief first"
                )
                raise UserError(f"{self.folder}", problem, fix)
            time.sleep(POLL_S)


def _take_over(folder: Path, own: Path, chief: _Chief) -> None:
    """Begin with what an interrupted training left, as the chief does.

    The chief changes none of it before the end of its next epoch, which needs this process.
    """
    chief.wait(lambda: store.begun(folder) is not None, folder.name)
    begun = store.begun(folder)
    state = begun and begun / store.SCRATCH
    if state and state.is_dir():
        shutil.copytree(state, own.with_name(own.name + ".partial") / store.SCRATCH)
