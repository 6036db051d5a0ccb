"""Arrays as data: an .npz file, or what a function of the user's own returned; both of one form.

Either ``x`` and ``y``: each row's split comes from the hash of its number (`splits.split_of`), so
that rows appended later move none.  Or ``x_train``, ``y_train``, ``x_test``, ``y_test`` and, unless
tune shall be taken out of train by the same hash, ``x_tune`` and ``y_tune``.  And, optionally,
``labels``.

``x`` is uint8 [count, height, width(, channels)] of images, or numbers of another type and of one
to three axes a row, which become float32.  ``y`` is integers from 0, or strings: the labels.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfedge.data.choices import Choices, Says
from tfedge.data.dataset import Data
from tfedge.data.forms import Table, tables
from tfedge.data.maps import BATCH_BYTES, UNREADABLE, create, find, opened, store
from tfedge.data.problems import Problems, check_labels, plural
from tfedge.data.splits import SPLITS, classes_without_examples, repeated
from tfedge.errors import UserError

_MIN_CLASSES = 2


def load_npz(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an .npz file; never code, which a pickle would be."""
    fix = "write it with: numpy.savez(file, x=..., y=...)"
    if not file.is_file():
        raise UserError(file, "does not exist", "write the path of an .npz file")
    if not zipfile.is_zipfile(file):
        raise UserError(file, "is not an .npz file", fix)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(file, f"cannot be read: {error}", fix) from error


def arrays_fingerprint(arrays: Mapping[str, Any]) -> str:
    """Return the fingerprint of arrays: their names, types, shapes and contents; 64 hex digits."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        whole.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        whole.update(array.tobytes() if array.dtype.hasobject else array.view(np.uint8).data)
    return whole.hexdigest()


def open_arrays(
    load: Callable[[], Mapping[str, Any]],
    cache: Path,
    choices: Choices,
    *,
    where: object,
    fingerprint: str,
    says: Says | None = None,
) -> Data:
    """Return arrays as data, written to memory-mapped files unless that was done before.

    Args:
      load: Returns the arrays; called only if they were not written before.
      cache: A folder for the files, made if need be.
      where: What messages name: the .npz file, or the function.
      fingerprint: Stands for what `load` returns, as of `fingerprint.file_fingerprint` or
        `arrays_fingerprint`.
    """
    parts = (fingerprint, choices.tune_share, choices.test_share, choices.skip_duplicates)
    place = cache / hashlib.sha256(repr(("arrays", *parts)).encode()).hexdigest()
    stored = find(place) or store(place, lambda partial: _fill(partial, load(), where, choices))
    return opened(stored, choices.normalise, (says or Says()).message)


def _fill(
    partial: Path, arrays: Mapping[str, Any], where: object, choices: Choices
) -> dict[str, Any]:
    """Write the arrays into `partial` and return the record, or raise all that is wrong."""
    problems, notes = Problems(where), list[str]()
    found, labels = tables(arrays, choices, problems)
    problems.check()
    check_labels(problems, labels)
    if len(labels) < _MIN_CLASSES:
        problems.add(f"y holds {plural(len(labels), 'class')} only", "give at least two classes")
    found = _without_copies(found, choices, problems, notes)
    _check_finite(found, problems)
    splits = [table.split for table in found for _ in table.classes]
    names = [labels[number] for table in found for number in table.classes]
    if lacking := classes_without_examples(labels, splits, names):
        problems.add(
            "classes without an example",
            "add rows of them, or change tune_share or test_share",
            names=lacking,
        )
    problems.check()
    for split in SPLITS:
        _write(partial, split, [table for table in found if table.split == split])
    kind = "image" if found[0].x.dtype == np.uint8 else "array"
    return {"kind": kind, "labels": labels, "notes": notes}


def _without_copies(
    found: list[Table], choices: Choices, problems: Problems, notes: list[str]
) -> list[Table]:
    """Leave out rows that are in a more precious split too, or note the pairs as a problem."""
    places = [(number, row) for number, table in enumerate(found) for row in range(len(table.rows))]
    splits = [found[number].split for number, _ in places]
    copies = repeated(splits, [digest for table in found for digest in _digests(table)])
    if not copies:
        return found
    if choices.skip_duplicates:
        notes.append(f"left out {plural(len(copies), 'row')} that a later split holds too")
        left_out = {places[copy] for copy in copies}
        return [_pick(table, number, left_out) for number, table in enumerate(found)]

    def name(place: int) -> str:
        table = found[places[place][0]]
        return f"{table.name}[{table.rows[places[place][1]]}] ({table.split})"

    problems.add(
        f"{plural(len(copies), 'row')} in two splits at once, which would flatter the accuracy",
        "remove one of each pair, or set skip_duplicates = true to keep the copies in test",
        names=[f"{name(copy)} is {name(kept)}" for copy, kept in copies.items()],
    )
    return found


def _pick(table: Table, number: int, left_out: set[tuple[int, int]]) -> Table:
    rows = [row for row in range(len(table.rows)) if (number, row) not in left_out]
    return table._replace(rows=table.rows[rows], classes=table.classes[rows])


def _digests(table: Table) -> Iterator[bytes]:
    for _, part in _parts(table):
        # Adding 0 turns -0 into 0, which is the same number in other bytes.
        yield from (hashlib.sha256((row + row.dtype.type(0)).tobytes()).digest() for row in part)


def _check_finite(found: Sequence[Table], problems: Problems) -> None:
    bad: list[str] = []
    for table in found:
        for first, part in _parts(table):
            finite = np.isfinite(part).all(axis=tuple(range(1, part.ndim)))
            rows = table.rows[first + np.flatnonzero(~finite)]
            bad += [f"{table.name}[{row}]" for row in rows]
    if bad:
        problems.add(
            f"{plural(len(bad), 'row')} with NaN, infinity or a number beyond float32",
            "remove or replace them",
            names=bad,
        )


def _write(partial: Path, split: str, mine: Sequence[Table]) -> None:
    """Write <split>.npy and <split>.classes.npy."""
    (table,) = mine
    dtype = np.uint8 if table.x.dtype == np.uint8 else np.float32
    rows = create(partial / f"{split}.npy", (len(table.rows), *table.x.shape[1:]), dtype)
    for first, part in _parts(table):
        rows.put(first, part)
    np.save(partial / f"{split}.classes.npy", table.classes)


def _parts(table: Table) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the table's rows as they are stored, uint8 or float32, a few megabytes at a time."""
    dtype = np.uint8 if table.x.dtype == np.uint8 else np.float32
    step = max(1, BATCH_BYTES // max(1, table.x[:1].nbytes))
    for at in range(0, len(table.rows), step):
        with np.errstate(over="ignore"):  # infinity then, which `_check_finite` names
            yield at, table.x[table.rows[at : at + step]].astype(dtype)
