"""Running Google's compiler for the Edge TPU, where it is installed, and reading what it says.

It is one program for Debian on x86-64, ``edgetpu_compiler``, and has no other interface than its
printed log; what is read here is the format of versions 14 to 16, as users show it in the issues of
github.com/google-coral/edgetpu.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tfedge import paths
from tfedge.boards import edgetpu
from tfedge.boards.edgetpu import MIB, Mapping
from tfedge.boards.edgetpu_rules import MAPPED
from tfedge.errors import CheckError, UserError
from tfedge.tflite import card

PROGRAM = "edgetpu_compiler"
SUFFIX = "_edgetpu"
LIMIT_S = 900.0
"""Its own timer stops a compilation after 180 s; with several in one run it may take longer."""

_LINE = re.compile(r"^([\w.-]+)\s+(\d+)\s+(\S.*?)\s*$")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30}

_FIXES = {
    # What it prints when it gives up, and what to do about it.
    "Model not quantized": 'convert to full int8: form = "int8"',
    "Didn't find op for builtin opcode": "build that layer of older operators; "
    "tfedge check MODEL --target coral names the layer",
    "dynamic-sized tensors": "convert with a fixed batch of 1",
    "large activation tensors": "give it smaller pictures, or fewer channels in the first layers",
    "Internal compiler error": "it says no more than that; run it once more, then try smaller "
    "pictures or leave out the layers that tfedge check MODEL --target coral names",
}


@dataclass(frozen=True)
class Row:
    """A line of the compiler's table: so many operators of a name have a status."""

    name: str
    count: int
    status: str


@dataclass(frozen=True)
class Compilation:
    """What the compiler made and said.

    Attributes:
      flatbuffer: The compiled model, without the card of the one that it was made from.
      version: Such as ``16.0.384591198``; empty if it did not say.
      on_chip_bytes: Parameters kept on the Edge TPU; None if it did not say.
      streamed_bytes: Parameters that go over at every inference; None if it did not say.
      disagreements: Where it did otherwise than `edgetpu.mapping` predicted, a sentence each.
    """

    flatbuffer: bytes
    version: str
    rows: tuple[Row, ...]
    on_chip_bytes: int | None
    streamed_bytes: int | None
    disagreements: tuple[str, ...]

    @property
    def mapped(self) -> int:
        """How many operators run on the Edge TPU."""
        return sum(row.count for row in self.rows if row.status == MAPPED)

    @property
    def total(self) -> int:
        return sum(row.count for row in self.rows)


def installed() -> bool:
    """Say whether the compiler is on the PATH."""
    return shutil.which(PROGRAM) is not None


def how_to_get_it(model: Path) -> str:
    """Say how the user comes by a compiled file where the compiler is not installed."""
    compiled_file = beside(model).name
    return (
        f"{PROGRAM} is not installed here, so there is no {compiled_file}: it exists for Debian on "
        "x86-64, as package edgetpu-compiler in Coral's apt repository (coral.ai/docs/edgetpu/"
        f"compiler).  There: {PROGRAM} -s {model.name}; then give the result its card back: "
        f"tfedge attach {compiled_file} --from {model.name}"
    )


def beside(model: Path) -> Path:
    """Return where the compiled file of `model` goes, by the compiler's own custom."""
    return model.with_name(f"{model.stem}{SUFFIX}{model.suffix}")


def compile_beside(model: Path) -> tuple[str, ...]:
    """Write ``model_edgetpu.tflite`` beside a ``model.tflite`` that has its card, card and all.

    Returns:
      Notes for the user: what was mapped and each disagreement with the prediction; or, where the
      compiler is not installed, how to get it.

    Raises:
      UserError: `model` has no card.
      CheckError: The compiler gave up.
    """
    if not installed():
        return (how_to_get_it(model),)
    content = model.read_bytes()
    made = compiled(content, model)
    target = beside(model)
    paths.replace(target, card.transplant(made.flatbuffer, content, target, model))
    return notes(made)


def compiled(flatbuffer: bytes, where: object, *, limit_s: float = LIMIT_S) -> Compilation:
    """Run the compiler on a model.

    Args:
      flatbuffer: A .tflite file; a card behind it does not go along, and has to be put back.
      where: What an error calls the file.
      limit_s: Seconds after which it is stopped.

    Raises:
      UserError: It is not installed, or cannot be run on this machine.
      CheckError: It gave up, crashed, or took longer than `limit_s`.
    """
    predicted = edgetpu.mapping(flatbuffer, where)
    with tempfile.TemporaryDirectory(prefix="tfedge-edgetpu-") as folder:
        model = Path(folder) / "model.tflite"
        model.write_bytes(card.strip(flatbuffer))
        status, printed = _run(model, limit_s, where)
        target = beside(model)
        if status or not target.is_file():
            raise CheckError(where, *_failure(status, printed, predicted))
        log = target.with_suffix(".log")
        rows = _rows(printed) or _rows(log.read_text() if log.is_file() else "")
        made = target.read_bytes()
    on_chip = _bytes_after("On-chip memory used for caching model parameters", printed)
    streamed = _bytes_after("Off-chip memory used for streaming uncached model parameters", printed)
    return Compilation(
        made,
        _version(printed),
        rows,
        on_chip,
        streamed,
        tuple(_disagreements(predicted, rows, streamed)),
    )


def notes(of: Compilation) -> tuple[str, ...]:
    """Say in sentences what came of a compilation, the disagreements last."""
    told = f"{PROGRAM} {of.version}".strip() + f" mapped {of.mapped} of {of.total} operators"
    if of.on_chip_bytes is not None:
        told += f", keeps {of.on_chip_bytes / MIB:.2f} MiB of parameters on the Edge TPU"
    if of.streamed_bytes:
        told += f" and streams {of.streamed_bytes / MIB:.2f} MiB every inference"
    return (told, *of.disagreements)


def _run(model: Path, limit_s: float, where: object) -> tuple[int, str]:
    """Return the exit status, and all that was printed."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise UserError(where, f"{PROGRAM} is not on the PATH", how_to_get_it(Path("model.tflite")))
    command = [program, "-s", "-o", str(model.parent), str(model)]
    try:
        # It works in a child process, which has to be stopped with it.
        process = subprocess.Popen(
            command,
            cwd=model.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        fix = "it needs Linux on x86-64; install edgetpu-compiler there"
        raise UserError(program, f"cannot be run here: {error.strerror}", fix) from error
    try:
        printed, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as late:
        problem = f"{PROGRAM} had not finished after {limit_s:g} s and was stopped"
        raise CheckError(where, problem, "try a smaller network, or smaller pictures") from late
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, printed


def _failure(status: int, printed: str, predicted: Mapping) -> tuple[str, str]:
    """Return what went wrong and what to do."""
    reason, fix = next(
        ((line, fix) for sign, fix in _FIXES.items() if (line := _line_with(sign, printed))),
        ("", ""),
    )
    if not reason:
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        reason = " / ".join(lines[-3:]) or "it printed nothing"
        fix = "tfedge check MODEL --target coral names the layers that it is known to refuse"
    ended = f"was ended by signal {-status}" if status < 0 else f"gave up (exit {status})"
    told = predicted.refused or (
        f"the prediction was that it maps {predicted.mapped} of {predicted.total} operators",
    )
    version = f" {_version(printed)}".rstrip()
    return f"{PROGRAM}{version} {ended}: {reason}", "\n  ".join((fix, *told))


def _line_with(sign: str, printed: str) -> str:
    found = (line for line in printed.splitlines() if sign in line)
    return next(found, "").strip().removeprefix("ERROR: ").removeprefix("Compilation failed: ")


def _rows(log: str) -> tuple[Row, ...]:
    """Read the table that follows the line of heads."""
    lines = iter(log.splitlines())
    for line in lines:
        if line.split() == ["Operator", "Count", "Status"]:
            break
    found = (_LINE.match(line) for line in lines)
    return tuple(Row(match[1], int(match[2]), match[3]) for match in found if match)


def _version(log: str) -> str:
    found = re.search(r"Edge TPU Compiler version (\S+)", log)
    return found[1] if found else ""


def _bytes_after(words: str, log: str) -> int | None:
    found = re.search(rf"{words}:\s*([\d.]+)\s*([KMG]?i?B)\b", log)
    return round(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else None


def _disagreements(predicted: Mapping, rows: Iterable[Row], streamed: int | None) -> list[str]:
    """Compare operator by operator; the log tells how many have a status, not which."""
    found = [
        f"it was predicted that the compiler refuses this file ({reason}), but it compiled it"
        for reason in predicted.refused
    ]
    expected = Counter((op.name, op.status) for op in predicted.operators)
    got: Counter[tuple[str, str]] = Counter()
    for row in rows:
        got[row.name, row.status] += row.count
    for name in dict.fromkeys(name for name, _ in (*expected, *got)):
        ours, theirs = _counts(expected, name), _counts(got, name)
        if ours != theirs and not predicted.refused:
            found.append(
                f"{name}: predicted {ours or 'none'}, the compiler says {theirs or 'none'}"
            )
    if streamed and "streamed" not in predicted.cached and not predicted.refused:
        amount = f"{streamed / MIB:.2f} MiB"
        found.append(
            f"parameters: predicted {predicted.cached}, the compiler streams {amount} every "
            "inference"
        )
    if streamed == 0 and "streamed" in predicted.cached:
        found.append(f"parameters: predicted {predicted.cached}, the compiler caches all")
    return found


def _counts(of: Counter[tuple[str, str]], name: str) -> str:
    shares = sorted((status, count) for (own, status), count in of.items() if own == name)
    return ", ".join(f"{count} x {status!r}" for status, count in shares)
