"""Commands about boards: what a .tflite costs there."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tfedge import progress
from tfedge.cli.options import JSON, PATH, read

PIS = ("pi4", "pi5")


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--target",
    "targets",
    type=click.Choice(PIS),
    multiple=True,
    default=PIS,
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
