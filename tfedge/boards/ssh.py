"""A board over the system's own ssh and scp, so that the user's keys, hosts and config hold."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tfedge.errors import UserError

FAILED = 255
"""How ssh ends when the connection, not the command, is what failed."""

MARK = "tfedge:"

_IDLE_S = 60
"""After so long a shared connection that nobody has ended, as of a killed tfedge, ends."""

_AT = r"(?:[\w.-]+@)?(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)"
_TARGET = re.compile(rf"({_AT}):(.+)")
_FOLDER = re.compile(r"(?:~/)?[\w./+-]+")
_OPTIONS = (
    *("-o", "BatchMode=yes"),  # asks nothing: a question would never be answered
    *("-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)

_TROUBLES = {
    # What ssh prints, what that means, and what to do.  {at} is USER@HOST.
    "Could not resolve hostname": ("the host is not known", "check its name, or write its address"),
    "Connection refused": ("it refuses the connection", "start ssh there: sudo raspi-config"),
    "timed out": ("it does not answer", "check that it is on, and in this network"),
    "No route to host": ("there is no way to it", "check that it is on, and in this network"),
    "Network is unreachable": ("there is no network", "connect this machine to the board's"),
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "its key is another one than before",
        "if the board was set up anew, forget the old key: ssh-keygen -R HOST",
    ),
    "Host key verification failed": (
        "its key is not known here",
        "connect once by hand and compare the key: ssh {at}",
    ),
    "UNPROTECTED PRIVATE KEY FILE": (
        "ssh leaves your key alone, as others may read its file",
        "take that right from them: chmod 600 FILE",
    ),
    "Permission denied (": (
        "it takes none of your keys",
        "give it one: ssh-copy-id {at}; passwords are not asked for here",
    ),
    "No space left": ("there is no room left", "delete what is not needed there"),
}


@dataclass(frozen=True)
class Answer:
    """What a command on the board ended with and printed."""

    status: int
    out: str
    err: str

    @property
    def told(self) -> dict[str, str]:
        """What a script marked to be read, ``echo tfedge:key=value``; a login may print more."""
        lines = (line.partition(MARK)[2] for line in self.out.splitlines() if MARK in line)
        return {key: value for key, _, value in (line.partition("=") for line in lines)}

    @property
    def last(self) -> str:
        """The last line of what it complained of, or else said."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip() if lines else "it said nothing"


@dataclass(frozen=True)
class Board:
    """Where a board is, and how it is reached.

    Attributes:
      at: ``USER@HOST``, or a name of the user's ssh config.
      folder: The folder on it, absolute, below its home or ``~/...``.
      port: None leaves it to the user's config, as for `identity` and `config`.
      identity: File of a private key.
      config: Another file than ``~/.ssh/config``.
      socket: Where the connection that its commands share is found, see `sharing`.
    """

    at: str
    folder: str
    port: int | None = None
    identity: Path | None = None
    config: Path | None = None
    socket: Path | None = None

    @property
    def name(self) -> str:
        """``USER@HOST:PORT``, as far as they were given: what tells it from other boards."""
        return f"{self.at}:{self.port}" if self.port else self.at

    @contextmanager
    def sharing(self) -> Iterator[Board]:
        """Yield the board with one connection for all that is asked of it: logging in takes time.

        Where the user's config has connections shared, theirs is taken, which may be open; the ssh
        of Windows shares none.
        """
        if os.name == "nt":
            yield self
            return
        shown = self._local(["ssh", "-G", *self._options("-p"), self._plain], "", None)
        if "\ncontrolpath " in shown.out:
            yield self
            return
        # Only its owner may look into it, and a socket's path must be short.
        with tempfile.TemporaryDirectory(prefix="tfedge-ssh-") as folder:
            socket = Path(folder, "s")
            shared = replace(self, socket=socket)
            try:
                yield shared
            finally:
                if socket.exists():
                    end = ["ssh", *shared._options("-p"), "-O", "exit", self._plain]
                    self._local(end, "", None)

    def run(self, script: str, *arguments: str, limit_s: float | None = None) -> Answer:
        """Run a shell script there, its arguments being $1 and so on.

        Raises:
          UserError: There is no connection, or it broke; or no answer came in `limit_s` seconds.
        """
        # The script goes in by stdin: what a login shell other than sh would make of it is open.
        command = shlex.join(["sh", "-s", "--", *arguments])
        to = [*self._options("-p"), self._plain]
        answer = self._local(["ssh", "-T", *to, command], script, limit_s)
        if answer.status == FAILED:
            raise self._trouble(answer.err)
        return answer

    def copy(self, files: Iterable[Path], folder: str) -> None:
        """Copy files into a folder there, which exists.

        Raises:
          UserError: As `run`; or there is no room, or it may not be written to.
        """
        names = [str(file) for file in files]
        answer = self._local(
            ["scp", "-q", *self._options("-P"), *names, f"{self.at}:{folder}/"], "", None
        )
        if answer.status:
            raise self._trouble(answer.err)

    @property
    def _plain(self) -> str:
        """`at` as ssh takes it; only scp has brackets around an address."""
        return self.at.replace("[", "").replace("]", "")

    def _options(self, port: str) -> list[str]:
        options = list(_OPTIONS)
        if self.socket:
            options += ["-o", "ControlMaster=auto", "-o", f"ControlPath={self.socket}"]
            options += ["-o", f"ControlPersist={_IDLE_S}"]
        options += [port, str(self.port)] if self.port else []
        options += ["-i", str(self.identity)] if self.identity else []
        return options + (["-F", str(self.config)] if self.config else [])

    def _local(self, command: list[str], text: str, limit_s: float | None) -> Answer:
        if shutil.which(command[0]) is None:
            raise UserError(
                command[0], "is not installed", "install it: apt install openssh-client"
            )
        try:
            done = subprocess.run(
                command,
                input=text.encode(),
                capture_output=True,
                check=False,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired as late:
            problem = f"no answer within {limit_s:g} s"
            raise UserError(self.at, problem, "look at what runs there: ssh, then top") from late
        decoded = (part.decode("utf-8", "replace") for part in (done.stdout, done.stderr))
        return Answer(done.returncode, *decoded)

    def _trouble(self, said: str) -> UserError:
        for sign, (problem, fix) in _TROUBLES.items():
            if sign in said:
                return UserError(self.at, problem, fix.format(at=self.at))
        lines = [line for line in said.strip().splitlines() if "Warning: Permanently" not in line]
        told = f" ({lines[-1].strip()})" if lines else ""
        return UserError(self.at, f"the connection broke{told}", "run the same command again")


def is_name(word: str) -> bool:
    """Whether a board could have this `Board.name`."""
    return not word.startswith("-") and bool(re.fullmatch(rf"{_AT}(?::\d+)?", word))


def board(
    target: str,
    *,
    port: int | None = None,
    identity: Path | None = None,
    config: Path | None = None,
) -> Board:
    """Read ``USER@HOST:DIR``.

    Raises:
      UserError: It is none, or its folder has characters that scp and a shell read differently; or
        a file that is given is not there.
    """
    for option, file, what in (
        ("-i", identity, "a private key, such as ~/.ssh/id_ed25519"),
        ("-F", config, "an ssh config, or leave it out for ~/.ssh/config"),
    ):
        if file and not file.is_file():
            problem = "is no file" if file.exists() else "is not there"
            raise UserError(f"{option} {file}", problem, f"name the file of {what}")
    found = _TARGET.fullmatch(target)
    if not found or target.startswith("-"):
        raise UserError(target, "is no place on a board", "write USER@HOST:DIR, as pi@raspi:tfedge")
    if not _FOLDER.fullmatch(found[2]) or found[2].startswith("-"):
        fix = "take a folder of letters, digits, / . _ + and -"
        raise UserError(target, f"{found[2]!r} cannot be a folder here", fix)
    folder = found[2].removeprefix("~/") or "."  # what is no absolute path is below the home
    return Board(found[1], folder.rstrip("/") or "/", port, identity, config)
