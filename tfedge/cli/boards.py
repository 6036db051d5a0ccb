"""Commands about boards: what a file will do there and what it costs, and putting it there."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import click

from tfedge import progress
from tfedge.boards.pi import BOARDS
from tfedge.boards.targets import TARGETS
from tfedge.cli.options import BUILD_DIR, JSON, PATH, is_given, read
from tfedge.errors import UserError


def _list_targets(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from tfedge.report import verdict

        click.echo(verdict.targets(TARGETS.values()))
        context.exit()


_NAMES = textwrap.fill(", ".join(TARGETS), 76, break_on_hyphens=False)


@click.command(epilog=f"Targets:\n\n\b\n{_NAMES}")
@click.argument("model", type=PATH)
@click.option(
    "--target",
    "names",
    multiple=True,
    metavar="NAME",
    help="Board or runtime; may be repeated.",
)
@click.option(
    "--targets",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_targets,
    help="Say what each target is, and stop.",
)
@JSON
def check(model: Path, names: tuple[str, ...], *, as_json: bool) -> int:
    """Say whether MODEL.tflite will run on a board and answer right, before it is copied there.

    Each operator is held against what the board's runtime has kernels for.  Exits with 1 if the
    file would not load or would answer nonsense.
    """
    from tfedge.boards import checking, targets
    from tfedge.report import verdict
    from tfedge.tflite import card

    if not names:
        fix = "name a board or a runtime, such as --target pi4; --targets lists them"
        raise UserError("--target", "is missing", fix)
    content = read(model)
    found = [checking.check(content, model, targets.target(name)) for name in names]
    carded = card.find(content, model) is not None  # which also sees whether it is as it was
    if as_json:
        printed = [{**checking.as_json(one), "card": carded} for one in found]
        click.echo(json.dumps(printed if len(printed) > 1 else printed[0], indent=1))
    else:
        click.echo("\n\n".join(verdict.text(one, model, carded=carded) for one in found))
    return 0 if all(one.ok for one in found) else 1


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--target",
    "targets",
    type=click.Choice(tuple(BOARDS)),
    multiple=True,
    default=tuple(BOARDS),
    show_default=True,
    help="Board to count for; may be repeated.",
)
@JSON
def cost(model: Path, targets: tuple[str, ...], *, as_json: bool) -> None:
    """Count the Arm instructions of one inference of MODEL.tflite, whole and by operator.

    The model runs in an emulated Pi, which the first call fetches: half a minute, and 270 MB in
    $TFEDGE_CACHE or ~/.cache/tfedge.
    """
    from tfedge.boards.cost import costs, summary
    from tfedge.report.cost import table

    content = read(model)
    boards = tuple(dict.fromkeys(targets))
    counted = costs(content, boards, model, progress.terminal(), by_operator=True)
    found = {"model": str(model), **summary(content, counted)}
    click.echo(json.dumps(found, indent=1) if as_json else table(found))


@click.command()
@click.argument("target", metavar="USER@HOST:DIR")
@click.argument("model", required=False, type=PATH)
@click.option("-p", "--port", type=click.IntRange(1, 65535), help="The board's port for ssh.")
@click.option("-i", "--identity", type=PATH, metavar="FILE", help="Private key to log in with.")
@click.option("-F", "--ssh-config", type=PATH, metavar="FILE", help="In place of ~/.ssh/config.")
@click.option("--python", default="", help="The board's Python.  [default: DIR/venv's, or python3]")
@click.option("--service", is_flag=True, help="Leave it running, started with the board.")
@click.option("--bench", type=click.IntRange(1), metavar="N", help="Time N inferences there.")
@click.option("--rollback", is_flag=True, help="Go back to the version before.")
@BUILD_DIR
def deploy(
    target: str,
    model: Path | None,
    *,
    port: int | None,
    identity: Path | None,
    ssh_config: Path | None,
    python: str,
    service: bool,
    bench: int | None,
    rollback: bool,
    build_dir: Path,
) -> None:
    """Put MODEL on a board, test it there, and only then use it.

    MODEL is a .tflite with its card, or a pipeline file, whose result is taken.  What goes wrong
    before the end leaves the version in use as it was.  A version that is in use already is not
    copied again, only tested.
    """
    from tfedge.boards import deploy as work
    from tfedge.boards.ssh import board
    from tfedge.plan import pipeline

    place = board(target, port=port, identity=identity, config=ssh_config)
    named = is_given("build_dir")
    if rollback and (model or service or bench or named):
        raise UserError("--rollback", "goes alone", f"write: tfedge deploy {target} --rollback")
    if rollback:
        name = work.rollback(place, work.Wishes(python), progress.terminal())
    elif model is None:
        fix = f"write: tfedge deploy {target} MODEL.tflite"
        raise UserError("tfedge deploy", "no model is named", fix)
    else:
        file = pipeline.model_of(model, build_dir)
        kept = _kept_in(build_dir, file) if named and file == model else None
        wishes = work.Wishes(python, service, bench or 0, kept)
        name = work.deploy(file, place, wishes, progress.terminal())
    click.echo(f"{target}: version {name} is in use")


def _kept_in(build_dir: Path, model: Path) -> Path:
    """Return the folder of the pipeline that made a bare model, where its figures belong."""
    from tfedge.boards import measured
    from tfedge.tflite import card

    made_by = card.read(read(model), model)[0].made_by
    folder = build_dir / made_by.pipeline
    if not measured.holds(folder, model):
        fix = f"leave it out: what --bench measures is then kept in {model.parent}/boards"
        problem = f"{model} is no result of pipeline {made_by.pipeline!r} in it"
        raise UserError(f"--build-dir {build_dir}", problem, fix)
    return folder
