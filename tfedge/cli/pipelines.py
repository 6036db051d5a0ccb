"""Commands about a pipeline: start one, plan it, build it, report what it made."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import click

from tfedge import progress
from tfedge.cli.options import BUILD_DIR, JSON, PATH, SET, STORE
from tfedge.errors import CheckError, UserError


@click.command()
@click.argument("file", type=PATH)
@click.option("--until", default="", metavar="STAGE", help="Stop after this stage.")
@click.option("--fresh", is_flag=True, help="Run every stage again, finished or not.")
@STORE
@click.option("--tensorboard", is_flag=True, help="Write trainings' curves for TensorBoard, live.")
@SET
@BUILD_DIR
@JSON
def build(
    file: Path,
    until: str,
    *,
    store: str,
    fresh: bool,
    tensorboard: bool,
    changes: tuple[str, ...],
    build_dir: Path,
    as_json: bool,
) -> None:
    """Run the stages of a pipeline FILE that are not built yet or have changed.

    A stopped build goes on where it was: finished stages are kept, and a training goes on after
    its last epoch.  With --store, machines that have no folder in common make each stage once: it
    is looked for there first, and put there when it is finished, and so is a training's state after
    each epoch.

    Where a stage has strategy = "multi_worker", run the same command on each machine, with a
    TF_CONFIG of its own and a build folder that all of them see: docs/cluster.md.

    It ends with a verdict on each target of FILE; one that is missed makes it exit with 1.
    """
    from tfedge.plan import following, meeting, pipeline
    from tfedge.plan.shelf import open_shelf
    from tfedge.report import ladder, targets
    from tfedge.training import team

    loaded = pipeline.load(file, changes)
    spread = any(map(meeting.is_spread, loaded.stages.values()))
    if fresh and spread:
        problem = "other processes could not tell what is finished anew from what was before"
        raise UserError("--fresh", problem, "remove the stages' folders instead")
    if spread and not team.member().is_chief:
        following.follow(loaded, build_dir, progress.terminal(), until=until)
        return
    if tensorboard:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("--tensorboard", "needs tensorboard", "run: pip install tensorboard")
        place = build_dir / loaded.name / pipeline.TENSORBOARD
        progress.terminal().say(f"tensorboard  watch with: tensorboard --logdir {place}")
    pipeline.build(
        loaded,
        build_dir,
        progress.terminal(),
        until=until,
        fresh=fresh,
        tensorboard=tensorboard,
        shelf=open_shelf(store) if store else None,
    )
    result = pipeline.result(loaded, build_dir)
    report = json.loads(result.with_name("report.json").read_text("utf-8"))
    click.echo(json.dumps(report, indent=1) if as_json else ladder.table(report))
    if result.is_file() and not as_json:
        click.echo(f"\n{result}")
    if missed := targets.missed(report):
        of = f"{len(missed)} of {len(report['targets'])} missed"
        raise CheckError(f"{file.name} [targets]", f"{of}: {', '.join(missed)}")


@click.command()
@click.argument("file", type=PATH)
@SET
@BUILD_DIR
@JSON
def plan(file: Path, changes: tuple[str, ...], build_dir: Path, *, as_json: bool) -> None:
    """Say what a build of FILE would run, and why, and what it is to keep to."""
    from tfedge.plan import pipeline
    from tfedge.plan.targets import foreseen
    from tfedge.report import targets

    loaded = pipeline.load(file, changes)
    for step in pipeline.plan(loaded, build_dir):
        if as_json:
            row = {"stage": step.name, "run": bool(step.why), "why": step.why, "key": step.key}
            click.echo(json.dumps(row | {"folder": str(step.folder)}))
        else:
            click.echo(
                f"{step.name:12} {'run ' if step.why else 'keep'}  {step.why or step.folder}"
            )
    for name, instead in loaded.skipped.items():
        if not as_json:
            click.echo(f"{name:12} skip  {instead} stands in for it")
    for one in foreseen(loaded.targets) if loaded.targets else ():
        click.echo(json.dumps(one) if as_json else targets.wish(one))


@click.command()
@click.argument("names", nargs=-1)
@JSON
def stages(names: tuple[str, ...], *, as_json: bool) -> None:
    """Print the manual: what a pipeline's tables may hold (of NAMES only, if given)."""
    from tfedge.errors import did_you_mean
    from tfedge.plan.manual import entries
    from tfedge.report import manual

    known = entries()
    for name in names:
        if name not in known:
            raise UserError("stages", f"there is no {name!r}", did_you_mean(name, known))
    chosen = {name: known[name] for name in names or known}
    click.echo(json.dumps(manual.as_json(chosen), indent=1) if as_json else manual.text(chosen))


@click.command()
@click.argument("folder", type=PATH)
@click.option("--photos", default="photos", show_default=True, help="Folder with a folder a class.")
def new(folder: Path, photos: str) -> None:
    """Make FOLDER with a commented pipeline for your own photos, and a README that explains it."""
    from tfedge.plan import starting

    for line in starting.start(folder, photos):
        click.echo(line)


@click.command()
@click.argument("file", type=PATH)
@click.option("--open", "opened", is_flag=True, help="Write report.html anew and open it.")
@SET
@BUILD_DIR
@JSON
def report(
    file: Path, changes: tuple[str, ...], build_dir: Path, *, opened: bool, as_json: bool
) -> None:
    """Print the ladder of FILE's finished stages: accuracy, bytes, MACs, milliseconds, memory.

    Milliseconds and memory are this machine's, of all files in turn; they are measured once.  Where
    FILE has targets, a verdict on each stands below.  With pictures it is report.html, beside the
    .tflite, which each build writes where matplotlib and jinja2 are: pip install 'tfedge[report]'.
    """
    from tfedge.plan import pipeline, publishing
    from tfedge.report import ladder, page

    if opened and (lacking := page.missing()):
        raise UserError("--open", f"needs {' and '.join(lacking)}", f"run: {page.INSTALL}")
    loaded = pipeline.load(file, changes)
    found = pipeline.report(loaded, build_dir, progress.terminal(), write=opened)
    if not found["stages"]:
        fix = f"run: tfedge build {file}; and what was built with --set is reported with it"
        raise UserError(file, "no stage of these settings is built yet", fix)
    click.echo(json.dumps(found, indent=1) if as_json else ladder.table(found))
    if opened:
        shown = pipeline.result(loaded, build_dir).with_name(publishing.PAGE).resolve()
        click.echo(f"\n{shown}", err=as_json)
        click.launch(str(shown))
