"""Plan a pipeline, build it, report it; `reading` reads its file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tfedge.boards import host, measured
from tfedge.errors import UserError, did_you_mean
from tfedge.plan import publishing, running, settings, store, targets
from tfedge.plan.job import FLOAT, TFLITE
from tfedge.plan.meeting import meet
from tfedge.plan.reading import load as load
from tfedge.plan.shelf import Shelf
from tfedge.plan.stages import STAGES
from tfedge.plan.steps import FRESH, Pipeline, Step
from tfedge.progress import Progress
from tfedge.report import ladder, searched

TENSORBOARD = "tensorboard"
SEARCH = "search.json"
"""What `tfedge search` found, beside its stages' folders."""


def plan(
    pipeline: Pipeline,
    root: Path,
    *,
    fresh: bool = False,
    data: dict[str, Any] | None = None,
    compared: bool = True,
) -> list[Step]:
    """Work out each stage's folder, and whether it must run, without running any.

    A recipe holds the keys of its inputs' recipes, not hashes of their files.  So the whole plan is
    known at once, and a training that never repeats bit for bit still has one name.

    Args:
      fresh: Plan to run every stage, finished or not.
      data: What stands for the data, where that is known: to look through a folder takes a while.
      compared: Say of a stage that must run how it differs from what was built last, for which all
        records of that stage are read.
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
        why = store.damage(folder)
        if why and compared:
            why = store.reasons(folder, inputs, recipe)
        steps.append(Step(name, stage, folder, inputs, recipe, FRESH if fresh else why))
    return steps


def upto(pipeline: Pipeline, until: str) -> list[str]:
    """Name the stages up to the one called `until`; all if it is empty."""
    names = list(pipeline.stages)
    if until in pipeline.skipped:
        fix = f"write --until {pipeline.skipped[until]}, which stands in for it"
        raise UserError("--until", f"{until!r} is skipped", fix)
    if until and until not in names:
        fix = did_you_mean(until, names)
        raise UserError("--until", f"{until!r} is no stage of {pipeline.file.name}", fix)
    return names[: names.index(until) + 1] if until else names


def build(  # noqa: PLR0913 - an argument an option of the command's
    pipeline: Pipeline,
    root: Path,
    progress: Progress,
    *,
    until: str = "",
    fresh: bool = False,
    tensorboard: bool = False,
    shelf: Shelf | None = None,
) -> list[Step]:
    """Run what the plan says must run, in the order of the file, and write the report.

    Args:
      until: The last stage to run; all if empty.
      fresh: Run every stage again, finished or not.
      tensorboard: Let trainings write events, below ``build/<pipeline>/tensorboard``.
      shelf: Take from there what other machines have made, and put there what is made here.
    """
    wanted, steps = upto(pipeline, until), []
    work = running.Work(
        pipeline,
        cache(lambda: pipeline.source.open(root, progress)),
        progress,
        logs=root / pipeline.name / TENSORBOARD if tensorboard else None,
        shelf=shelf,
    )
    with store.locked(root / pipeline.name):
        recipe = pipeline.source.recipe(root)
        planned = plan(pipeline, root, fresh=fresh, data=recipe)[: len(wanted)]
        meet([step for step in planned if step.why], pipeline.file.name, progress.say)
        for step in planned:
            steps.append(step)
            if step.why:
                progress.say(f"{step.name:12} runs   {step.why}")
                running.run_step(step, {s.name: s.folder for s in steps}, work)
            else:
                progress.say(f"{step.name:12} kept   {step.folder}")
                if shelf:
                    shelf.put(step.folder)
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
    if (folder / SEARCH).is_file():
        told[searched.KEY] = json.loads((folder / SEARCH).read_text("utf-8"))
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
