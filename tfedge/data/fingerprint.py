"""A fingerprint of files: their names, sizes and contents, without reading them again each time.

A file counts as unchanged while its size and its time of change are.  A file whose content was
changed with both put back goes unnoticed; that is the price of not reading every photo at each run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tfedge.data.listing import File, Listing, list_photos
from tfedge.errors import UserError
from tfedge.paths import replace

_BATCH = 256
_READ_BYTES = 1 << 20


class Contents(NamedTuple):
    """What was found in the listed files.

    Attributes:
      fingerprint: 64 hex digits; depends on no time and on no place.
      digests: Each readable file's SHA-256 in hex, by its name.
      unreadable: Why each of the others could not be read.
    """

    fingerprint: str
    digests: dict[str, str]
    unreadable: dict[str, str]


def fingerprint(folder: Path, cache: Path) -> str:
    """Return the fingerprint of the photos below `folder`: 64 hex digits.

    0.3 s for 55,000 unchanged photos on 2 cores of a server, nearly all of it the listing.

    Args:
      cache: A folder for what is known of contents, made if need be.
    """
    listing = list_photos(folder)
    known = _known(_cache_file(folder, cache), _listed(listing))
    return known or contents(listing, cache).fingerprint


def file_fingerprint(file: Path, cache: Path) -> str:
    """Return the fingerprint of one file, such as an .npz: 64 hex digits."""
    try:
        stat = file.stat()
    except OSError as error:
        raise UserError(file, f"cannot be read: {error.strerror}") from error
    listing = Listing(file.parent, (File(file.name, stat.st_size, stat.st_mtime_ns),), ())
    found = contents(listing, cache, name=file)
    if found.unreadable:
        raise UserError(file, f"cannot be read: {found.unreadable[file.name]}")
    return found.fingerprint


def contents(listing: Listing, cache: Path, name: Path | None = None) -> Contents:
    """Return the files' digests, reading only those that changed since the last call.

    Args:
      cache: A folder for what is known of contents.  What is damaged in it is made anew.
      name: What the cache's file is named after; the listing's folder unless given.
    """
    file = _cache_file(name or listing.folder, cache)
    known = _entries(file)
    digests: dict[str, str] = {}
    changed: list[str] = []
    for entry in listing.files:
        if (old := known.get(entry.name)) and tuple(old[:2]) == (entry.size, entry.mtime_ns):
            digests[entry.name] = old[2]
        else:
            changed.append(entry.name)
    new, unreadable = _digest_all(listing.folder, changed)
    digests |= new
    result = Contents(_fingerprint(listing, digests), digests, unreadable)
    # A file that becomes readable may keep its size and time, so such a listing is never trusted.
    listed = "" if unreadable else _listed(listing)
    if changed or len(known) != len(digests) or _known(file, listed) != result.fingerprint:
        _write(file, listing, result, listed)
    return result


def _listed(listing: Listing) -> str:
    """Hash everything that the listing alone says."""
    lines = [f"{name}\0{size}\0{time}" for name, size, time in listing.files]
    return _sha256("\n".join([*listing.folders, "", *lines]))


def _fingerprint(listing: Listing, digests: dict[str, str]) -> str:
    # No name holds a NUL, so no two folders give the same text.
    lines = [f"{name}\0{size}\0{digests.get(name, '')}" for name, size, _ in listing.files]
    return _sha256("\0\n".join([*listing.folders, "", *lines]))


def _digest_all(folder: Path, names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Hash files, and say of those that cannot be read why."""
    digests: dict[str, str] = {}
    unreadable: dict[str, str] = {}

    def digest(batch: Sequence[str]) -> None:
        for name in batch:
            try:
                digests[name] = _digest(f"{folder}{os.sep}{name}")
            except OSError as error:
                unreadable[name] = error.strerror or str(error)

    batches = [names[at : at + _BATCH] for at in range(0, len(names), _BATCH)]
    # More threads than 2 only fight over small files in memory; on a disk, 2 keep it busy.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(digest, batches))
    return digests, {name: unreadable[name] for name in names if name in unreadable}


def _digest(path: str) -> str:
    whole = hashlib.sha256()
    # Not Path.open: its buffers would take twice as long as a small photo's hash.
    number = os.open(path, os.O_RDONLY)
    try:
        while part := os.read(number, _READ_BYTES):
            whole.update(part)
    finally:
        os.close(number)
    return whole.hexdigest()


def _cache_file(path: Path, cache: Path) -> Path:
    """Name the cache's file after the whole path: the same names elsewhere are other files."""
    whole = path.resolve()
    return cache / "hashes" / f"{whole.name}-{_sha256(str(whole))[:12]}"


def _known(file: Path, listed: str) -> str:
    """Return the fingerprint that belongs to a listing, empty if the cache holds another's."""
    try:
        with file.open("rb") as stream:
            head = json.loads(stream.readline())
        return str(head["fingerprint"]) if listed and head["listed"] == listed else ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _entries(file: Path) -> dict[str, tuple[int, int, str]]:
    """Return size, time and digest of each file in the cache, or nothing if it is damaged."""
    try:
        head, _, body = file.read_bytes().partition(b"\n")
        if json.loads(head)["body"] != hashlib.sha256(body).hexdigest():
            return {}
        found: dict[str, tuple[int, int, str]] = json.loads(body)
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return found


def _write(file: Path, listing: Listing, found: Contents, listed: str) -> None:
    """Write two lines: what a run without a change needs, and what is known of each file."""
    body = json.dumps(
        {
            name: (size, time, found.digests[name])
            for name, size, time in listing.files
            if name in found.digests
        }
    )
    head = {"listed": listed, "fingerprint": found.fingerprint, "body": _sha256(body)}
    file.parent.mkdir(parents=True, exist_ok=True)
    replace(file, f"{json.dumps(head)}\n{body}")


def _sha256(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()
