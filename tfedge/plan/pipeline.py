"""Read a pipeline file, plan it, build it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import json
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from tfedge.boards import host, measured
from tfedge.declarations import setting
from tfedge.errors import UserError, did_you_mean
from tfedge.plan import kinds, publishing, settings, sources, store, targets
from tfedge.plan.about import About
from tfedge.plan.job import FLOAT, LESSONS, MODEL, TFLITE, Job, Stage
from tfedge.plan.meeting import meet
from tfedge.plan.refs import Ref, blaming
from tfedge.plan.stages import STAGES
from tfedge.progress import Progress, quietly
from tfedge.report import ladder
from tfedge.report.targets import Targets

FRESH = "--fresh"
TENSORBOARD = "tensorboard"
RESERVED = ("data", "settings", "targets")


@dataclass(frozen=True)
class General:
    """The [settings] table: what holds for the whole pipeline."""

    seed: int = setting(0, "decides every random choice", low=0, high=2**31 - 1)
    name: str = setting("", "of the folder and the file that are built; the pipeline file's own")


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file, checked: its refs exist, and its settings have their types and ranges."""

    name: str
    file: Path
    source: sources.Source
    seed: int
    stages: dict[str, Stage]
    targets: Targets | None = None


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


def upto(pipeline: Pipeline, until: str) -> list[str]:
    """Name the stages up to the one called `until`; all if it is empty."""
    names = list(pipeline.stages)
    if until and until not in names:
        fix = did_you_mean(until, names)
        raise UserError("--until", f"{until!r} is no stage of {pipeline.file.name}", fix)
    return names[: names.index(until) + 1] if until else names


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
    wanted, steps = upto(pipeline, until), []
    data = None
    with store.locked(root / pipeline.name):
        recipe = pipeline.source.recipe(root)
        planned = plan(pipeline, root, fresh=fresh, data=recipe)[: len(wanted)]
        meet([step for step in planned if step.why], pipeline.file.name, progress.say)
        for step in planned:
            steps.append(step)
            if step.why:
                progress.say(f"{step.name:12} runs   {step.why}")
                data = data or pipeline.source.open(root, progress)
                logs = root / pipeline.name / TENSORBOARD / step.name if tensorboard else None
                run(step, pipeline, {s.name: s.folder for s in steps}, data, progress, logs)
            else:
                progress.say(f"{step.name:12} kept   {step.folder}")
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


def run(
    step: Step,
    pipeline: Pipeline,
    folders: Mapping[str, Path],
    data: Any,
    progress: Progress,
    logs: Path | None,
) -> None:
    """Run a stage into its folder; `folders` are those of the stages above it, by name."""
    with quietly():
        import_module("tfedge.networks.backend")
    record: dict[str, Any] = {"recipe": step.recipe, "versions": store.versions()}
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
