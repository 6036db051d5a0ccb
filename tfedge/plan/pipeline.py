"""Read a pipeline file, plan it, build it."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from tfedge.boards import host, measured
from tfedge.declarations import setting
from tfedge.errors import UserError, did_you_mean
from tfedge.plan import kinds, publishing, running, settings, sources, store, targets
from tfedge.plan.job import FLOAT, TFLITE, Stage
from tfedge.plan.refs import Ref
from tfedge.plan.shelf import Shelf
from tfedge.plan.stages import STAGES
from tfedge.plan.steps import FRESH, Pipeline, Step
from tfedge.progress import Progress
from tfedge.report import ladder

TENSORBOARD = "tensorboard"
RESERVED = ("data", "settings", "targets")


@dataclass(frozen=True)
class General:
    """The [settings] table: what holds for the whole pipeline."""

    seed: int = setting(0, "decides every random choice", low=0, high=2**31 - 1)
    name: str = setting("", "of the folder and the file that are built; the pipeline file's own")


def load(file: Path, changes: Sequence[str] = ()) -> Pipeline:
    """Read `file`; every mistake in it is a UserError that names the table and the key.

    Args:
      changes: Settings that take the place of the file's, as ``stage.setting=value``.
    """
    tables = _tables(file)
    for change in changes:
        _change(tables, change)
    where = f"{file.name} [settings]"
    general: General = settings.read(General, tables.pop("settings", {}), where, file.parent)
    if general.name:
        _check_name(general.name, f"{where} name")
    if "data" not in tables:
        raise UserError(file, "has no [data] table", 'write [data] with use = "folder"')
    source = sources.read(tables.pop("data"), f"{file.name} [data]", file.parent)
    wanted = tables.pop("targets", None)
    stages: dict[str, Stage] = {}
    for name, table in tables.items():
        _check_name(name, f"{file.name} [{name}]")
        stages[name] = _stage(table, f"{file.name} [{name}]", file.parent, above=stages)
    if not stages:
        raise UserError(file, "has no stages", f"add a table with use = one of {', '.join(STAGES)}")
    kept_to = None if wanted is None else targets.read(wanted, f"{file.name} [targets]", stages)
    return Pipeline(general.name or file.stem, file, source, general.seed, stages, kept_to)


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
    if until and until not in pipeline.stages:
        fix = did_you_mean(until, pipeline.stages)
        raise UserError("--until", f"{until!r} is no stage of {pipeline.file.name}", fix)
    steps = []
    work = running.Work(
        pipeline,
        cache(lambda: pipeline.source.open(root, progress)),
        progress,
        logs=root / pipeline.name / TENSORBOARD if tensorboard else None,
        shelf=shelf,
    )
    with store.locked(root / pipeline.name):
        recipe = pipeline.source.recipe(root)
        for step in plan(pipeline, root, fresh=fresh, data=recipe):
            steps.append(step)
            if step.why:
                progress.say(f"{step.name:12} runs   {step.why}")
                running.run_step(step, {s.name: s.folder for s in steps}, work)
            else:
                progress.say(f"{step.name:12} kept   {step.folder}")
                if shelf:
                    shelf.put(step.folder)
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


def _tables(file: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(file, getattr(error, "strerror", None) or str(error)) from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            fix = "every setting stands in a table: [data], [settings], [targets] or a stage's"
            raise UserError(file, f"unknown setting {name!r}", fix)
    return tables


def _change(tables: dict[str, Any], change: str) -> None:
    """Apply one --set."""
    place, sign, text = change.partition("=")
    table, dot, key = place.strip().partition(".")
    if not (sign and dot and key):
        raise UserError("--set", f"cannot read {change!r}", "write --set stage.setting=value")
    if table not in tables and table not in RESERVED:
        known = sorted({*tables, *RESERVED})
        raise UserError("--set", f"there is no [{table}]", did_you_mean(table, known))
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is text
    tables.setdefault(table, {})[key] = value


def _check_name(name: str, where: str) -> None:
    if not name.replace("_", "").replace("-", "").isalnum():
        fix = "write letters, digits, - and _, because a folder gets this name"
        raise UserError(where, f"{name!r} is no name for a folder", fix)


def _stage(table: dict[str, Any], where: str, folder: Path, above: dict[str, Stage]) -> Stage:
    table = dict(table)
    use = table.pop("use", None)
    if isinstance(use, str) and ":" in use:
        kind: Any = Ref.parse(use, folder, where).load()
    elif isinstance(use, str) and use in STAGES:
        kind = STAGES[use]
    elif use is None:
        raise UserError(where, "'use' is missing", did_you_mean("", STAGES))
    else:
        raise UserError(where, f"unknown stage {use!r}", did_you_mean(str(use), STAGES))
    is_class = isinstance(kind, type) and dataclasses.is_dataclass(kind)
    if not is_class or not callable(getattr(kind, "run", None)):
        fix = "write a frozen dataclass with run(self, job)"
        raise UserError(where, f"{use!r} is no stage", fix)
    stage: Stage = settings.read(cast("type[Any]", kind), table, where, folder)
    if hasattr(stage, "check"):
        stage.check(where)
    kinds.check_inputs(stage, where, above)
    return stage
