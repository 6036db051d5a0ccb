"""Run one step of a plan, and keep what it made."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from tfedge.errors import UserError
from tfedge.plan import kinds, settings, store
from tfedge.plan.about import About
from tfedge.plan.job import LESSONS, MODEL, TFLITE, Job, Stage
from tfedge.plan.refs import Ref, blaming
from tfedge.plan.stages import STAGES
from tfedge.plan.steps import FRESH, Pipeline, Step
from tfedge.progress import Progress, quietly
from tfedge.report import ladder


def run(
    step: Step,
    pipeline: Pipeline,
    folders: Mapping[str, Path],
    data: Any,
    progress: Progress,
    logs: Path | None,
) -> None:
    """Make the folder of `step`, whether it is finished or not.

    Args:
      folders: Of the stages above it, by their names.
      data: The pipeline's, a `tfedge.data.dataset.Data`.
      logs: Folder for TensorBoard's events; None if nobody wants them.
    """
    with quietly():
        import_module("tfedge.networks.backend")
    record: dict[str, Any] = {"recipe": step.recipe, "versions": _versions()}
    started = time.perf_counter()
    if step.why == FRESH:
        store.discard_partial(step.folder)
    with store.finished(step.folder, record) as out:
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
            progress=progress,
            made_by={
                "tfedge": importlib.metadata.version("tfedge"),
                "pipeline": pipeline.name,
                "stage": step.name,
                "key": step.key,
            },
            pipeline_mean=data.mean,
            pipeline_std=data.std,
            logs=logs,
            lessons=step.folder.parent / LESSONS / store.key_of(step.recipe["data"])[:16],
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
    progress.say(f"{step.name:12} done   {record['seconds']} s  {ladder.brief(record['figures'])}")


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


def _versions() -> dict[str, str]:
    names = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy")
    return {name: importlib.metadata.version(name) for name in names}
