"""How the processes of a training on several machines find one another when a build begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfedge.progress import quietly
from tfedge.training import team


def is_spread(stage: Any) -> bool:
    """Whether processes on several machines train a stage together."""
    return getattr(getattr(stage, "course", None), "strategy", "") == team.MULTI_WORKER


def meet(steps: Sequence[Any], file: str, say: Callable[[str], None]) -> bool:
    """Wait for the other processes if one of the `steps`, which will run, is for all of them.

    It comes before anything else that TensorFlow does: later it cannot.

    Args:
      file: The pipeline file's name, for messages.
      say: Prints a line.

    Returns:
      Whether there are others.
    """
    spread = [step for step in steps if is_spread(step.stage)]
    for step in spread:
        where = f"{file} [{step.name}]"
        team.check(where)
        team.check_batch(step.stage.course.batch, len(team.member().addresses), where)
    if not spread:
        return False
    mine = team.member()
    say(f"{mine}: waits for the others, {', '.join(mine.others)}")
    with quietly():
        from tfedge.training import replicas
    replicas.meet()
    return True
