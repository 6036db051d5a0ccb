"""Debian packages of any processor, unpacked into a folder by an ordinary user.

Nothing is installed and no package's script runs: apt chooses and downloads with settings and lists
of its own, dpkg-deb takes the archives apart.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from tfedge.errors import UserError

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LEFT_OUT = (
    *("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/lintian"),
    "./usr/bin/qemu-[!a]*",  # of qemu-user's 100 MB, what runs Arm
)


PROCESSORS = {"arm64": "aarch64", "amd64": "x86_64"}
"""What wheels and compilers call the processors that Debian's packages are for."""


@dataclass(frozen=True)
class Suite:
    """A release of Debian, which is what Raspberry Pi OS of that name is made of.

    Attributes:
      python: Its Python, such as ``3.11``.
      glibc: The minor version of its C library 2.x, which decides what wheels run.
    """

    name: str
    python: str
    glibc: int

    @property
    def packages(self) -> tuple[str, ...]:
        """What Python, numpy, Pillow and a TFLite runtime from wheels need."""
        python = f"python{self.python}"
        needed = ("libc6", "libstdc++6", "libgcc-s1", "zlib1g", "libexpat1")
        return (f"{python}-minimal", f"lib{python}-stdlib", *needed)


BOOKWORM = Suite("bookworm", "3.11", 36)
BULLSEYE = Suite("bullseye", "3.9", 31)


def machine() -> str:
    """Return Debian's name of this machine's processor, one of `PROCESSORS`."""
    found = _output(("dpkg", "--print-architecture")).strip()
    if found not in PROCESSORS:
        fix = f"a Pi can be emulated on {' and '.join(PROCESSORS)}"
        raise UserError("dpkg", f"this machine's processor is {found}", fix)
    return found


def check_tools() -> None:
    """Raise a `UserError` if one of the tools is missing that take Debian's packages apart."""
    for tool in ("apt-get", "dpkg", "dpkg-deb", "tar"):
        _present(tool)


def unpack(suite: Suite, architecture: str, packages: Sequence[str], folder: Path) -> None:
    """Fill `folder` with what is in `packages` and all that they depend on.

    The archives come from the mirror that this machine's own apt uses.

    Raises:
      UserError: A tool is missing, or the mirror cannot be reached or has no such suite.
    """
    check_tools()
    with tempfile.TemporaryDirectory(prefix="tfedge-apt-") as scratch:
        archives = _downloaded(suite, architecture, packages, Path(scratch))
        # Links as in every Debian of today come first; some packages still bring /lib as a folder.
        for name in ("bin", "lib"):
            (folder / "usr" / name).mkdir(parents=True)
            (folder / name).symlink_to(f"usr/{name}")
        for archive in archives:
            _take_apart(archive, folder)


def _downloaded(
    suite: Suite, architecture: str, packages: Sequence[str], scratch: Path
) -> list[Path]:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.is_file() else ""
    (scratch / "sources.list").write_text(f"deb {signed}{mirror()} {suite.name} main\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    _output(("apt-get", "-q", *options, "update", "--error-on=any"))
    _output(("apt-get", "-q", *options, "-y", "-d", "install", *packages))
    return sorted((scratch / "cache" / "archives").glob("*.deb"))


def mirror() -> str:
    """Return the address of the Debian mirror that apt uses on this machine."""
    form = "$(LABEL)|$(REPO_URI)|$(SUITE)"
    wanted = ("Created-By: Packages",)
    rows = [
        line.split("|")
        for line in _output(("apt-get", "indextargets", "--format", form, *wanted)).splitlines()
    ]
    # Where the lists were never fetched, no label is known yet.
    plain = [address for label, address, suite in rows
             if label in ("Debian", "") and "security" not in address + suite]  # fmt: skip
    if not plain:
        fix = "the emulated Pi is made of Debian packages; add a Debian mirror to apt's sources"
        raise UserError("apt-get", "knows no Debian mirror on this machine", fix)
    return plain[0]


def _take_apart(archive: Path, folder: Path) -> None:
    """Unpack a package as `dpkg-deb -x` does, but for keeping links to folders and leaving out."""
    reading = ("dpkg-deb", "--fsys-tarfile", str(archive))
    out = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    writing = ("tar", "x", "--keep-directory-symlink", "--no-same-owner", *out, "-C", str(folder))
    with subprocess.Popen(reading, stdout=subprocess.PIPE) as source:
        done = subprocess.run(writing, stdin=source.stdout, capture_output=True, text=True)
    if source.returncode or done.returncode:
        raise UserError(archive.name, f"cannot be unpacked: {_last(done.stderr)}")


def _output(command: Sequence[str]) -> str:
    """Return what a command prints; if it fails, say so with the last line of its own words."""
    _present(command[0])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        fix = "it needs a network and a Debian mirror that has the release"
        raise UserError(command[0], _last(done.stderr + done.stdout), fix)
    return done.stdout


def _present(tool: str) -> None:
    if which(tool) is None:
        fix = "the emulated Pi is made of Debian packages, and can be made where apt is"
        raise UserError(tool, "is not on this machine", fix)


def _last(text: str) -> str:
    """Return what a tool's output says is wrong: its last line that begins as errors do."""
    lines = text.strip().splitlines() or ["it failed without a word"]
    errors = [line for line in lines if line.startswith(("E:", "ERROR", "Err:", "tar:"))]
    return (errors or lines)[-1]
