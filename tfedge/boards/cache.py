"""A folder of things that take long to fetch or make, kept from one run to the next."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfedge.errors import UserError


def cached(name: str, decides: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` fills, filled only once for the same `decides`.

    It is filled under another name and then renamed, so that one that is there is whole; who comes
    while another process fills it waits for that.

    Args:
      name: What the folder's name begins with; the rest is the hash of `decides`.
      decides: Everything that decides what is in the folder, as JSON takes it.
      make: Fills the empty folder that it is given.  If it raises, nothing is kept.
    """
    folder = _prepared() / _name(name, decides)
    if folder.is_dir():
        return folder
    partial = folder.with_suffix(".partial")
    with _alone(folder.with_suffix(".lock")):
        if not folder.is_dir():
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            partial.mkdir()
            try:
                make(partial)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def holds(name: str, decides: Mapping[str, Any]) -> bool:
    """Say whether `cached` would find the folder and make nothing."""
    return (_home() / _name(name, decides)).is_dir()


def _name(name: str, decides: Mapping[str, Any]) -> str:
    text = json.dumps(decides, sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _home() -> Path:
    given = os.environ.get("TFEDGE_CACHE")
    return Path(given).absolute() if given else Path.home() / ".cache" / "tfedge"


def _prepared() -> Path:
    home = _home()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = "set TFEDGE_CACHE to a folder that can be written"
        raise UserError(home, error.strerror or str(error), fix) from None
    return home


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold a lock that the system takes back from a process that ends, however it ends."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
