"""The command line."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tfedge import progress
from tfedge.errors import CheckError, UserError

PATH = click.Path(path_type=Path)
BUILD_DIR = click.option(
    "--build-dir", type=PATH, default="build", show_default=True, help="Folder for all results."
)
SET = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="STAGE.SETTING=VALUE",
    help="Take this in place of what the file says; may be repeated.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
INTERRUPTED = 130
NO_ROOM = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
)
"""What a disk or a path of the user's can be wrong in."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(importlib.metadata.version("tfedge"))
def cli() -> None:
    """Train, shrink and ship Keras models to TFLite devices.

    Start with `tfedge new my_photos`, then `tfedge build my_photos/pipeline.toml`.
    """


@cli.command()
@click.argument("file", type=PATH)
@click.option("--until", default="", metavar="STAGE", help="Stop after this stage.")
@click.option("--fresh", is_flag=True, help="Run every stage again, finished or not.")
@SET
@BUILD_DIR
@JSON
def build(
    file: Path,
    until: str,
    *,
    fresh: bool,
    changes: tuple[str, ...],
    build_dir: Path,
    as_json: bool,
) -> None:
    """Run the stages of a pipeline FILE that are not built yet or have changed.

    A stopped build goes on where it was: finished stages are kept, and a training goes on after
    its last epoch.
    """
    from tfedge.plan import pipeline
    from tfedge.report import ladder

    loaded = pipeline.load(file, changes)
    pipeline.build(loaded, build_dir, progress.terminal(), until=until, fresh=fresh)
    result = pipeline.result(loaded, build_dir)
    report = json.loads(result.with_name("report.json").read_text("utf-8"))
    click.echo(json.dumps(report, indent=1) if as_json else ladder.table(report))
    if result.is_file() and not as_json:
        click.echo(f"\n{result}")


@cli.command()
@click.argument("file", type=PATH)
@SET
@BUILD_DIR
@JSON
def plan(file: Path, changes: tuple[str, ...], build_dir: Path, *, as_json: bool) -> None:
    """Say what a build of FILE would run, and why."""
    from tfedge.plan import pipeline

    for step in pipeline.plan(pipeline.load(file, changes), build_dir):
        if as_json:
            row = {"stage": step.name, "run": bool(step.why), "why": step.why, "key": step.key}
            click.echo(json.dumps(row | {"folder": str(step.folder)}))
        else:
            click.echo(
                f"{step.name:12} {'run ' if step.why else 'keep'}  {step.why or step.folder}"
            )


@cli.command()
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


@cli.command()
@click.argument("folder", type=PATH)
@click.option("--photos", default="photos", show_default=True, help="Folder with a folder a class.")
def new(folder: Path, photos: str) -> None:
    """Make FOLDER with a commented pipeline for your own photos, and a README that explains it."""
    from tfedge.plan import starting

    for line in starting.start(folder, photos):
        click.echo(line)


@cli.command()
@click.argument("model", type=PATH)
@click.option(
    "--data", required=True, type=PATH, help="Folder of photos by class, .npz, or pipeline file."
)
@SET
@BUILD_DIR
@JSON
def evaluate(
    model: Path, data: Path, changes: tuple[str, ...], build_dir: Path, *, as_json: bool
) -> None:
    """Measure MODEL.tflite on data, by the board's own script.

    Of a pipeline file the test split is taken; of a folder or an .npz its test part if it has one,
    else everything, be it what the model was trained on.
    """
    from tfedge.plan import measuring
    from tfedge.report import ladder

    test = measuring.evaluate(
        model, data, progress.terminal(), changes=changes, build_dir=build_dir
    )
    click.echo(json.dumps(test, indent=1) if as_json else ladder.evaluation(test))


@cli.command()
@click.argument("float_", metavar="FLOAT", type=PATH)
@click.argument("int8", type=PATH)
@click.option(
    "--data", required=True, type=PATH, help="Folder of photos by class, .npz, or pipeline file."
)
@click.option(
    "--count",
    default=32,
    show_default=True,
    type=click.IntRange(1),
    help="Inputs that the layers are compared on.",
)
@click.option("--plot", type=PATH, metavar="FILE.svg", help="Draw the layers into this file.")
@SET
@BUILD_DIR
@JSON
def compare(  # noqa: PLR0913 - click hands over an argument for every option
    float_: Path,
    int8: Path,
    data: Path,
    count: int,
    plot: Path | None,
    *,
    changes: tuple[str, ...],
    build_dir: Path,
    as_json: bool,
) -> None:
    """Say in which layers INT8.tflite lost what the FLOAT network knew, the worst first.

    FLOAT is the same network before it was quantised: a .tflite in float32, the Keras file that was
    imported, or the model.h5 beside INT8 in its build folder.
    """
    from tfedge import paths
    from tfedge.plan import comparing
    from tfedge.report import comparison

    found = comparing.compare(
        (float_, int8),
        data,
        progress.terminal(),
        count=count,
        changes=changes,
        build_dir=build_dir,
    )
    if plot:
        paths.replace(plot, comparison.plot(found))
    click.echo(json.dumps(found, indent=1) if as_json else comparison.table(found))


@cli.command()
@click.argument("model", type=PATH)
@JSON
def inspect(model: Path, *, as_json: bool) -> None:
    """Say what is in MODEL.tflite: card, operators with versions, tensors, bytes, MACs, zeros."""
    from tfedge.tflite import inspection

    content = _read(model)
    if as_json:
        click.echo(json.dumps(inspection.as_json(content, model), indent=1))
    else:
        click.echo(inspection.describe(content, model))


@cli.command()
@click.argument("file", type=PATH)
@SET
@BUILD_DIR
@JSON
def report(file: Path, changes: tuple[str, ...], build_dir: Path, *, as_json: bool) -> None:
    """Print the ladder of FILE's finished stages: accuracy, bytes, MACs, seconds."""
    from tfedge.plan import pipeline
    from tfedge.report import ladder

    found = pipeline.report(pipeline.load(file, changes), build_dir)
    if not found["stages"]:
        fix = f"run: tfedge build {file}; and what was built with --set is reported with it"
        raise UserError(file, "no stage of these settings is built yet", fix)
    click.echo(json.dumps(found, indent=1) if as_json else ladder.table(found))


@cli.command()
@click.argument("model", type=PATH)
@click.option(
    "--from", "original", required=True, type=PATH, help="The .tflite that still has its card."
)
def attach(model: Path, original: Path) -> None:
    """Put the card of another file into MODEL, which lost its own (edgetpu_compiler drops it)."""
    from tfedge import paths
    from tfedge.tflite import card

    content = card.transplant(_read(model), _read(original), model, original)
    paths.replace(model, content)
    click.echo(f"{model}: has the card of {original}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 if it did its work, 1 if a check failed, 2 for a user's mistake."""
    # TensorFlow's own log is for its developers, and has to be silenced before it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        status: Any = cli(list(arguments) if arguments is not None else None, standalone_mode=False)
    except UserError as error:
        click.echo(f"tfedge: {error}", err=True)
        return 1 if isinstance(error, CheckError) else 2
    except click.ClickException as error:
        error.show()
        return 2
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        fix = "finished stages are kept; the same command goes on when that is mended"
        click.echo(f"tfedge: {error.filename or 'the disk'}: {error.strerror}\n  {fix}", err=True)
        return 2
    except click.Abort:
        click.echo("tfedge: stopped; the same command goes on after the last epoch", err=True)
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(file, error.strerror or str(error)) from None
