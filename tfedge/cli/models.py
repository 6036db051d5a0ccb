"""Commands about a .tflite file: measure it, compare it, look into it, give it its card back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfedge import progress
from tfedge.cli.options import BUILD_DIR, JSON, PATH, SET, is_given, read
from tfedge.errors import UserError

if TYPE_CHECKING:
    from tfedge.plan import comparing
    from tfedge.plan import engines as of_engines


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
@click.argument("files", metavar="FLOAT INT8 | MODEL...", nargs=-1, required=True, type=PATH)
@click.option("--data", type=PATH, help="Folder of photos by class, .npz, or pipeline file.")
@click.option(
    "--count",
    default=32,
    show_default=True,
    type=click.IntRange(1),
    help="Inputs that the layers, or the engines' answers, are compared on.",
)
@click.option("--plot", type=PATH, metavar="FILE.svg", help="Draw the layers into this file.")
@click.option("--custom", metavar="FILE.py:NAME", help="A layer of yours that FLOAT needs.")
@click.option("--trust", is_flag=True, help="Run code that FLOAT holds, such as a Lambda's.")
@click.option(
    "--engines",
    metavar="NAME,...|all",
    help="Compare engines in place of layers: litert, tflite-runtime, onnxruntime, openvino, tvm,"
    " executorch; the others are held against the first.",
)
@click.option(
    "--rounds",
    default=30,
    show_default=True,
    type=click.IntRange(6),  # `turns.LEAST_ROUNDS`; that module imports scipy
    help="Turns that each engine has.",
)
@click.option(
    "--python",
    "pythons",
    multiple=True,
    metavar="ENGINE=PATH",
    help="The Python that has this engine, if another than this one; may be repeated.",
)
@SET
@BUILD_DIR
@JSON
def compare(
    files: tuple[Path, ...],
    data: Path | None,
    count: int,
    plot: Path | None,
    custom: str | None,
    engines: str | None,
    rounds: int,
    pythons: tuple[str, ...],
    *,
    trust: bool,
    changes: tuple[str, ...],
    build_dir: Path,
    as_json: bool,
) -> int:
    """Say in which layers INT8.tflite lost what the FLOAT network knew, the worst first.

    FLOAT is the same network before it was quantised: the model.h5 of its convert stage's build
    folder (after equalisation no other will do), the Keras file that was imported, or a .tflite in
    float32.

    With --engines, say what several inference engines make of each MODEL.tflite: milliseconds on
    one thread and on all, with 95 % intervals, and how far their answers differ.  They take turns
    in processes of their own; an engine that is not installed is named with its pip line.  Without
    --data the inputs are random.  The exit is 1 where no engine ran.
    """
    if engines is not None:
        _refuse(("plot", "custom", "trust"), "has no meaning with --engines")
        from tfedge.engines import known
        from tfedge.plan import engines as of_engines

        wishes = of_engines.Wishes(known.named(engines), known.pythons(pythons), count, rounds)
        return _engines(files, data, wishes, changes, build_dir, as_json=as_json)
    _refuse(("rounds", "pythons"), "has a meaning with --engines only")
    from tfedge.plan import comparing
    from tfedge.plan.refs import Ref

    exact, *others = files
    if len(others) != 1 or data is None:
        problem = f"takes FLOAT, INT8 and --data, got {len(files)} files"
        problem += "" if data else " and no --data"
        raise UserError("compare", problem, "or give --engines to compare engines on any number")
    layer = Ref.parse(custom, Path.cwd(), "--custom") if custom else None
    asked = comparing.Files(exact, others[0], layer, trust)
    settings = {"count": count, "changes": changes, "build_dir": build_dir}
    _layers(asked, data, plot, settings, as_json=as_json)
    return 0


def _refuse(names: Sequence[str], problem: str) -> None:
    for parameter in click.get_current_context().command.params:
        if parameter.name in names and is_given(parameter.name):
            raise UserError(parameter.opts[0], problem, "leave it out")


def _layers(
    asked: comparing.Files,
    data: Path,
    plot: Path | None,
    settings: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    from tfedge import paths
    from tfedge.plan import comparing
    from tfedge.report import comparison

    if plot and not plot.absolute().parent.is_dir():
        raise UserError(plot, "its folder does not exist", f"make it first: mkdir {plot.parent}")
    found = comparing.compare(asked, data, progress.terminal(), **settings)
    if plot:
        paths.replace(plot, comparison.plot(found))
    click.echo(json.dumps(found, indent=1) if as_json else comparison.table(found))


def _engines(
    files: Sequence[Path],
    data: Path | None,
    wishes: of_engines.Wishes,
    changes: Sequence[str],
    build_dir: Path,
    *,
    as_json: bool,
) -> int:
    from tfedge.plan import engines as of_engines
    from tfedge.report import engines as shown

    found = of_engines.compare(
        files, data, wishes, progress.terminal(), changes=changes, build_dir=build_dir
    )
    click.echo(json.dumps(found, indent=1) if as_json else shown.table(found))
    ran = any("ms_p50" in row for model in found["models"] for row in model["engines"])
    return 0 if ran else 1


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
