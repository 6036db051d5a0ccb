"""A folder of photos as data: decoded once, by the very function that the board runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from tfedge.data.choices import Choices, Says
from tfedge.data.dataset import Data
from tfedge.data.fingerprint import contents
from tfedge.data.folder import Photo, arrange
from tfedge.data.listing import Listing, list_photos
from tfedge.data.maps import BATCH_BYTES, Rows, create, find, keep, opened, store
from tfedge.data.problems import Problems, check_labels, plural
from tfedge.data.splits import SPLITS, classes_without_examples, repeated
from tfedge.errors import UserError
from tfedge.paths import runner

_BATCH = 128  # photos; large ones go in fewer, see `_decode`
_SAY_S = 0.2
_SMALL_BYTES = 2048


@dataclass(frozen=True)
class Pictures:
    """What photos are made into.

    Attributes:
      shape: Height, width and channels; 1 channel is grey, 3 are RGB.
      resize: nearest, bilinear, bicubic or lanczos.
      fit: stretch, crop or pad.
    """

    shape: tuple[int, int, int]
    resize: str = "bilinear"
    fit: str = "stretch"


def open_folder(
    folder: Path,
    cache: Path,
    pictures: Pictures,
    choices: Choices,
    *,
    fingerprint: str,
    says: Says | None = None,
) -> Data:
    """Return the photos of `folder` as data, decoding them unless that was done before.

    Where it was, the photos are not looked at again: the fingerprint stands for them.  For 55,000
    JPEGs of 32x32 that takes milliseconds, and the first time 10 s, on 2 cores of a server.

    Args:
      cache: A folder for the decoded photos, made if need be.
      fingerprint: What `fingerprint.fingerprint(folder, cache)` answered.
    """
    says = says or Says()
    place = cache / _key(fingerprint, pictures, choices)
    job = _Job(folder, cache, fingerprint, pictures, choices, says)
    stored = find(place) or store(place, lambda partial: _fill(partial, job))
    return opened(stored, choices.normalise, says.message)


def _key(fingerprint: str, pictures: Pictures, choices: Choices) -> str:
    """Hash all that the pixels depend on, the code that makes them included."""
    code = Path(str(runner().__file__)).read_bytes()
    parts = (
        fingerprint,
        pictures,
        (choices.tune_share, choices.test_share),
        (choices.skip_unreadable, choices.skip_duplicates),
        hashlib.sha256(code).hexdigest(),
        version("pillow"),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class _Job(NamedTuple):
    folder: Path
    cache: Path
    fingerprint: str
    pictures: Pictures
    choices: Choices
    says: Says


def _fill(partial: Path, job: _Job) -> dict[str, Any]:
    """Decode into `partial` and return the record, or raise all that is wrong with the photos."""
    listing = list_photos(job.folder)
    known = contents(listing, job.cache)
    if known.fingerprint != job.fingerprint:
        raise _changed(job.folder)
    layout = arrange(listing, job.choices)
    problems, notes = Problems(job.folder), list[str]()
    check_labels(problems, layout.labels)
    chosen = _without_copies(layout.photos, known.digests, job.choices, problems, notes)
    reasons = _decode(partial, chosen, job, threads=_threads(listing))
    _note_unreadable(reasons, job.choices, problems, notes)
    readable = [photo for photo in chosen if photo.name not in reasons]
    lacking = classes_without_examples(
        layout.labels, [photo.split for photo in readable], [photo.label for photo in readable]
    )
    if lacking:
        problems.add(
            "classes without a photo that can be used",
            "add photos of them, remove the class's folder, or change tune_share or test_share",
            names=lacking,
        )
    problems.check()
    if list_photos(job.folder) != listing:
        raise _changed(job.folder)
    _write_classes(partial, chosen, set(reasons), layout.labels)
    return {
        "kind": "image",
        "labels": layout.labels,
        "notes": notes,
        "resize": job.pictures.resize,
        "fit": job.pictures.fit,
    }


def _without_copies(
    photos: Sequence[Photo],
    digests: dict[str, str],
    choices: Choices,
    problems: Problems,
    notes: list[str],
) -> list[Photo]:
    """Leave out photos that are in a more precious split too, or note the pairs as a problem."""
    splits = [photo.split for photo in photos]
    copies = repeated(splits, [digests.get(photo.name, photo.name) for photo in photos])
    if not copies:
        return list(photos)
    if choices.skip_duplicates:
        notes.append(f"left out {plural(len(copies), 'photo')} that a later split holds too")
        return [photo for number, photo in enumerate(photos) if number not in copies]
    problems.add(
        f"{plural(len(copies), 'photo')} in two splits at once, which would flatter the accuracy",
        "remove one of each pair, or set skip_duplicates = true to keep the copies in test",
        names=[
            f"{photos[copy].name} ({splits[copy]}) is {photos[kept].name} ({splits[kept]})"
            for copy, kept in copies.items()
        ],
    )
    return list(photos)


def _note_unreadable(
    reasons: dict[str, str], choices: Choices, problems: Problems, notes: list[str]
) -> None:
    if reasons and choices.skip_unreadable:
        notes.append(f"left out {plural(len(reasons), 'photo')} that cannot be read")
    elif reasons:
        problems.add(
            f"{plural(len(reasons), 'photo')} that cannot be read",
            "replace or remove them, or set skip_unreadable = true",
            names=[f"{name}: {reason}" for name, reason in sorted(reasons.items())],
        )


def _threads(listing: Listing) -> int:
    """Choose how many threads decode.

    Of thumbnails under 2 kB, two threads spend more on waiting for Python's lock than they gain
    (220 against 145 us a CIFAR-10 JPEG on 2 cores of a server); with larger photos they take half
    the time of one.
    """
    total = sum(file.size for file in listing.files)
    return 1 if total < _SMALL_BYTES * len(listing.files) else os.cpu_count() or 1


def _decode(partial: Path, photos: Sequence[Photo], job: _Job, *, threads: int) -> dict[str, str]:
    """Write <split>.npy of each split, in the photos' order; say which cannot be read, and why."""
    shape, reasons = job.pictures.shape, dict[str, str]()
    step = max(1, min(_BATCH, BATCH_BYTES // int(np.prod(shape))))
    batches: list[tuple[Rows, int, Sequence[Photo]]] = []
    for split in SPLITS:
        mine = [photo for photo in photos if photo.split == split]
        rows = create(partial / f"{split}.npy", (len(mine), *shape), np.uint8)
        batches += [(rows, at, mine[at : at + step]) for at in range(0, len(mine), step)]

    def decode(batch: tuple[Rows, int, Sequence[Photo]]) -> int:
        rows, first, mine = batch
        pixels = np.zeros((len(mine), *shape), np.uint8)
        for place, photo in zip(pixels, mine, strict=True):
            if reason := _read(f"{job.folder}{os.sep}{photo.name}", job.pictures, place):
                reasons[photo.name] = reason
        rows.put(first, pixels)
        return len(mine)

    # Threads, not processes: Pillow decodes outside Python's lock, and a process would import the
    # caller's script again, which may have no guard against that.
    pool = ThreadPoolExecutor(threads)
    try:
        _count(pool.map(decode, batches), len(photos), job.says)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt waits for a batch, not for all of them
    return reasons


def _read(path: str, pictures: Pictures, pixels: np.ndarray[Any, Any]) -> str:
    """Decode one photo into `pixels`; return what hinders it, if anything does."""
    infer = runner()
    try:
        pixels[:] = infer.read_image(path, pictures.shape, pictures.resize, pictures.fit)
    except infer.ImageError as error:
        return str(error).removeprefix(path).lstrip(": ")
    return ""


def _count(done: Iterable[int], total: int, says: Says) -> None:
    """Report the sum of `done` a few times a second, and once it is complete."""
    count, said = 0, monotonic()
    for more in done:
        count += more
        if monotonic() - said > _SAY_S and count < total:
            said = monotonic()
            says.progress(count, total)
    says.progress(count, total)


def _write_classes(
    partial: Path, photos: Sequence[Photo], unreadable: set[str], labels: Sequence[str]
) -> None:
    """Write <split>.classes.npy, and take the rows of unreadable photos out of <split>.npy."""
    number = {label: index for index, label in enumerate(labels)}
    for split in SPLITS:
        mine = [photo for photo in photos if photo.split == split]
        rows = [row for row, photo in enumerate(mine) if photo.name not in unreadable]
        if len(rows) < len(mine):
            keep(partial / f"{split}.npy", rows)
        classes = np.array([number[mine[row].label] for row in rows], np.int64)
        np.save(partial / f"{split}.classes.npy", classes)


def _changed(folder: Path) -> UserError:
    return UserError(folder, "changed while it was being read", "run again when it is complete")
