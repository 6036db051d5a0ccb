"""Count the Arm instructions of .tflite files on an emulated Pi."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import numpy as np

from tfedge.boards import counted, debian, emulation
from tfedge.boards.cache import cached
from tfedge.boards.emulation import Userland
from tfedge.errors import UserError
from tfedge.tflite.parts import part

_SOURCE = Path(__file__).with_name("count_instructions.c")
_COMPILERS = ("cc", "gcc", "clang")
_CALLS = 3
"""Of each file, at the least.  The first call takes a little more than the others, and now and then
one of them does; so the fewest are taken, as of all that is added to the same work."""
_MOST_CALLS = 20
"""Of a file whose calls are short: there the same disturbance is a larger part."""


@dataclass(frozen=True)
class Model:
    """A .tflite and what it is called on, an array for each of its inputs."""

    flatbuffer: bytes
    inputs: tuple[np.ndarray, ...]


def instructions(userland: Userland, board: str, models: Sequence[Model]) -> list[int]:
    """Return how many instructions one call of each model takes, on one thread.

    Counted is what lies between two marks around `Interpreter.invoke`, less what lies between two
    marks with nothing in between, on the thread that calls.  The same file gives the same number
    again within a few instructions in a thousand, whatever else the machine does.

    Args:
      board: One of `pi.BOARDS`.

    Raises:
      UserError: A compiler is missing, or a model does not run.
    """
    if not models:
        return []
    library = _plugin()
    models = [Model(part(models[0].flatbuffer, range(0)).flatbuffer, ()), *models]
    with tempfile.TemporaryDirectory(prefix="tfedge-count-") as folder:
        files = [Path(folder) / str(number) for number in range(len(models))]
        for file, model in zip(files, models, strict=True):
            file.write_bytes(model.flatbuffer)
            np.savez(file.with_suffix(".npz"), *model.inputs)
        # -P: the modules beside the script are not for the board to import.
        calls = [str(_CALLS), str(_MOST_CALLS)]
        script = ["-P", str(counted.__file__), *calls, *map(str, files)]
        done = subprocess.run(
            userland.command(board, script, library), capture_output=True, text=True
        )
    if done.returncode:
        raise UserError(f"the emulated {board}", f"the model does not run: {_last(done)}")
    return read(done.stderr)[1:]


def check_tools() -> None:
    """Raise a `UserError` if something is missing here that counting, or making a Pi, calls."""
    debian.check_tools()
    _compiler()


def missing() -> str:
    """Say what counting lacks on this machine, if it is to fetch nothing; empty if nothing."""
    try:
        _compiler()
        return "" if emulation.at_hand() else "the emulated Pi is not on this machine yet"
    except UserError as error:
        where, problem, _ = error.parts
        return f"{where}: {problem}"


def read(said: str) -> list[int]:
    """Return the instructions of each file from what `counted` and the plugin wrote on stderr."""
    warming, *files = said.split("file\n")
    nothing = min(_between(warming))
    return [min(_between(lines)) - nothing for lines in files]


def _between(lines: str) -> list[int]:
    # Every second line is of what lies between a call and the next.
    return [int(number) for number in re.findall(r"^instructions (\d+)$", lines, re.M)][1::2]


def _plugin() -> Path:
    """Return the plugin as a shared library for this machine, from the cache or compiled now."""
    compiler = _compiler()
    flags = ["-O2", "-shared", "-fPIC"]

    def make(folder: Path) -> None:
        command = [compiler, *flags, "-o", str(folder / "count.so"), str(_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            fix = "install its headers, such as: apt-get install libc6-dev"
            raise UserError(compiler, f"cannot compile {_SOURCE.name}: {_last(done)}", fix)

    return cached("plugin", {"source": _SOURCE.read_text(), "flags": flags}, make) / "count.so"


def _compiler() -> str:
    for name in _COMPILERS:
        if found := which(name):
            return found
    fix = "install one, such as: apt-get install gcc libc6-dev"
    raise UserError("cc", "counting instructions needs a C compiler, and there is none", fix)


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"it ended with {done.returncode}"
