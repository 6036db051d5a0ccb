"""The command that looks for the networks which fit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from tfedge import progress
from tfedge.cli.options import BUILD_DIR, JSON, PATH, SET
from tfedge.errors import CheckError


@click.command()
@click.argument("file", type=PATH)
@click.option("--trials", type=click.IntRange(1), help="Candidates, in place of FILE's number.")
@click.option("--hours", type=click.FloatRange(0), help="Hours, in place of FILE's; 0 for no end.")
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Processes that train at once.",
)
@click.option(
    "--threads",
    type=click.IntRange(0, 1024),
    default=0,
    help="Of each worker; processors are shared out unless given.",
)
@click.option("--study", default="", metavar="URL", help="Database that keeps the study.")
@SET
@BUILD_DIR
@JSON
def search(
    file: Path,
    trials: int | None,
    hours: float | None,
    workers: int,
    threads: int,
    study: str,
    changes: tuple[str, ...],
    build_dir: Path,
    *,
    as_json: bool,
) -> None:
    """Search the settings that FILE's [search] frees for the networks that fit its [targets].

    Candidates are looked at untrained first; those that break a target are never trained.  The
    others train a share of their epochs, the worst stopped early, and the front trains to full
    length.  Ctrl-C keeps everything: the same command goes on.  Results are in search.json, and
    the recommended .tflite where a build puts it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tfedge.search import outcome, searching
    from tfedge.search.crew import Processes

    wish = searching.Wish(file, changes, build_dir, trials, hours, study)
    told = searching.search(wish, lambda: Processes(workers, threads), progress.terminal())
    click.echo(json.dumps(told, indent=1) if as_json else "\n".join(outcome.lines(told)))
    if told["recommended"] is None:
        raise CheckError(f"{file.name} [targets]", "no candidate keeps to them")
