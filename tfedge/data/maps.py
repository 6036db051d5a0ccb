"""Decoded data in memory-mapped files, which are there in full or not at all."""

from __future__ import annotations

import fcntl
import json
import shutil
import tokenize
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfedge.data.dataset import Data, Split, normalisation
from tfedge.data.splits import SPLITS
from tfedge.errors import UserError
from tfedge.paths import replace

FORMAT = 1
BATCH_BYTES = 16 << 20
UNREADABLE = (OSError, ValueError, EOFError, tokenize.TokenError)
"""What numpy raises on a damaged file; the last where the quotes in a header do not match."""


class Stored(NamedTuple):
    """A finished folder: its record (see `store`), and the splits in the order of `SPLITS`."""

    folder: Path
    record: dict[str, Any]
    splits: tuple[Split, ...]


class Rows(NamedTuple):
    """A .npy file that is filled in any order, also by several threads.

    Written as a file, not through a map: a full disk is then an error and not a killed process, and
    the rows do not stay in this process's memory.
    """

    file: Path
    start: int
    row_bytes: int

    def put(self, first: int, rows: npt.NDArray[Any]) -> None:
        """Write `rows` from row number `first` on."""
        with self.file.open("r+b") as stream:
            stream.seek(self.start + first * self.row_bytes)
            stream.write(rows.tobytes())


def create(file: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Rows:
    """Make a .npy file of zeros, and refuse what the disk does not hold."""
    row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
    free = shutil.disk_usage(file.parent).free
    if shape[0] * row_bytes > free:
        raise UserError(
            file.parent,
            f"needs {shape[0] * row_bytes:,} bytes for the decoded data, and has {free:,} left",
            "free some, or choose another build folder",
        )
    start = np.lib.format.open_memmap(file, "w+", np.dtype(dtype), shape).offset
    return Rows(file, start, row_bytes)


def keep(file: Path, rows: Sequence[int]) -> None:
    """Rewrite a .npy file with only some of its rows."""
    old = np.load(file, mmap_mode="r")
    partial = file.with_suffix(".kept")
    new = create(partial, (len(rows), *old.shape[1:]), old.dtype)
    step = max(1, BATCH_BYTES // new.row_bytes)
    for at in range(0, len(rows), step):
        new.put(at, old[list(rows[at : at + step])])
    partial.replace(file)


def find(folder: Path) -> Stored | None:
    """Open a finished folder; None if it is not there, not finished or damaged."""
    try:
        record = json.loads((folder / "record.json").read_bytes())
        splits = tuple(
            Split(
                np.load(folder / f"{name}.npy", mmap_mode="r"),
                np.load(folder / f"{name}.classes.npy"),
            )
            for name in SPLITS
        )
        whole = [list(split.inputs.shape) for split in splits] == record["shapes"]
        whole = whole and all(len(split.inputs) == len(split.classes) for split in splits)
    except (*UNREADABLE, LookupError, TypeError):
        return None
    return Stored(folder, record, splits) if whole and record["format"] == FORMAT else None


def store(folder: Path, fill: Callable[[Path], dict[str, Any]]) -> Stored:
    """Return the finished `folder`, made by `fill` unless it is there already.

    `fill` works in a folder of another name, and the record is its last file: what a killed process
    leaves behind is never taken for finished, and is removed by the next.  A second process that
    wants the same folder waits for the first.

    Args:
      fill: Writes <split>.npy and <split>.classes.npy of each split into the folder that it is
        given.  Returns the record: "kind", "labels", "notes" and, of images, "resize" and "fit".
    """
    with _alone(folder):
        if stored := find(folder):
            return stored
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            record = fill(partial)
            shapes = [np.load(partial / f"{name}.npy", mmap_mode="r").shape for name in SPLITS]
            record |= {"format": FORMAT, "shapes": shapes}
            replace(partial / "record.json", json.dumps(record, indent=1))
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    stored = find(folder)
    if stored is None:
        raise OSError(f"{folder}: cannot be read although it was just written")
    return stored


def opened(stored: Stored, normalise: str, tell: Callable[[str], None]) -> Data:
    """Return finished files as data, and repeat what was said when they were made."""
    for note in stored.record["notes"]:
        tell(note)
    record, (train, tune, test) = stored.record, stored.splits
    mean, std = _normalisation(stored, normalise)
    return Data(
        train,
        tune,
        test,
        labels=tuple(record["labels"]),
        kind=record["kind"],
        mean=mean,
        std=std,
        resize=record.get("resize", ""),
        fit=record.get("fit", ""),
    )


def _normalisation(stored: Stored, how: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Choose mean and std, reading the whole train split for "standard" the first time only."""
    kind, train = stored.record["kind"], stored.splits[0]
    if not (how == "standard" or (not how and kind == "array")):
        return normalisation(train, kind, how)
    file = stored.folder / "standard.json"
    try:
        known = json.loads(file.read_bytes())
        mean, std = known["mean"], known["std"]
    except (OSError, ValueError, LookupError, TypeError):
        mean, std = normalisation(train, kind, "standard")
        replace(file, json.dumps({"mean": mean, "std": std}))
    return tuple(mean), tuple(std)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock that the system lets go of when the process ends, however it ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
