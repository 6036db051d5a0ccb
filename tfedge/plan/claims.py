"""Who makes what several processes or machines need: one of them, by a claim that expires.

Claims of one thing are numbered files, and the highest number holds.  To claim is to create the
next number, which a file system lets only one do; so there is nothing to lock (NFS has no locks to
rely on), and an object store with an atomic create serves as well.  A holder rewrites its own file
now and then.  A waiter who sees no change for the lease by a clock of its own takes the next
number; the clocks of two machines are never compared.  Of a process on its own machine a waiter
sees whether it lives: it does not wait for one that is gone, and longer for one that is there.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from tfedge.errors import UserError

FOLDER = ".claims"

_BUSY = 10
"""Leases that a process is given which is there, and may be too busy to say so."""


class Lost(UserError):  # noqa: N818 - what happened to a claim
    """Another has taken over what this process was making, since it was not heard of."""


class Place(Protocol):
    """Where the claims of one thing lie; as a text, the thing."""

    def numbers(self) -> list[int]:
        """Return the numbers of all claims, from low to high."""

    def create(self, number: int, content: bytes) -> bool:
        """Create a claim, unless there is one of that number or somebody is clearing up."""

    def read(self, number: int) -> bytes | None:
        """Return a claim's content; None if it is gone."""

    def write(self, number: int, content: bytes) -> None:
        """Replace the content of a claim of one's own."""

    def remove(self, number: int) -> None:
        """Remove a claim, if it is there."""


@dataclass(frozen=True)
class Folder:
    """Claims as files of a folder that all who claim can see."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.parent.parent / self.path.name)

    def numbers(self) -> list[int]:
        try:
            return sorted(int(file.name) for file in self.path.iterdir() if file.name.isdigit())
        except FileNotFoundError:
            return []

    def create(self, number: int, content: bytes) -> bool:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with (self.path / str(number)).open("xb") as stream:
                stream.write(content)
        except (FileExistsError, FileNotFoundError):  # the folder goes with its last claim
            return False
        return True

    def read(self, number: int) -> bytes | None:
        try:
            return (self.path / str(number)).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, number: int, content: bytes) -> None:
        # In place: a reader who meets half of it sees a change all the same, and one that is gone
        # must not come back.
        with (self.path / str(number)).open("r+b") as stream:
            stream.write(content)
            stream.truncate()

    def remove(self, number: int) -> None:
        (self.path / str(number)).unlink(missing_ok=True)
        with suppress(OSError):  # others are in it
            self.path.rmdir()


def beside(folder: Path) -> Folder:
    """Return the place for claims of a stage's `folder`."""
    return Folder(folder.parent / FOLDER / folder.name)


@dataclass(frozen=True)
class Waiting:
    """How others are waited for.

    Attributes:
      lease_s: A claim that has not changed for so long is taken over.
      poll_s: Time between two looks.
      say: Told once who is waited for.
    """

    lease_s: float = 60.0
    poll_s: float = 0.5
    say: Callable[[str], None] = field(default=lambda _: None)


PATIENT = Waiting()


class Claim:
    """The right to make something, as long as nobody has a higher number.

    A thread of it tells the others that this process lives.

    Args:
      place: Where a claim of this `number` was created.
    """

    def __init__(self, place: Place, number: int, lease_s: float) -> None:
        self.place = place
        self.number = number
        self._lease_s = lease_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def is_lost(self) -> bool:
        """Whether another has taken over."""
        # Who takes over and ends clears up, too: then there is no claim at all any more.
        numbers = self.place.numbers()
        return self.number not in numbers or numbers[-1] > self.number

    def check(self) -> None:
        """Raise `Lost` if another has taken over."""
        if self.is_lost():
            problem = (
                f"another has taken over, as this one was not heard of for {self._lease_s:g} s"
            )
            raise Lost(self.place, problem, "run the same command again; nothing is damaged")

    def release(self, *, done: bool) -> None:
        """Let go: for good if all is `done`, else for the next who wants to make it."""
        self._ended.set()
        self._thread.join(self._lease_s)
        if done:
            for number in self.place.numbers():
                if number <= self.number:
                    self.place.remove(number)
        elif not self.is_lost():
            self.place.write(self.number, _content(free=True))

    def _beat(self) -> None:
        beats = 0
        while not self._ended.wait(self._lease_s / 4):
            beats += 1
            with suppress(OSError, UserError):  # a share that is away may be back for the next
                if self.is_lost():
                    return
                self.place.write(self.number, _content(beats=beats))


@contextmanager
def claimed(
    place: Place, finished: Callable[[], bool], waiting: Waiting = PATIENT
) -> Iterator[Claim | None]:
    """Give the right to make something, or None once another has made it.

    A claim that ends without an exception is taken for work that is done.

    Args:
      finished: Whether it is there.
    """
    number = _won(place, finished, waiting)
    if number is None:
        yield None
        return
    claim = Claim(place, number, waiting.lease_s)
    done = False
    try:
        yield claim
        done = True
    finally:
        # What cannot be reached any more cannot be told; the lease then ends by itself.
        with suppress(OSError, UserError):
            claim.release(done=done)


def _won(place: Place, finished: Callable[[], bool], waiting: Waiting) -> int | None:
    """Wait until it is ours to make, and return the claim's number, or until it is finished."""
    seen: tuple[int, bytes | None] = (0, None)
    silent_s, looked, told = 0.0, time.monotonic(), False
    while not finished():
        last = max(place.numbers(), default=0)
        now = (last, place.read(last) if last else None)
        lives = _lives(now[1])
        # A waiter that stood still itself has not listened all that long.
        silent_s += min(time.monotonic() - looked, waiting.lease_s / 4) / (_BUSY if lives else 1)
        looked = time.monotonic()
        if now != seen:
            seen, silent_s = now, 0.0
        free = not last or lives is False or _read(now[1]).get("free")
        if free or silent_s >= waiting.lease_s:
            if place.create(last + 1, _content()):
                # Between the two looks another may have made it and cleared up.
                if not finished():
                    return last + 1
                place.remove(last + 1)
                return None
        elif not told:
            waiting.say(_holder(now[1]))
            told = True
        time.sleep(waiting.poll_s)
    return None


def _content(*, beats: int = 0, free: bool = False) -> bytes:
    pid = os.getpid()
    told = {"host": socket.gethostname(), "machine": _machine(), "pid": pid}
    told |= {"started": _started(pid), "beats": beats, "free": free}
    # No two are alike, so that a store can tell whose it took when an answer got lost on the way.
    told["token"] = secrets.token_hex(8)
    return json.dumps(told).encode()


def _read(content: bytes | None) -> dict[str, Any]:
    try:
        told = json.loads(content or b"")
    except ValueError:  # created, and not written yet
        return {}
    return told if isinstance(told, dict) else {}


def _holder(content: bytes | None) -> str:
    told = _read(content)
    return f"process {told.get('pid', '?')} on {told.get('host', '?')}"


def _lives(content: bytes | None) -> bool | None:
    """Whether a claim's process is there; None if it is another machine's, or nobody knows."""
    told = _read(content)
    if not _machine() or told.get("machine") != _machine():
        return None
    # A process may have the number of one that is gone, and then has begun later.
    return _started(int(told["pid"])) == str(told["started"])


@cache
def _machine() -> str:
    """Name what process numbers count in: this boot of this machine, and a container's own count.

    Empty where that is not known, as off Linux: a process that is gone is then missed for a lease.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process began, in ticks since the boot; empty if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return ""
    # Field 2 is the program's name in brackets, which may hold blanks; 3 the state, 22 the start.
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
