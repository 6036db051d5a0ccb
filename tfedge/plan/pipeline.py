"""Plan a pipeline, build it, report it; `reading` reads its file."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tfedge.boards import host, measured
from tfedge.errors import UserError, did_you_mean
from tfedge.plan import kinds, publishing, settings, store, targets
from tfedge.plan.about import About
from tfedge.plan.job import FLOAT, LESSONS, MODEL, TFLITE, Job, Stage
from tfedge.plan.reading import Pipeline as Pipeline
from tfedge.plan.reading import load as load
from tfedge.plan.refs import Ref, blaming
from tfedge.plan.stages import STAGES
from tfedge.progress import Progress, quietly
from tfedge.report import ladder

FRESH = "--fresh"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class Step:
    """A stage in its place.

    Attributes:
      folder: ``build/<pipeline>/<name>-<first 8 digits of the recipe's key>``.
      inputs: The stage that each Input setting names.
      recipe: Everything that decides what the stage makes.
      why: The reason to run it; empty if `folder` is finished.
    """

    name: str
    stage: Stage
    folder: Path
    inputs: dict[str, str]
    recipe: dict[str, Any]
    why: str

    @property
    def key(self) -> str:
        """The recipe's hash, 64 hex digits."""
        return store.key_of(self.recipe)


def plan(
    pipeline: Pipeline, root: Path, *, fresh: bool = False, data: dict[str, Any] | None = None
) -> list[Step]:
    """Work out each stage's folder, and whether it must run, without running any.

    A recipe holds the keys of its inputs' recipes, not hashes of their files.  So the whole plan is
    known at once, and a training that never repeats bit for bit still has one name.

    Args:
      fresh: Plan to run every stage, finished or not.
      data: What stands for the data, where that is known: to look through a folder takes a while.
    """
    keys: dict[str, str] = {}
    steps = []
    data = data or pipeline.source.recipe(root)
    for name, stage in pipeline.stages.items():
        inputs = settings.inputs_of(stage)
        upstream = {setting: keys[source] for setting, source in inputs.items()}
        recipe = store.recipe_of(stage, upstream, data, pipeline.seed)
        keys[name] = store.key_of(recipe)
        folder = root / pipeline.name / f"{name}-{keys[name][:8]}"
        why = store.reasons(folder, inputs, recipe) if store.damage(folder) else ""
        steps.append(Step(name, stage, folder, inputs, recipe, FRESH if fresh else why))
    return steps


def build(
    pipeline: Pipeline,
    root: Path,
    progress: Progress,
    *,
    until: str = "",
    fresh: bool = False,
    tensorboard: bool = False,
) -> list[Step]:
    """Run what the plan says must run, in the order of the file, and write the report.

    Args:
      until: The last stage to run; all if empty.
      fresh: Run every stage again, finished or not.
      tensorboard: Let trainings write events, below ``build/<pipeline>/tensorboard``.
    """
    if until in pipeline.skipped:
        fix = f"write --until {pipeline.skipped[until]}, which stands in for it"
        raise UserError("--until", f"{until!r} is skipped", fix)
    if until and until not in pipeline.stages:
        fix = did_you_mean(until, pipeline.stages)
        raise UserError("--until", f"{until!r} is no stage of {pipeline.file.name}", fix)
    steps = []
    data = None
    with store.locked(root / pipeline.name):
        recipe = pipeline.source.recipe(root)
        for step in plan(pipeline, root, fresh=fresh, data=recipe):
            steps.append(step)
            if step.why:
                progress.say(f"{step.name:12} runs   {step.why}")
                data = data or pipeline.source.open(root, progress)
                logs = root / pipeline.name / TENSORBOARD / step.name if tensorboard else None
                _run(step, pipeline, {s.name: s.folder for s in steps}, data, progress, logs)
            else:
                progress.say(f"{step.name:12} kept   {step.folder}")
            if step.name == until:
                break
        _publish(pipeline, root, recipe, progress)
    return steps


def report(
    pipeline: Pipeline, root: Path, progress: Progress, *, write: bool = False
) -> dict[str, Any]:
    """Gather the figures of every finished stage, of this machine, and of boards.

    What this machine has not measured yet of these files, it measures now.

    Args:
      write: Write the report's files anew, too.
    """
    steps = plan(pipeline, root)
    found = _report(pipeline, root, steps, progress)
    if write and found["stages"]:
        publishing.tell(_with_files(steps), root / pipeline.name, found, anew=True)
    return found


def result(pipeline: Pipeline, root: Path) -> Path:
    """Say where the pipeline's last .tflite is put."""
    return root / pipeline.name / f"{pipeline.name}.tflite"


def model_of(file: Path, root: Path) -> Path:
    """Return a .tflite as it is, and for a pipeline's file what its build has made."""
    if file.suffix != ".toml":
        return file
    made = result(load(file), root)
    if not made.is_file():
        fix = f"run: tfedge build {file} --build-dir {root}"
        raise UserError(file, f"has made no {made} yet", fix)
    return made


def _run(
    step: Step,
    pipeline: Pipeline,
    folders: Mapping[str, Path],
    data: Any,
    progress: Progress,
    logs: Path | None,
) -> None:
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


def _report(
    pipeline: Pipeline, root: Path, steps: Sequence[Step], progress: Progress
) -> dict[str, Any]:
    folder = root / pipeline.name
    files = {
        step.name: file
        for step in steps
        for file in (step.folder / TFLITE, step.folder / FLOAT)
        if not step.why and file.is_file()
    }
    here = host.figures(folder, files, progress) if files else {}
    told = ladder.report_of(pipeline.name, _records(steps), measured.figures(folder), here)
    if pipeline.targets:
        folders = {step.name: step.folder for step in steps if not step.why}
        place = "" if root == Path("build") else f" --build-dir {root}"
        command = f"{pipeline.file}{place}"
        told["targets"] = targets.judge(pipeline.targets, told, folders, command, progress)
    return told


def _publish(pipeline: Pipeline, root: Path, data: dict[str, Any], progress: Progress) -> None:
    """Put the last .tflite and the report where a user looks for them."""
    steps = [step for step in plan(pipeline, root, data=data) if not step.why]
    report = _report(pipeline, root, steps, progress)
    publishing.publish(_with_files(steps), result(pipeline, root), report)


def _with_files(steps: Sequence[Step]) -> list[Path]:
    """Return the folders of the finished stages that make a .tflite."""
    made = [step for step in steps if getattr(step.stage, "makes", "") == "tflite"]
    return [step.folder for step in made if not step.why]


def _records(steps: Sequence[Step]) -> Iterator[dict[str, Any]]:
    for step in steps:
        record = None if step.why else store.read_record(step.folder)
        if record:
            use = next((use for use, kind in STAGES.items() if type(step.stage) is kind), "")
            use = use or type(step.stage).__qualname__
            base = step.inputs.get("of") or step.inputs.get("teacher", "")
            yield {"name": step.name, "use": use, "of": base, "key": step.key} | record


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
