"""A process with one engine in it, seen from outside."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tfedge.engines.known import Engine, command

SCRIPT = Path(__file__).with_name("child.py")
PATIENCE_S = 900.0
"""How long a conversion, or all inputs, may take."""


class EngineError(Exception):
    """What an engine said when it could not; ``missing`` is true where it is not installed."""

    def __init__(self, words: str, *, missing: bool = False) -> None:
        super().__init__(words)
        self.missing = missing


class Child:
    """A process that runs `child.py`; leaving it as a context ends it.

    Args:
      arguments: Those of `child.py` without the engine, its work first.
      threads: What libraries are told that read it from the environment alone.
    """

    def __init__(
        self, engine: Engine, python: Path | None, arguments: Sequence[str], threads: int = 1
    ) -> None:
        start, environment = command(engine, python)
        limits = dict.fromkeys(("OMP_NUM_THREADS", "TVM_NUM_THREADS"), str(threads))
        work, *rest = arguments
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the exit of this context
        self._process = subprocess.Popen(
            [*start, str(SCRIPT), work, engine.name, *rest],
            env=environment | limits,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._asked, self._said = map(_open, (self._process.stdin, self._process.stdout))

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._said.close()
        with suppress(BrokenPipeError):
            self._asked.close()
        self._log.close()

    def ask(self, **question: object) -> dict[str, Any]:
        """Send a question and return its answer.

        Raises:
          EngineError: As `hear` does.
        """
        try:
            self._asked.write(json.dumps(question).encode() + b"\n")
            self._asked.flush()
        except BrokenPipeError:
            raise EngineError(self._last_words()) from None
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """Wait for a line.

        Raises:
          EngineError: The engine is not installed, refused, ended, or took too long.
        """
        if not select.select([self._said], [], [], PATIENCE_S)[0]:
            raise EngineError(f"gave no answer in {PATIENCE_S:.0f} s")
        line = self._said.readline()
        if not line:
            raise EngineError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise EngineError(f"{answer['missing']} is not installed", missing=True)
        if "failed" in answer:
            raise EngineError(answer["failed"])
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        if status < 0:
            return f"it ended with {signal.Signals(-status).name}"
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with {status}"


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("expected a pipe, got none")
    return stream
