"""Run one step of a plan, and keep what it made."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tfedge.errors import Paused, UserError
from tfedge.plan import claims, kinds, settings, store
from tfedge.plan.about import About
from tfedge.plan.job import LESSONS, MODEL, TFLITE, Job, Stage
from tfedge.plan.refs import Ref, blaming
from tfedge.plan.shelf import Loan, Shelf
from tfedge.plan.stages import STAGES
from tfedge.plan.steps import FRESH, Pipeline, Step
from tfedge.progress import Progress, quietly
from tfedge.report import ladder


@dataclass(frozen=True)
class Work:
    """What the steps of a pipeline are run with.

    Attributes:
      open_data: Returns the pipeline's data, a `tfedge.data.dataset.Data`; called for a step that
        runs here alone.
      logs: Folder for TensorBoard's events, below which each stage has its own; None for none.
      watch: Told the epochs of a training that are done, and what the last came to, once its state
        is saved.  It may raise `Paused`: the step's next run goes on from there.
      waiting: How others that make the same step are waited for.
      untrained: Leave all training out, to see what comes of a network by its shape alone.
      shelf: Where machines without a common folder share what is finished; None for none.
    """

    pipeline: Pipeline
    open_data: Callable[[], Any]
    progress: Progress
    logs: Path | None = None
    watch: Callable[[int, dict[str, float]], None] | None = None
    waiting: claims.Waiting = claims.PATIENT
    untrained: bool = False
    shelf: Shelf | None = None


def run_step(step: Step, folders: Mapping[str, Path], work: Work) -> bool:
    """Make the folder of `step` or, if another process or machine is at it, wait until it is made.

    One of all that see the folder makes it, and is replaced if it dies: see `tfedge.plan.claims`.

    What is on the shelf is fetched from there, and what is made is put there.

    Args:
      folders: Of the stages above it, by their names.

    Returns:
      Whether it was made here.

    Raises:
      Paused: As `work.watch` did.  What is done stays, and the next run goes on from it.
      Lost: Another has taken over, since this process stood still for longer than the lease.
    """
    fresh = step.why == FRESH

    def finished() -> bool:
        return not fresh and not store.damage(step.folder)

    def say(holder: str) -> None:
        work.progress.say(f"{step.name:12} waits  {holder} makes it")

    waiting = replace(work.waiting, say=say)
    with claims.claimed(claims.beside(step.folder), finished, waiting) as claim:
        if claim is None:
            return False
        if work.shelf is None:
            _run_or_lose(step, folders, work, Held((claim,)))
            return True
        there = partial(work.shelf.has, step.folder)
        with work.shelf.lent(step.folder, lambda: not fresh and there(), waiting) as loan:
            if loan:
                _run_or_lose(step, folders, work, Held((claim, loan.claim), loan))
                loan.end(anew=fresh)
                return True
        work.shelf.fetch(step.folder)
        work.progress.say(f"{step.name:12} comes from {work.shelf.url}")
    return False


@dataclass(frozen=True)
class Held:
    """What a step is made under.

    Attributes:
      rights: To the folder here, and to the stage on the shelf if there is one.
    """

    rights: tuple[claims.Claim, ...]
    loan: Loan | None = None

    def check(self) -> None:
        """Raise `Lost` if another has taken over."""
        for claim in self.rights:
            claim.check()


def _run_or_lose(step: Step, folders: Mapping[str, Path], work: Work, held: Held) -> None:
    try:
        _run(step, folders, work, held)
    except (claims.Lost, Paused):
        raise
    except Exception:
        held.check()  # or what went wrong is that another has the folder now
        raise


def _run(step: Step, folders: Mapping[str, Path], work: Work, held: Held) -> None:
    pipeline = work.pipeline
    with quietly():
        import_module("tfedge.networks.backend")
    data = work.open_data()
    record: dict[str, Any] = {"recipe": step.recipe, "versions": store.versions()}
    started = time.perf_counter()
    if step.why == FRESH:
        store.discard_partial(step.folder, held.rights[0])
    with store.finished(step.folder, record, held.rights[0]) as out:
        if held.loan and step.why != FRESH:
            held.loan.begin(out)
        about = About.read(folders[step.inputs["of"]]) if "of" in step.inputs else None
        job = Job(
            name=step.name,
            out=out,
            scratch=out / store.SCRATCH,
            inputs={setting: folders[source] for setting, source in step.inputs.items()},
            data=about.view(data) if about else data,
            augment=pipeline.source.augmentations(),
            seed=pipeline.seed,
            code=[ref for stage in pipeline.stages.values() for ref in settings.refs_of(stage)],
            progress=work.progress,
            made_by={
                "tfedge": importlib.metadata.version("tfedge"),
                "pipeline": pipeline.name,
                "stage": step.name,
                "key": step.key,
            },
            pipeline_mean=data.mean,
            pipeline_std=data.std,
            logs=work.logs and work.logs / step.name,
            lessons=step.folder.parent / LESSONS / store.key_of(step.recipe["data"])[:16],
            watch=_watch(work, held, out),
            untrained=work.untrained,
        )
        ours = type(step.stage) in STAGES.values()
        where = f"{pipeline.file.name} [{step.name}]"
        _check_ahead(step, pipeline, job)
        try:
            with nullcontext() if ours else blaming(Path(inspect.getfile(type(step.stage)))):
                figures = step.stage.run(job)
        except UserError as error:
            raise error.within(where) from error.__cause__
        record["figures"] = _checked(figures, step.stage, out, where)
        record["seconds"] = round(time.perf_counter() - started, 1)
    told = ladder.brief(record["figures"])
    work.progress.say(f"{step.name:12} done   {record['seconds']} s  {told}")


def _watch(work: Work, held: Held, out: Path) -> Callable[[int, dict[str, float]], None]:
    def watch(epochs: int, row: dict[str, float]) -> None:
        held.check()  # who has lost the stage gives up here, rather than at its end
        if held.loan:
            held.loan.keep(out)
        if work.watch:
            work.watch(epochs, row)

    return watch


def _check_ahead(step: Step, pipeline: Pipeline, job: Job) -> None:
    """Have stages refuse what a builder's network is before it is trained, rather than after.

    Asked are those with a method ``check_network(network)`` whose `of` is that very stage.
    """
    builder = getattr(step.stage, "model", None)
    behind = {
        name: stage
        for name, stage in pipeline.stages.items()
        if hasattr(stage, "check_network") and settings.inputs_of(stage).get("of") == step.name
    }
    if not isinstance(builder, Ref) or not behind or not hasattr(step.stage, "options"):
        return
    try:
        network = job.construct(builder, step.stage.options)
    except UserError as error:
        raise error.within(f"{pipeline.file.name} [{step.name}]") from error.__cause__
    for name, stage in behind.items():
        try:
            stage.check_network(network)
        except UserError as error:
            raise error.within(f"{pipeline.file.name} [{name}]") from error.__cause__


def _checked(figures: Any, stage: Stage, out: Path, where: str) -> dict[str, Any]:
    """Refuse what a stage of the user's own left that no report or later stage could read."""
    try:
        figures = json.loads(json.dumps(figures, default=lambda number: number.item()))
    except (TypeError, ValueError, AttributeError) as error:
        fix = "return a dictionary of numbers, texts and lists"
        raise UserError(where, f"run() returned what is no JSON: {error}", fix) from None
    if not isinstance(figures, dict):
        raise UserError(where, f"run() returned {figures!r}", "return a dictionary of figures")
    makes = kinds.makes(stage)
    wanted = (dict.fromkeys(kinds.NETWORKS, MODEL) | {"tflite": TFLITE}).get(makes)
    if wanted and not (out / wanted).is_file():
        fix = f"write job.out / {wanted!r}; job.save(model) does for a network"
        raise UserError(where, f"makes a {makes}, but there is no {wanted}", fix)
    return figures
