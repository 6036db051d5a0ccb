"""Commands in processes of their own, forked from one that has TensorFlow imported and not used.

A process that starts from nothing spends most of a small build on that import.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TextIO

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tensorflow", "tf_keras", "tensorflow_model_optimization"])


@dataclass(frozen=True)
class Forked:
    """A running command.

    Attributes:
      said: What it writes to stderr, as it comes.
    """

    process: BaseProcess
    said: TextIO

    def end(self) -> int:
        """Wait for the end; return the status, negative for the signal that ended it."""
        self.said.read()
        self.said.close()
        self.process.join()
        return self.process.exitcode


def start(*arguments: object, out: str | os.PathLike[str] = os.devnull) -> Forked:
    """Start ``tfedge`` with these arguments; its stdout goes into the file `out`."""
    read, write = _CONTEXT.Pipe(duplex=False)
    words = [str(each) for each in arguments]
    process = _CONTEXT.Process(target=_command, args=(words, out, write))
    process.start()
    write.close()  # the command's own end is then the last, and closes with it
    said = os.fdopen(os.dup(read.fileno()), encoding="utf-8")
    read.close()
    return Forked(process, said)


def run(*arguments: object, out: str | os.PathLike[str] = os.devnull) -> tuple[int, str]:
    """Run ``tfedge`` as `start` does; return its status and what it wrote to stderr."""
    started = start(*arguments, out=out)
    said = started.said.read()
    return started.end(), said


def _command(arguments: list[str], out: str | os.PathLike[str], err: Connection) -> None:
    with Path(out).open("wb") as file:
        os.dup2(file.fileno(), 1)
    os.dup2(err.fileno(), 2)
    err.close()
    from tfedge.cli import main

    sys.exit(main(arguments))
