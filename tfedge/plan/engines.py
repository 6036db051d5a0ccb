"""Compare what several inference engines make of the same networks and inputs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfedge.errors import UserError
from tfedge.plan import comparing
from tfedge.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    from tfedge.engines.known import Engine
    from tfedge.engines.network import Network
    from tfedge.tflite.card import Card


@dataclass(frozen=True)
class Wishes:
    """How engines are to be compared.

    Attributes:
      engines: The first that runs is what the others are held against.
      pythons: The Python for an engine, by its name, where that is not this one.
      count: Inputs that are answered.
      rounds: Turns that each engine has.
    """

    engines: tuple[Engine, ...]
    pythons: Mapping[str, Path] = field(default_factory=dict)
    count: int = 32
    rounds: int = 30


def compare(
    files: Sequence[Path],
    data: Path | None,
    wishes: Wishes,
    progress: Progress,
    *,
    changes: Sequence[str],
    build_dir: Path,
) -> dict[str, Any]:
    """Run each .tflite on each engine.

    Args:
      data: As `comparing.compare` takes it; inputs are at random if there is none.  The first file
        that has a card says how all are fed.
      changes: Settings that take the place of a pipeline file's.
      build_dir: Where a pipeline's data is, or will be, decoded.

    Returns:
      ``machine``, its load included; ``models``, each with ``file``, ``bytes``, ``input``,
      ``output``, ``inputs`` (how many; ``of`` which split, if not at random), and ``engines``, the
      rows of `engines.comparison.compare`.
    """
    from tfedge.engines import comparison

    read = [_network(file) for file in files]
    fed = _inputs(files, data, wishes.count, changes, build_dir, progress)
    before = os.getloadavg()[0]
    models = []
    for network in read:
        x = network.inputs(wishes.count) if fed is None else _taken(network, fed[0])
        rows = comparison.compare(
            network, x, wishes.engines, wishes.pythons, progress, rounds=wishes.rounds
        )
        models.append(
            {
                "file": str(network.file),
                "bytes": len(network.flatbuffer),
                "input": f"{network.given.dtype} {list(network.given.shape)}",
                "output": f"{network.made.dtype} {list(network.made.shape)}",
                "inputs": len(x),
                **({"of": fed[1]} if fed else {}),
                "engines": rows,
            }
        )
    machine = {"processor": _processor(), "processors": comparison.processors()}
    return {"machine": {**machine, "load_before": before}, "models": models}


def _network(file: Path) -> Network:
    from tfedge.engines.network import read

    if file.suffix in comparing.KERAS or file.is_dir():
        problem = "engines are compared on a .tflite"
        raise UserError(file, problem, "give the stage's float.tflite, or what convert wrote")
    try:
        return read(file, file.read_bytes())
    except OSError as error:
        raise UserError(file, error.strerror or str(error)) from None


def _inputs(
    files: Sequence[Path],
    data: Path | None,
    count: int,
    changes: Sequence[str],
    build_dir: Path,
    progress: Progress,
) -> tuple[np.ndarray, str] | None:
    """Return normalised inputs of every class in turn, and what they are of."""
    from tfedge.data.sampling import stratified

    if data is None:
        return None
    known, file = _card(files)
    split, name = comparing.examples(data, known, file, changes, build_dir, progress)
    chosen = stratified(split.classes, count)
    return comparing.normalised(split.inputs[chosen], known), name


def _card(files: Sequence[Path]) -> tuple[Card, Path]:
    from tfedge.tflite import card

    for file in files:
        found = card.find(file.read_bytes(), file)
        if found:
            return found[0], file
    fix = "leave out --data for inputs at random, or give a file that tfedge converted as well"
    raise UserError(files[0], "has no card that says how it is fed", fix)


def _taken(network: Network, inputs: np.ndarray) -> np.ndarray:
    wanted = network.given.shape[1:]
    if inputs.shape[1:] != wanted:
        problem = f"takes {wanted}, the data is {inputs.shape[1:]}"
        raise UserError(network.file, problem, "compare networks of one input at a time")
    return network.fed(inputs)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
