"""One network on several engines: opened, answered, and timed in turn."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.engines import turns
from tfedge.engines.child import BLOCK_S
from tfedge.engines.known import Engine
from tfedge.engines.network import Network, difference
from tfedge.engines.process import Child, EngineError
from tfedge.progress import Progress

WARM_S = 0.5
_MILLI = 1e3


@dataclass
class _Runner:
    """An open engine with a number of threads, its row of the table, and what it answered."""

    child: Child
    row: dict[str, Any]
    answers: Any = None

    @property
    def able(self) -> bool:
        return "failed" not in self.row

    def ask(self, **question: object) -> dict[str, Any]:
        try:
            return self.child.ask(**question)
        except EngineError as error:
            self.row["failed"] = str(error)
            raise

    def begin(self, file: Path, shape: tuple[int, ...]) -> None:
        """Answer all inputs, in answers of `shape`, and warm up; else its row says why not."""
        with suppress(EngineError):
            self.ask(answer=str(file))
            self.answers = np.load(file)
            if self.answers.shape != shape:
                self.row["failed"] = f"answers {self.answers.shape[1:]}, the network {shape[1:]}"
                return
            self.ask(turn=WARM_S)

    def turn(self) -> list[float]:
        seconds: list[float] = self.ask(turn=BLOCK_S)["seconds"]
        return seconds


def compare(
    network: Network,
    inputs: np.ndarray,
    engines: Sequence[Engine],
    pythons: Mapping[str, Path],
    progress: Progress,
    *,
    rounds: int,
) -> list[dict[str, Any]]:
    """Run a network on each engine, on one thread and on all.

    Args:
      inputs: [count, 1, ...] of the input's type.
      pythons: The Python for an engine, by its name, where that is not this one.
      rounds: How many turns each has, at least `turns.LEAST_ROUNDS`.

    Returns:
      For each engine and number of threads ``engine``, ``threads``, ``version``; ``ms_p50``, the
      median time of an inference, the input being set, and its 95 % interval ``ms_p50_low`` and
      ``ms_p50_high``; ``ratio`` to the first engine that ran on as many threads, with its interval;
      and what `network.difference` says against the first that ran.  Of an engine that is not
      installed there is ``install``, what to type; of one that cannot, ``failed``, its message.
    """
    rows: list[dict[str, Any]] = []
    runners: list[_Runner] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "model.tflite").write_bytes(network.flatbuffer)
        np.save(folder / "inputs.npy", inputs)
        for engine in engines:
            progress.say(f"{engine.name:15} opens {network.file.name}")
            python = pythons.get(engine.name)
            try:
                for child, row in _opened(engine, python, network, folder):
                    stack.enter_context(child)
                    runners.append(_Runner(child, row))
                    rows.append(row)
            except EngineError as error:
                rows.append({"engine": engine.name, **_why(error, engine, python)})
        for number, runner in enumerate(runners):
            runner.begin(folder / f"{number}.npy", (len(inputs), *network.made.shape))
        times = _times(runners, rounds, progress)
    able = [runner for runner in runners if runner.able]
    _figure(able, times)
    for runner in able[1:]:
        runner.row.update(difference(network, runner.answers, able[0].answers))
    return rows


def thread_counts() -> tuple[int, ...]:
    """Return 1 and all that this process may use."""
    return tuple(sorted({1, processors()}))


def processors() -> int:
    """Return how many processors this process may use."""
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return len(usable(0))


def _opened(
    engine: Engine, python: Path | None, network: Network, folder: Path
) -> Iterator[tuple[Child, dict[str, Any]]]:
    """Yield a process for each number of threads, once it is ready, and its row."""
    file = _file(engine, python, network, folder)
    for threads in thread_counts():
        start = ["serve", str(file), str(threads), str(folder / "inputs.npy")]
        child = Child(engine, python, start, threads)
        try:
            version = child.hear()["version"]
        except BaseException:
            child.__exit__()
            raise
        yield child, {"engine": engine.name, "threads": threads, "version": version}


def _file(engine: Engine, python: Path | None, network: Network, folder: Path) -> Path:
    """Return the file that an engine takes; it is made here if the engine's importer makes it."""
    model = folder / "model.tflite"
    if engine.takes != model.suffix:
        made = folder / f"{engine.name}{engine.takes}"
        with Child(engine, python, ["convert", str(model), str(made)]) as child:
            child.hear()
        return made
    own = network.file.with_suffix(engine.beside).absolute()
    return own if engine.beside and own.is_file() else model


def _why(error: EngineError, engine: Engine, python: Path | None) -> dict[str, str]:
    if not error.missing:
        return {"failed": str(error)}
    own = f"{python} -m pip install {engine.packages}"
    return {"install": own if python else engine.install}


def _times(runners: Sequence[_Runner], rounds: int, progress: Progress) -> list[list[float]]:
    """Return the seconds of each runner's rounds; one that fails goes, and all begin again."""
    able = [runner for runner in runners if runner.able]
    with suppress(EngineError), progress.bar("rounds", rounds) as advance:
        return turns.interleaved(
            [runner.turn for runner in able], rounds, lambda done: advance(done, "")
        )
    return _times(runners, rounds, progress)


def _figure(runners: Sequence[_Runner], times: Sequence[Sequence[float]]) -> None:
    """Put the figures of `times`, seconds a round, into the rows."""
    first: dict[int, Sequence[float]] = {}
    for runner, seconds in zip(runners, times, strict=True):
        row = runner.row
        values = [_MILLI * second for second in seconds]
        row.update(_with_ends("ms_p50", turns.median_of(values)), rounds=len(values))
        if row["threads"] in first:
            row.update(_with_ends("ratio", turns.ratio_of(values, first[row["threads"]])))
        else:
            first[row["threads"]] = values


def _with_ends(name: str, of: tuple[float, float, float]) -> dict[str, float]:
    return {f"{name}{end}": value for end, value in zip(("", "_low", "_high"), of, strict=True)}
