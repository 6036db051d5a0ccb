"""Commands about a .tflite file: measure it, compare it, look into it, give it its card back."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tfedge import progress
from tfedge.cli.options import BUILD_DIR, JSON, PATH, SET, read
from tfedge.errors import UserError


@click.command()
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


@click.command()
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
@click.option("--custom", metavar="FILE.py:NAME", help="A layer of yours that FLOAT needs.")
@click.option("--trust", is_flag=True, help="Run code that FLOAT holds, such as a Lambda's.")
@SET
@BUILD_DIR
@JSON
def compare(
    float_: Path,
    int8: Path,
    data: Path,
    count: int,
    plot: Path | None,
    custom: str | None,
    *,
    trust: bool,
    changes: tuple[str, ...],
    build_dir: Path,
    as_json: bool,
) -> None:
    """Say in which layers INT8.tflite lost what the FLOAT network knew, the worst first.

    FLOAT is the same network before it was quantised: the model.h5 of its convert stage's build
    folder (after equalisation no other will do), the Keras file that was imported, or a .tflite in
    float32.
    """
    from tfedge import paths
    from tfedge.plan import comparing
    from tfedge.plan.refs import Ref
    from tfedge.report import comparison

    if plot and not plot.absolute().parent.is_dir():
        raise UserError(plot, "its folder does not exist", f"make it first: mkdir {plot.parent}")
    layer = Ref.parse(custom, Path.cwd(), "--custom") if custom else None
    found = comparing.compare(
        comparing.Files(float_, int8, layer, trust),
        data,
        progress.terminal(),
        count=count,
        changes=changes,
        build_dir=build_dir,
    )
    if plot:
        paths.replace(plot, comparison.plot(found))
    click.echo(json.dumps(found, indent=1) if as_json else comparison.table(found))


@click.command()
@click.argument("model", type=PATH)
@JSON
def inspect(model: Path, *, as_json: bool) -> None:
    """Say what is in MODEL.tflite: card, operators with versions, tensors, bytes, MACs, zeros.

    The arena is the memory of the activations: as planned from the file, and as this machine's
    runtime lays it out, with what TFLite's own kernels need beside.
    """
    from tfedge.boards import host
    from tfedge.tflite import inspection
    from tfedge.tflite.facts import facts

    content = read(model)
    facts(content, model)  # what cannot be read is not for the runtime either
    (found,) = host.measure([model], rounds=0)
    if as_json:
        click.echo(json.dumps(inspection.as_json(content, model, found), indent=1))
    else:
        click.echo(inspection.describe(content, model, found))


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--from", "original", required=True, type=PATH, help="The .tflite that still has its card."
)
def attach(model: Path, original: Path) -> None:
    """Put the card of another file into MODEL, which lost its own (edgetpu_compiler drops it)."""
    from tfedge import paths
    from tfedge.tflite import card

    content = card.transplant(read(model), read(original), model, original)
    paths.replace(model, content)
    click.echo(f"{model}: has the card of {original}")
