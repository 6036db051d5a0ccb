"""Several mistakes in one message, as a user would rather not meet them one run at a time."""

from __future__ import annotations

from collections.abc import Sequence

from tfedge.errors import UserError

SHOWN = 20


class Problems:
    """Collect what is wrong with some data.

    Args:
      where: The folder or file at fault.
    """

    def __init__(self, where: object) -> None:
        self.where = where
        self._problems: list[str] = []
        self._fixes: list[str] = []

    def add(self, problem: str, fix: str = "", *, names: Sequence[str] = ()) -> None:
        """Note a problem, with the first of the names that it concerns."""
        lines = [problem + (":" if names else "")]
        lines += [f"    {name}" for name in names[:SHOWN]]
        if len(names) > SHOWN:
            lines.append(f"    and {len(names) - SHOWN} more")
        self._problems.append("\n".join(lines))
        if fix and fix not in self._fixes:
            self._fixes.append(fix)

    def __bool__(self) -> bool:
        return bool(self._problems)

    def check(self) -> None:
        """Raise all that was noted as one `UserError`, if anything was."""
        if self._problems:
            raise UserError(self.where, "\n  ".join(self._problems), "\n  ".join(self._fixes))


def plural(count: int, noun: str) -> str:
    """Return such as ``1 file`` or ``3 files``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def check_labels(problems: Problems, labels: Sequence[str]) -> None:
    """Note labels that could not stand in a list of one label a line."""
    bad = [repr(label) for label in labels if not label.isprintable() or not label.strip()]
    if bad:
        problems.add(
            "labels that are empty or cannot be printed",
            "name each class with ordinary characters",
            names=bad,
        )
    twice = sorted({label for label in labels if list(labels).count(label) > 1})
    if twice:
        problems.add("labels that occur twice", "give each class its own label", names=twice)
