"""Boards and runtimes that a file can be made for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tfedge.boards.runtimes import RUNTIMES, among
from tfedge.errors import UserError, did_you_mean

_SYSTEM_MIB = 256
"""What the system is taken to need without a desktop, and the GPU's part; a guess on the safe side.

Raspberry Pi OS Lite has about half of it in use after booting."""


@dataclass(frozen=True)
class Target:
    """Where a file is to run.

    Attributes:
      what: The board and its system, in words.
      runtimes: Those that may be on it, by their names in `runtimes.RUNTIMES`; a file has to do for
        each of them.
      python: The Pythons of its systems.
      machine: As ``uname -m`` has it; empty where that does not matter.
      glibc: The systems' C library, the oldest; empty where that does not matter.
      memory_mib: What a process can have on the smallest board of the name; 0 where that is not
        known.
      cores: 0 where that is not known.
      install: What installs its runtime; the last of `runtimes` unless given.
      note: What else its owner has to know.
      edge_tpu: The file is for Google's Edge TPU.
    """

    name: str
    what: str
    runtimes: tuple[str, ...]
    python: str = ""
    machine: str = ""
    glibc: str = ""
    memory_mib: int = 0
    cores: int = 0
    install: str = ""
    note: str = ""
    edge_tpu: bool = False


def _pi(name: str, what: str, mib: int, oldest: str) -> Target:
    """Return a Pi with a 64-bit system: Bullseye (`oldest` 1.4), Bookworm, Trixie."""
    package = "ai-edge-litert"
    old = among(package, oldest, "1.4") if oldest.startswith("1.") else ()
    python, glibc = ("3.9, 3.11, 3.13", "2.31") if old else ("3.11, 3.13", "2.36")
    return Target(
        name,
        f"{what}, 64-bit Raspberry Pi OS",
        (*old, *among(package, "2.1", "2.3")),
        python,
        "aarch64",
        glibc,
        mib - _SYSTEM_MIB,
        4,
        "pip install ai-edge-litert numpy pillow",
        "on Bullseye: pip install ai-edge-litert==1.4.0 numpy pillow" if old else "",
    )


_BOARDS = (
    _pi("pi5", "Raspberry Pi 5 of 2 GB and more", 2048, "2.1"),
    _pi("pi4", "Raspberry Pi 4 of 1 GB and more", 1024, "1.4"),
    _pi("pi3", "Raspberry Pi 3 of 1 GB", 1024, "1.4"),
    _pi("zero2", "Raspberry Pi Zero 2 W of 512 MB", 512, "1.4"),
    Target(
        "pi4-32bit",
        "Raspberry Pi 4, 32-bit Raspberry Pi OS (Bookworm)",
        ("tflite-runtime 2.14",),
        "3.11",
        "armv7l",
        "2.36",
        1024 - _SYSTEM_MIB,
        4,
        'pip install tflite-runtime==2.14.0 "numpy<2", and: apt install python3-numpy python3-pil',
        "the only runtime with wheels for 32 bits and Python 3.11; for 3.12 and later, and so for"
        " Trixie, there is none; numpy has to be below 2",
    ),
    Target(
        "coral",
        "Coral Dev Board or USB accelerator: Google's Edge TPU, and what it leaves over on the CPU",
        ("tflite-runtime 2.5",),
        "3.6 to 3.9",
        "aarch64",
        "2.28",
        1024 - _SYSTEM_MIB,
        4,
        "from Coral's own repository: tflite-runtime 2.5.0.post1 and libedgetpu1-std",
        "the compiler knows the operators of TensorFlow 2.5",
        edge_tpu=True,
    ),
)


def _alone(name: str, runtimes: tuple[str, ...]) -> Target:
    last = RUNTIMES[runtimes[-1]]
    low, high = (
        min(RUNTIMES[one].pythons[0] for one in runtimes),
        max(RUNTIMES[one].pythons[1] for one in runtimes),
    )
    package, version = name.rsplit("-", 1)
    return Target(
        name,
        f"the runtime {package} {version} on any machine",
        runtimes,
        f"3.{low} to 3.{high}",
        install=last.install,
    )


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        *_BOARDS,
        _alone("ai-edge-litert-1.x", among("ai-edge-litert", "1.0", "1.4")),
        _alone("ai-edge-litert-2.x", among("ai-edge-litert", "2.0", "2.3")),
        *(_alone(name.replace(" ", "-"), (name,)) for name in RUNTIMES),
    )
}
"""All targets by name."""

NAMES = tuple(TARGETS)


def target(name: str, where: object = "--target") -> Target:
    """Return a target by its name, which may be written as pip writes a runtime's.

    ``tflite-runtime 2.14``, ``tflite-runtime==2.14.0`` and ``tflite-runtime-2.14`` are one.

    Args:
      where: What a message calls the place of the name.

    Raises:
      UserError: There is no such target.
    """
    plain = re.sub(r"[ =_]+", "-", name.strip().lower())
    plain = re.sub(r"^((?:tflite-runtime|ai-edge-litert)-\d+\.\w+)\..*$", r"\1", plain)
    if plain not in TARGETS:
        fix = f"{did_you_mean(plain, _near(plain))}; `tfedge check --targets` says what each is"
        raise UserError(where, f"there is no target {name!r}", fix)
    return TARGETS[plain]


def _near(name: str) -> Iterable[str]:
    """Return the target of the version nearest to that in a runtime's name, else all targets."""
    package, _, version = name.rpartition("-")
    kin = [one for one in TARGETS if re.fullmatch(rf"{re.escape(package)}-[\d.]+", one)]
    if not kin or not re.fullmatch(r"\d+(\.\d+)?", version):
        return TARGETS
    return [min(kin, key=lambda one: _distance(one.rpartition("-")[2], version))]


def _distance(one: str, other: str) -> tuple[int, int]:
    """Return how far two versions are apart, in major and minor numbers."""
    ours, theirs = ([*map(int, version.split(".")), 0][:2] for version in (one, other))
    return abs(ours[0] - theirs[0]), abs(ours[1] - theirs[1])
