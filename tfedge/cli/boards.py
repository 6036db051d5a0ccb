"""Commands about boards."""

from __future__ import annotations

from pathlib import Path

import click

from tfedge import progress
from tfedge.cli.options import BUILD_DIR, PATH
from tfedge.errors import UserError


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
def deploy(  # noqa: PLR0913 - click hands over an argument for every option
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
    before the end leaves the version in use as it was.
    """
    from tfedge.boards import deploy as work
    from tfedge.boards.ssh import board
    from tfedge.plan import pipeline

    place = board(target, port=port, identity=identity, config=ssh_config)
    wishes = work.Wishes(python, service, bench or 0)
    if rollback and (model or service or bench):
        raise UserError("--rollback", "goes alone", f"write: tfedge deploy {target} --rollback")
    if rollback:
        name = work.rollback(place, wishes, progress.terminal())
    elif model is None:
        fix = f"write: tfedge deploy {target} MODEL.tflite"
        raise UserError("tfedge deploy", "no model is named", fix)
    else:
        file = pipeline.model_of(model, build_dir)
        name = work.deploy(file, place, wishes, progress.terminal())
    click.echo(f"{target}: version {name} is in use")
