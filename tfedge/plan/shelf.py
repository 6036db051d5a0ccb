"""A shelf for finished stages that machines without a common folder share: a URL of fsspec's.

A stage's place there is ``<url>/<pipeline>/<stage>-<key>``.  Its files are named after what is in
them, and its record comes last and only once, so that what has no record is not there, and machines
that upload the same stage do not meet.  What a training has saved after an epoch is beside it, so
that another machine can go on from there.

What fsspec calls ``mode="create"`` is atomic in some of its file systems alone; in the others it
looks first and then writes.  S3 is asked with If-None-Match, GCS with a generation of 0.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfedge.errors import UserError
from tfedge.plan import claims, store

NEEDS = {"s3": "s3fs", "gs": "gcsfs", "file": "fsspec", "memory": "fsspec"}
"""URLs whose file systems create atomically, and the package of each."""

_OPTIONS: dict[str, dict[str, Any]] = {
    # What another machine has made since must be seen.
    "s3": {"use_listings_cache": False},
    "gs": {"use_listings_cache": False},
    "file": {"auto_mkdir": True},
}

AGAIN = "finished stages are kept; the same command goes on when that is mended"
CLAIMS = "claims"
STATE = "state"


def open_shelf(url: str) -> Shelf:
    """Return the shelf at `url`; a UserError if it cannot be reached or creates nothing atomically.

    How to log in, and an address that is not the provider's own, come from the environment, such as
    AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL.
    """
    kind, sign, _ = url.partition("://")
    known = ", ".join(f"{name}://" for name in NEEDS)
    if not sign:
        fix = f"write one of {known}; a folder that all machines see is a --build-dir"
        raise UserError("--store", f"{url!r} is no URL", fix)
    if kind not in NEEDS:
        problem = f"{kind}:// cannot create a file only where there is none"
        raise UserError("--store", problem, f"write one of {known}")
    try:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(url, **_OPTIONS.get(kind, {}))
    except ImportError:
        fix = f"run: pip install {NEEDS[kind]!r}, or 'tfedge[store]' for s3://"
        raise UserError("--store", f"{kind}:// needs {NEEDS[kind]}", fix) from None
    shelf = Shelf(url.rstrip("/"), files, root.rstrip("/"))
    shelf.check()
    return shelf


@dataclass(frozen=True)
class Shelf:
    """Finished stages at a URL.

    Attributes:
      files: The file system, of fsspec.
      root: The URL's path in it.
    """

    url: str
    files: Any
    root: str

    def check(self) -> None:
        """Refuse a server that takes a condition and does not keep to it; some say nothing."""
        probe = f"{self.root}/.probe-{secrets.token_hex(8)}"
        with self.reached():
            once, twice = (self.created(probe, content) for content in (b"once", b"twice"))
            self.removed(probe)
        if not once or twice:
            problem = "the server replaces a file where it was asked to create one"
            raise UserError(self.url, problem, "use one that knows If-None-Match, as S3 does")

    def has(self, folder: Path) -> bool:
        """Whether the stage of that local `folder` is there."""
        return self._record(folder)[1] is not None

    def fetch(self, folder: Path) -> None:
        """Make `folder` of what is there, each file checked against the record's hash."""
        content, record = self._record(folder)
        if record is None:
            raise UserError(f"{self.url}/{self._name(folder)}", "is gone", AGAIN)
        arriving = folder.with_name(f"{folder.name}.arriving-{os.getpid()}")
        shutil.rmtree(arriving, ignore_errors=True)
        arriving.mkdir(parents=True)
        try:
            for name, seen in record["files"].items():
                file = arriving / Path(name).name
                self.get(f"{self.path(folder)}/{_object(name, seen['sha256'])}", file, seen)
                os.utime(file, ns=(seen["mtime_ns"], seen["mtime_ns"]))  # or each plan reads it
            (arriving / store.RECORD).write_bytes(content)
            shutil.rmtree(folder, ignore_errors=True)
            arriving.rename(folder)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)

    def put(self, folder: Path, *, anew: bool = False) -> None:
        """Upload a finished `folder`, unless it is there, and forget the states on the way there.

        Args:
          anew: Replace what is there.
        """
        if not anew and self.has(folder):
            return
        content, place = (folder / store.RECORD).read_bytes(), self.path(folder)
        record = store.record_in(content) or {"files": {}}
        with self.reached():
            for name, seen in record["files"].items():
                self.files.put_file(folder / name, f"{place}/{_object(name, seen['sha256'])}")
            # A record that is there is another's, as good as this; or half written, and no record.
            if anew or not (self.created(f"{place}/{store.RECORD}", content) or self.has(folder)):
                self.files.pipe_file(f"{place}/{store.RECORD}", content)
            self.removed(f"{place}/{STATE}", recursive=True)

    @contextmanager
    def lent(
        self, folder: Path, finished: Callable[[], bool], waiting: claims.Waiting
    ) -> Iterator[Loan | None]:
        """Give the right to make the stage of `folder`, or None once it is there."""
        # A look costs a request or three, which somebody pays for.
        slowly = replace(waiting, poll_s=4 * waiting.poll_s)
        place = _Objects(self, f"{self.path(folder)}/{CLAIMS}")
        with claims.claimed(place, finished, slowly) as claim:
            yield Loan(self, folder, claim) if claim else None

    def path(self, folder: Path) -> str:
        """Return where the stage of `folder` lies in the file system."""
        return f"{self.root}/{self._name(folder)}"

    def get(self, path: str, file: Path, seen: dict[str, Any]) -> None:
        """Download a file; a UserError if it is not the one that was `seen`."""
        try:
            with self.reached(), suppress(FileNotFoundError):
                self.files.get_file(path, file)
            found = store.sha256(file)
        except FileNotFoundError:
            found = "none"
        if found != seen["sha256"]:
            problem = f"is missing or damaged: its sha256 is {found}, not {seen['sha256']}"
            fix = "remove the folder that it is in; the stage is then made again"
            raise UserError(f"{self.url}{path.removeprefix(self.root)}", problem, fix)

    def read(self, path: str) -> bytes | None:
        """Return what an object holds; None if there is none."""
        with self.reached(), suppress(FileNotFoundError):
            return bytes(self.files.cat_file(path))
        return None

    def created(self, path: str, content: bytes) -> bool:
        """Create an object, unless there is one."""
        try:
            if "file" in self.files.protocol:  # whose pipe_file looks first and then writes
                self.files.makedirs(self.files._parent(path), exist_ok=True)
                with self.files.open(path, "xb") as stream:
                    stream.write(content)
            else:
                self.files.pipe_file(path, content, mode="create")
        except FileExistsError:
            # Ours, if the answer to a first request got lost and the client asked again.
            return self.read(path) == content
        return True

    def names(self, path: str) -> list[str]:
        """List what lies in a folder there."""
        with self.reached(), suppress(FileNotFoundError):
            found = self.files.ls(path, detail=False, refresh=True)
            return [name.rstrip("/").rpartition("/")[2] for name in found]
        return []

    def removed(self, path: str, *, recursive: bool = False) -> None:
        """Remove an object, or all that lies below, if it is there."""
        with self.reached(), suppress(FileNotFoundError):
            if recursive:
                self.files.rm(path, recursive=True)
            else:
                self.files.rm_file(path)

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Make one message of whatever goes wrong on the way there and back."""
        try:
            yield
        except UserError:
            raise
        except FileNotFoundError as error:
            raise UserError(self.url, f"is not there: {error}", "make the bucket first") from error
        except Exception as error:
            # Each file system has exceptions of its own, and so has what it is built on.
            problem = f"cannot be reached: {str(error) or type(error).__name__}"
            raise UserError(self.url, problem, AGAIN) from error

    def _record(self, folder: Path) -> tuple[bytes, dict[str, Any] | None]:
        content = self.read(f"{self.path(folder)}/{store.RECORD}") or b""
        return content, store.record_in(content)

    def _name(self, folder: Path) -> str:
        return f"{folder.parent.name}/{folder.name}"


@dataclass
class Loan:
    """A stage that this process makes for the shelf.

    Attributes:
      folder: The stage's, here.
      claim: The right to make it.
    """

    shelf: Shelf
    folder: Path
    claim: claims.Claim

    def __post_init__(self) -> None:
        self._sent: set[str] = set()

    def begin(self, out: Path) -> None:
        """Go on from the last epoch that any machine has saved, in place of what lies in `out`."""
        for number in range(self.claim.number, 0, -1):
            content = self.shelf.read(f"{self._state(number)}/{STATE}.json")
            if content is None:
                continue
            arriving = out.with_name(f"{out.name}.arriving")
            shutil.rmtree(arriving, ignore_errors=True)
            arriving.mkdir()
            for name, seen in json.loads(content).items():
                file = arriving / name
                file.parent.mkdir(parents=True, exist_ok=True)
                self.shelf.get(f"{self._state(number)}/{seen['sha256']}", file, seen)
            shutil.rmtree(out)
            arriving.rename(out)
            return

    def keep(self, out: Path) -> None:
        """Upload what is in `out` after an epoch; a machine that is lost takes one epoch with it.

        It lies under the claim's number, where one who has lost the claim hurts nobody, and counts
        once its list is there.
        """
        self.claim.check()
        place = self._state(self.claim.number)
        there = sorted(file for file in out.rglob("*") if file.is_file())
        seen = {file: store.sha256(file) for file in there}
        with self.shelf.reached():
            for file, digest in seen.items():
                if digest not in self._sent:
                    self.shelf.files.put_file(file, f"{place}/{digest}")
            told = {file.relative_to(out).as_posix(): {"sha256": seen[file]} for file in there}
            self.shelf.files.pipe_file(f"{place}/{STATE}.json", json.dumps(told).encode())
            for digest in self._sent - set(seen.values()):
                self.shelf.removed(f"{place}/{digest}")
        self._sent = set(seen.values())

    def end(self, *, anew: bool) -> None:
        """Upload the finished folder; see `Shelf.put`."""
        self.claim.check()
        self.shelf.put(self.folder, anew=anew)

    def _state(self, number: int) -> str:
        return f"{self.shelf.path(self.folder)}/{STATE}/{number}"


@dataclass(frozen=True)
class _Objects:
    """Claims as objects, see `tfedge.plan.claims.Place`."""

    shelf: Shelf
    path: str

    def __str__(self) -> str:
        return f"{self.shelf.url}{self.path.removeprefix(self.shelf.root).removesuffix(CLAIMS)}"

    def numbers(self) -> list[int]:
        return sorted(int(name) for name in self.shelf.names(self.path) if name.isdigit())

    def create(self, number: int, content: bytes) -> bool:
        with self.shelf.reached():
            return self.shelf.created(f"{self.path}/{number}", content)

    def read(self, number: int) -> bytes | None:
        return self.shelf.read(f"{self.path}/{number}")

    def write(self, number: int, content: bytes) -> None:
        with self.shelf.reached():
            self.shelf.files.pipe_file(f"{self.path}/{number}", content)

    def remove(self, number: int) -> None:
        self.shelf.removed(f"{self.path}/{number}")


def _object(name: str, digest: str) -> str:
    return f"{digest[:16]}-{name}"
