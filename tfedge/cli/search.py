"""The command that looks for the networks which fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfedge import progress
from tfedge.cli.options import BUILD_DIR, JSON, PATH, SET, STORE, is_given
from tfedge.errors import CheckError, UserError

if TYPE_CHECKING:
    from tfedge.search.crew import Crew

_OF_RAY = ("cpus", "gpus", "memory")
_OF_PROCESSES = ("workers", "threads")


def _crew_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say who does the work."""
    number = click.IntRange
    for option in reversed((
        click.option("--workers", type=number(1, 1024), default=1, show_default=True,
                     help="Processes that train at once."),
        click.option("--threads", type=number(0, 1024), default=0,
                     help="Of each worker; unless given, processors are shared out."),
        click.option("--ray", default="", metavar="ADDRESS",
                     help="Let a Ray cluster do the work; auto takes this machine's."),
        click.option("--cpus", type=number(1), default=1, show_default=True,
                     help="Processors that a task takes of its node, with --ray."),
        click.option("--gpus", type=click.FloatRange(0), default=0.0,
                     help="Graphics processors that it takes, with --ray."),
        click.option("--memory", type=click.FloatRange(0), default=0.0,
                     help="GiB that it takes, with --ray."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.argument("file", type=PATH)
@click.option("--trials", type=click.IntRange(1), help="Candidates, in place of FILE's number.")
@click.option("--hours", type=click.FloatRange(0), help="Hours, in place of FILE's; 0 for no end.")
@_crew_options
@click.option("--study", default="", metavar="URL", help="Database that keeps the study.")
@STORE
@SET
@BUILD_DIR
@JSON
def search(
    file: Path,
    trials: int | None,
    hours: float | None,
    study: str,
    store: str,
    changes: tuple[str, ...],
    build_dir: Path,
    *,
    as_json: bool,
    **crew: Any,
) -> None:
    """Search the settings that FILE's [search] frees for the networks that fit its [targets].

    Candidates are looked at untrained first; those that break a target are never trained.  The
    others train a share of their epochs, the worst stopped early, and the front trains to full
    length.  Ctrl-C keeps everything: the same command goes on.  Results are in search.json, and
    the recommended .tflite where a build puts it.  Needs: pip install 'tfedge[search]'.
    """
    _check(crew["ray"])
    from tfedge.search import outcome, searching

    wish = searching.Wish(file, changes, build_dir, trials, hours, study, store)
    told = searching.search(wish, lambda: _opened(crew), progress.terminal())
    click.echo(json.dumps(told, indent=1) if as_json else "\n".join(outcome.lines(told)))
    if told["recommended"] is None:
        raise CheckError(f"{file.name} [targets]", "no candidate keeps to them")


def _check(address: str) -> None:
    """Refuse options that would be ignored."""
    for name in _OF_PROCESSES if address else _OF_RAY:
        if is_given(name):
            where = "with" if address else "without"
            fix = "write --cpus" if address else "write --ray ADDRESS, or leave it out"
            raise UserError(f"--{name}", f"means nothing {where} --ray", fix)


def _opened(crew: dict[str, Any]) -> Crew:
    if crew["ray"]:
        from tfedge.search.ray_crew import Needs, Ray

        needs = Needs(crew["cpus"], crew["gpus"], round(crew["memory"] * 2**30))
        return Ray(crew["ray"], needs)
    from tfedge.search.crew import Processes

    return Processes(crew["workers"], crew["threads"])
