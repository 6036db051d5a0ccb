"""What each TFLite runtime for Python has kernels for, and what it is known to get wrong.

`operators.csv` beside this file was measured: `benchmarks/runtime_operators.py` asks each runtime
for every operator in versions 1 to 20 and writes the file.  It ran wheels for x86-64 of
tflite-runtime 2.7.0 to 2.14.0 and ai-edge-litert 1.0.1 to 2.3.0; for 2.5 and 2.6, which have no
such wheel, the interpreters in TensorFlow 2.5.3 and 2.6.5.  Wheels for Arm are built from the same
source.  `benchmarks/runtime_verdicts.py` measured on these runtimes what `WRONG` and `int8_fast`
say.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("operators.csv")

CUSTOM = frozenset(("NumericVerify", "Mfcc", "AudioSpectrogram", "TFLite_Detection_PostProcess"))
"""Custom operators that every runtime has (TensorFlow's lite/core/kernels/register.cc)."""

Versions = Mapping[str, Mapping[str, tuple[int, int]]]
"""By runtime, then by operator: the lowest and the highest version that there is a kernel for."""


@dataclass(frozen=True)
class Runtime:
    """A minor version of a TFLite runtime.

    Attributes:
      name: As pip has it, a space, and the minor version: ``tflite-runtime 2.14``.
      latest: The release that pip installs of it.
      pythons: The least and the last Python 3 that have wheels, ``(8, 11)`` for 3.8 to 3.11.
      machines: What PyPI has wheels for.
      numpy_below_2: It breaks with numpy 2.
      int8_fast: It runs int8 through XNNPACK, several times as fast as its own kernels.
    """

    name: str
    latest: str
    pythons: tuple[int, int]
    machines: tuple[str, ...]
    numpy_below_2: bool = False
    int8_fast: bool = True

    @property
    def package(self) -> str:
        return self.name.split()[0]

    @property
    def install(self) -> str:
        """What to give to pip."""
        numpy = '"numpy<2"' if self.numpy_below_2 else "numpy"
        return f"pip install {self.package}=={self.latest} {numpy}"


_BOTH = ("x86_64", "aarch64")
_ALL = (*_BOTH, "armv7l")


def _tflite(minor: int, patch: int, pythons: tuple[int, int], machines: tuple[str, ...]) -> Runtime:
    name = f"tflite-runtime 2.{minor}"
    fast = minor == 12  # noqa: PLR2004 - XNNPACK took int8 in this one only
    return Runtime(name, f"2.{minor}.{patch}", pythons, machines, True, fast)  # noqa: FBT003


# Wheels as PyPI had them in November 2026.  Of 2.5 it has one for 32-bit Arm; Coral's own
# repository has 2.5.0.post1 for its boards.
RUNTIMES: Mapping[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        _tflite(5, 0, (5, 8), ("armv7l",)),
        _tflite(6, 0, (6, 9), ()),
        _tflite(7, 0, (7, 9), _ALL),
        _tflite(8, 0, (7, 9), _ALL),
        _tflite(9, 1, (7, 9), _ALL),
        _tflite(10, 0, (7, 9), _ALL),
        _tflite(11, 0, (7, 9), _ALL),
        _tflite(12, 0, (8, 9), _ALL),
        _tflite(13, 0, (8, 10), _ALL),
        _tflite(14, 0, (8, 11), _ALL),
        Runtime("ai-edge-litert 1.0", "1.0.1", (9, 11), ("x86_64",), numpy_below_2=True),
        Runtime("ai-edge-litert 1.1", "1.1.2", (9, 12), _BOTH),
        Runtime("ai-edge-litert 1.2", "1.2.0", (9, 12), _BOTH),
        Runtime("ai-edge-litert 1.3", "1.3.0", (9, 12), _BOTH),
        Runtime("ai-edge-litert 1.4", "1.4.0", (9, 12), _BOTH),
        Runtime("ai-edge-litert 2.0", "2.0.3", (9, 12), _BOTH),
        Runtime("ai-edge-litert 2.1", "2.1.6", (10, 14), _BOTH),
        Runtime("ai-edge-litert 2.2", "2.2.0", (10, 14), _BOTH),
        Runtime("ai-edge-litert 2.3", "2.3.0", (10, 14), _BOTH),
    )
}
"""All that are known, by name, each package's oldest first."""


def among(package: str, first: str, last: str) -> tuple[str, ...]:
    """Name the runtimes of a package from one minor version to another, both included."""
    names = list(RUNTIMES)
    start, stop = (names.index(f"{package} {version}") for version in (first, last))
    return tuple(names[start : stop + 1])


WRONG: Mapping[str, tuple[str, ...]] = {
    # One scale a channel was read as one for all: 0 of 64 answers right.
    "int8 dense": among("tflite-runtime", "2.5", "2.9"),
    # The kernel of 2.12 and later is another one; before, a third to a half of the answers.
    "int8 lstm": among("tflite-runtime", "2.5", "2.11"),
    # Its optimised kernel takes the bias of 64 bits for one of 32: no answer right.
    "int16 dense": among("tflite-runtime", "2.8", "2.8"),
}
"""Runtimes that answer nonsense without a message, by what makes them."""


@cache
def versions() -> Versions:
    """Return the measured table."""
    head, *rows = csv.reader(io.StringIO(FILE.read_text("utf-8")))
    found: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in head[1:]}
    for operator, *cells in rows:
        for name, cell in zip(head[1:], cells, strict=True):
            if cell:
                low, _, high = cell.rpartition("-")
                found[name][operator] = (int(low or 1), int(high))
    return found


def has(runtime: str, operator: str, version: int) -> bool:
    """Whether a runtime has a kernel for a version of a built-in operator."""
    low, high = versions()[runtime].get(operator, (1, 0))
    return low <= version <= high


def newest(runtime: str, operator: str) -> int:
    """Return the highest version of an operator that a runtime has; 0 for none."""
    return versions()[runtime].get(operator, (0, 0))[1]


def first_with(operator: str, version: int) -> str:
    """Name the oldest runtime that has an operator in a version; empty if none has."""
    return next((name for name in RUNTIMES if has(name, operator, version)), "")


def written(measured: Versions) -> str:
    """Return the text of `FILE`: a row an operator, a column a runtime, the versions in it.

    A cell is the highest version, or ``2-4`` where version 1 is missing, or empty for none.
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["operator", *measured])
    for operator in sorted({name for known in measured.values() for name in known}):
        table.writerow([operator, *(_cell(known.get(operator)) for known in measured.values())])
    return out.getvalue()


def _cell(ends: tuple[int, int] | None) -> str:
    if ends is None:
        return ""
    return str(ends[1]) if ends[0] == 1 else f"{ends[0]}-{ends[1]}"


def listed(names: Iterable[str]) -> str:
    """Write runtimes briefly: neighbours of one package as a range."""
    order, known = [*RUNTIMES], sorted(set(names), key=[*RUNTIMES].index)
    runs: list[list[str]] = []
    for name in known:
        package = RUNTIMES[name].package
        if (
            runs
            and order.index(runs[-1][-1]) + 1 == order.index(name)
            and RUNTIMES[runs[-1][0]].package == package
        ):
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(
        run[0] if len(run) == 1 else f"{run[0]} to {run[-1].split()[1]}" for run in runs
    )
