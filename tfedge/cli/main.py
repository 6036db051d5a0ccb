"""The command line as a whole: its commands, and what becomes of errors."""

from __future__ import annotations

import errno
import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

import click

from tfedge.cli import boards, models, pipelines, search
from tfedge.errors import CheckError, UserError

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


for _command in (
    *(pipelines.new, pipelines.plan, pipelines.build, pipelines.report, pipelines.stages),
    *(models.evaluate, models.compare, models.inspect, models.attach),
    *(boards.check, boards.cost, boards.deploy, search.search),
):
    cli.add_command(_command)


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
