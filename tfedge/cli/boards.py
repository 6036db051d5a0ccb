"""Commands about boards: what a file will do there."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import click

from tfedge.boards.targets import TARGETS
from tfedge.cli.options import JSON, PATH, read


def _list_targets(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from tfedge.report import verdict

        click.echo(verdict.targets(TARGETS.values()))
        context.exit()


_NAMES = textwrap.fill(", ".join(TARGETS), 76, break_on_hyphens=False)


@click.command(epilog=f"Targets:\n\n\b\n{_NAMES}")
@click.argument("model", type=PATH)
@click.option("--target", "name", required=True, metavar="NAME", help="Board or runtime.")
@click.option(
    "--targets",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_targets,
    help="Say what each target is, and stop.",
)
@JSON
def check(model: Path, name: str, *, as_json: bool) -> int:
    """Say whether MODEL.tflite will run on a board and answer right, before it is copied there.

    Each operator is held against what the board's runtime has kernels for.  Exits with 1 if the
    file would not load or would answer nonsense.
    """
    from tfedge.boards import checking, targets
    from tfedge.report import verdict

    found = checking.check(read(model), model, targets.target(name))
    if as_json:
        click.echo(json.dumps(checking.as_json(found), indent=1))
    else:
        click.echo(verdict.text(found, model))
    return 0 if found.ok else 1
