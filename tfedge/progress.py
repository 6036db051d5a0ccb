"""How work tells of its progress: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console


class Advance(Protocol):
    """Say how much is done in all, how it goes, and the total if it was not known before."""

    def __call__(self, done: int, words: str, total: int | None = None) -> None: ...


QUIET_S = 10.0


class Progress(Protocol):
    """What a stage is handed to report with."""

    def say(self, text: str) -> None:
        """Print one line."""

    def bar(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Open a bar of `total` steps."""


class Silent:
    """Reports nothing; for callers in Python."""

    def say(self, text: str) -> None:
        pass

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:  # noqa: ARG002
        yield lambda done, words, total=None: None  # noqa: ARG005


class Lines:
    """Writes plain lines; of a bar, at most one every ten seconds.

    Args:
      stream: Where to; stderr if None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def say(self, text: str) -> None:
        stream = self._stream or sys.stderr
        stream.write(text + "\n")
        stream.flush()

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        started = last = time.monotonic()
        whole = total

        def advance(done: int, words: str, total: int | None = None) -> None:
            nonlocal last, whole
            now, whole = time.monotonic(), total or whole
            if now - last < QUIET_S or not done:
                return
            last = now
            left = timedelta(seconds=round((now - started) * (whole - done) / done))
            self.say(f"{label:12} {done:,} of {whole:,}  {words}  {left} left")

        yield advance


class Bars:
    """Draws rich's bars on a terminal, with the time that is left."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        from rich import progress as rich_progress

        columns = (
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[words]}"),
            rich_progress.TimeRemainingColumn(),
        )
        with rich_progress.Progress(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(label, total=total, words="")
            yield lambda done, words, total=None: bars.update(
                task, completed=done, words=words, total=total
            )


@contextmanager
def quietly(heard: list[str] | None = None) -> Iterator[None]:
    """Hold back what C++ libraries write to stderr, and show it only if the work fails.

    TensorFlow's import and the converter write lines there that no setting silences, and that say
    nothing to a user when all went well.

    Args:
      heard: Gets what was written if the work fails, for a caller that makes a message of it;
        nothing is shown then.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            if heard is None:
                os.write(terminal, kept.read())
            else:
                heard.append(kept.read().decode("utf-8", "replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def terminal() -> Progress:
    """Return bars if stderr is a terminal, lines otherwise."""
    if not sys.stderr.isatty():
        return Lines()
    from rich.console import Console

    return Bars(Console(stderr=True))
