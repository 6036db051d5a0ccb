"""A board on this machine: a real sshd on a port of 127.0.0.1, for an ordinary user.

Run by an ordinary user, the board is that user's.  Run by root, an account is made for it and
removed again, and sshd runs as that account; where the Python of these tests lies in a folder that
only root may look into, sshd gets the one right to look there, and none to write.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tiny_model import tiny_model

from tfedge.boards.ssh import Board
from tfedge.tflite import card

SSHD = "/usr/sbin/sshd"
# What a board needs of programs; it has no others.
TOOLS = (
    *("flock", "find"),
    *("sh", "mkdir", "rm", "mv", "ln", "cp", "cat", "df", "awk", "readlink", "cmp", "sync", "id"),
    *("grep", "sleep", "install", "env"),
)

_CONFIG = """\
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
ListenAddress 127.0.0.1
Subsystem sftp {folder}/sftp
SetEnv PATH={folder}/own:{folder}/tools HOME={folder}/home
"""

_SFTP = """\
#!/bin/sh
[ ! -e {folder}/hang ] || {{ : >{folder}/hanging; sleep 60; }}
exec /usr/lib/openssh/sftp-server
"""


@dataclass(frozen=True)
class Loopback:
    """A running sshd.

    Attributes:
      folder: What is the board's: its keys, and `own`, a folder of programs before all others.
      config: An ssh config with which the user's ssh knows it.
      home: A folder that belongs to the board's user.
    """

    folder: Path
    config: Path
    home: Path
    user: str
    port: int
    server: int

    @property
    def at(self) -> str:
        return f"{self.user}@127.0.0.1"

    def board(self, name: str = "tfedge") -> Board:
        return Board(self.at, f"{self.home}/{name}", self.port, None, self.config)

    def program(self, name: str, text: str) -> None:
        """Put a program on the board's PATH, before any other of its name."""
        self._write(self.folder / "own" / name, text)

    def without(self, name: str) -> None:
        """Take a program away until `restore`."""
        (self.folder / "tools" / name).unlink()

    def restore(self) -> None:
        """Have the board as it was started, but for what was deployed."""
        for file in (self.folder / "own").iterdir():
            file.unlink()
        for name in ("hang", "hanging"):
            (self.folder / name).unlink(missing_ok=True)
        for name in TOOLS:
            link = self.folder / "tools" / name
            if not link.is_symlink():
                link.symlink_to(_found(name))
        _python(self.folder)

    def hang_copies(self) -> Path:
        """Let every copy stop at its start; return the file that shows that one has."""
        (self.folder / "hang").touch()
        return self.folder / "hanging"

    def cut(self) -> None:
        """End every open session, as a pulled cable does; sshd itself goes on."""
        for process in children(self.server):
            os.kill(process, signal.SIGKILL)

    def _write(self, file: Path, text: str) -> None:
        file.write_text(text)
        file.chmod(0o755)


@contextmanager
def loopback() -> Iterator[Loopback]:
    """Start a board, and take all of it away at the end."""
    if not Path(SSHD).exists():
        raise AssertionError(f"no {SSHD}: apt install openssh-server openssh-client")
    folder = Path(tempfile.mkdtemp(prefix="tfedge-board-"))
    root = os.geteuid() == 0
    user = f"tfedge{os.getpid()}" if root else pwd.getpwuid(os.geteuid()).pw_name
    try:
        if root:
            account = ["-p", "*", "--no-create-home", "--home-dir", str(folder / "home")]
            subprocess.run(["useradd", *account, "--shell", "/bin/sh", user], check=True)
        _furnish(folder)
        port = _free_port()
        server = _start(folder, user, port, as_other=root)
        try:
            config = _client(folder, port)
            yield Loopback(folder, config, folder / "home", user, port, server.pid)
        finally:
            for process in children(server.pid):
                os.kill(process, signal.SIGKILL)
            server.kill()
            server.wait()
    finally:
        if root:
            subprocess.run(["userdel", user], check=True)
        shutil.rmtree(folder)


def children(pid: int) -> list[int]:
    """Return the processes below `pid`, the deepest last."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = list(parents.get(pid, ()))
    for child in found:
        found.extend(parents.get(child, ()))
    return found


def golden_model(file: Path, *, seed: int = 0, off: int = 0, resize: str = "bilinear") -> Path:
    """Write a small model with two golden vectors, whose answers are wrong by `off`."""
    from ai_edge_litert.interpreter import Interpreter

    flatbuffer, random = tiny_model(), np.random.default_rng(seed)
    inputs = random.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    tensors = (inputs.astype(int) - 128).astype(np.int8)
    runtime = Interpreter(model_content=flatbuffer)
    runtime.allocate_tensors()
    answers = []
    for tensor in tensors:
        runtime.set_tensor(runtime.get_input_details()[0]["index"], tensor[None])
        runtime.invoke()
        answers.append(runtime.get_tensor(runtime.get_output_details()[0]["index"])[0])
    golden = card.golden_npz(inputs, (np.stack(answers).astype(int) + off).astype(np.int8))
    made = card.Card(
        labels=("cat", "dog", "eel"),
        input=card.Input("image", (4, 4, 3), (0.0,) * 3, (255.0,) * 3, resize, "stretch"),
        made_by=card.Maker("0.1.0", "tiny", "int8", f"{seed:064}"),
        golden=tuple(hashlib.sha256(tensor.tobytes()).hexdigest() for tensor in tensors),
    )
    file.write_bytes(card.write(flatbuffer, made, {card.GOLDEN: golden}))
    return file


def _furnish(folder: Path) -> None:
    folder.chmod(0o755)
    for name in ("home", "own", "tools"):
        (folder / name).mkdir()
    for name in ("host_key", "user_key"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(_CONFIG.format(folder=folder))
    (folder / "sftp").write_text(_SFTP.format(folder=folder))
    (folder / "sftp").chmod(0o755)
    for name in TOOLS:
        (folder / "tools" / name).symlink_to(_found(name))
    _python(folder)


def _python(folder: Path) -> None:
    """Give the board the Python of these tests, with its numpy and runtime."""
    file = folder / "tools" / "python3"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    file.chmod(0o755)


def _found(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise AssertionError(f"this machine has no {name}")
    return path


def _start(folder: Path, user: str, port: int, *, as_other: bool) -> subprocess.Popen[bytes]:
    command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config"), "-p", str(port)]
    if as_other:
        for path in (folder, *(folder.rglob("*"))):
            if path.name != "user_key":
                shutil.chown(path, user, user) if not path.is_symlink() else None
        look = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
        become = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]
        command = [*become, *(look if _hidden(Path(sys.executable).resolve()) else ()), *command]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
    for _ in range(100):
        if server.poll() is not None:
            raise AssertionError(f"sshd ended: {(folder / 'log').read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.05)
    raise AssertionError(f"sshd does not listen: {(folder / 'log').read_text()}")


def _client(folder: Path, port: int) -> Path:
    """Write the client's side; its files stay root's where root runs the tests."""
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    config = folder / "ssh_config"
    quick = "KexAlgorithms curve25519-sha256"  # the default is safe from quantum computers and slow
    config.write_text(f"UserKnownHostsFile {known}\nIdentityFile {folder / 'user_key'}\n{quick}\n")
    return config


def _hidden(file: Path) -> bool:
    return any(not parent.stat().st_mode & 0o001 for parent in file.parents)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
