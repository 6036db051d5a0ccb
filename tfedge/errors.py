"""The one exception for mistakes that a user can fix, and the one for a stop that is wanted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user wrote or passed.

    The command line prints it without a traceback and exits with 2.  Anything else that escapes is
    a bug in tfedge and keeps its traceback.

    Args:
      where: The file, table or option at fault, such as ``digits.toml [student]``.
      problem: What is wrong, with the value that was received.
      fix: What to write instead, where tfedge knows it.
    """

    def __init__(self, where: object, problem: str, fix: str = "") -> None:
        super().__init__(f"{where}: {problem}" + (f"\n  {fix}" if fix else ""))
        self.parts = (where, problem, fix)

    def within(self, place: str) -> UserError:
        """Return the same error with the pipeline's file and stage before it, once."""
        where, problem, fix = self.parts
        inside = str(where).removeprefix(place.split()[-1]).strip()
        return type(self)(f"{place} {inside}".strip(), problem, fix)


class CheckError(UserError):
    """What was built is not what was asked for; the command line exits with 1."""


class Paused(Exception):  # noqa: N818 - nothing is wrong
    """A training was asked to stop after an epoch; the stage's next run goes on from there."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Name the known word closest to `word`, or list them all."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else "there is none"
