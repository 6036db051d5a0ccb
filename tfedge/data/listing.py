"""The photos below a folder, found without opening any."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tfedge.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
OFTEN_UNREADABLE = (".heic", ".heif", ".avif", ".tif", ".tiff")
"""Photos, too, that not every machine can read: better named as unreadable than unseen."""


class File(NamedTuple):
    """A file's name below the listed folder ("/" between its parts), bytes, and time of change."""

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """What lies below a folder.

    Attributes:
      files: The photos by their suffix, sorted by name; nothing hidden.
      folders: The folders one and two levels below, such as ``train`` and ``train/cat``, sorted.
    """

    folder: Path
    files: tuple[File, ...]
    folders: tuple[str, ...]


def list_photos(folder: Path) -> Listing:
    """List the photos below `folder`, at any depth.

    Names that begin with a dot are left out, and so are files that are no photos by their suffix.
    Linked folders are followed.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(folder, what, "write the folder that holds <class>/*.jpg")
    files: list[File] = []
    folders: list[str] = []
    pending: list[tuple[str, tuple[str, ...]]] = [("", ())]
    while pending:
        prefix, above = pending.pop()
        path = os.path.join(folder, prefix)  # noqa: PTH118 (a Path a folder is fine, a file is not)
        real = os.path.realpath(path)
        if real in above:
            raise UserError(path, "is a link to a folder that it lies in", "remove the link")
        below = _look_into(path, prefix, files)
        folders += [name for name in below if name.count("/") < 2]  # noqa: PLR2004
        pending += [(f"{name}/", (*above, real)) for name in below]
    return Listing(folder, tuple(sorted(files)), tuple(sorted(folders)))


def _look_into(path: str, prefix: str, files: list[File]) -> list[str]:
    """Append the photos in one folder to `files`; return the names of its folders."""
    folders = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(prefix + entry.name)
                elif entry.name.lower().endswith((*SUFFIXES, *OFTEN_UNREADABLE)):
                    files.append(_file(prefix + entry.name, entry))
    except OSError as error:
        raise UserError(path, f"cannot be listed: {error.strerror}") from error
    return folders


def _file(name: str, entry: os.DirEntry[str]) -> File:
    try:
        stat = entry.stat()
    except FileNotFoundError:  # a link to nowhere; reading it will say so
        return File(name, 0, 0)
    return File(name, stat.st_size, stat.st_mtime_ns)
