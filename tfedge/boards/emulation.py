"""A Raspberry Pi without the Pi: its system unpacked into a folder, run by QEMU.

The programs are those of the board: Debian's Python for Arm, and the runtime's Arm wheels with
their Arm kernels.  QEMU translates instruction by instruction what they do, and passes to this
machine's kernel what they ask of theirs.  So results and instruction counts are a Pi's, clocks are
not.  It needs no root, no chroot and no binfmt_misc; a program inside cannot start another one.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tfedge.boards import debian, pi, wheels
from tfedge.boards.cache import cached, holds
from tfedge.boards.debian import BOOKWORM, Suite
from tfedge.errors import UserError, did_you_mean
from tfedge.progress import Progress

QEMU = "qemu-aarch64"
"""Of Debian 12's package `qemu-user`, whatever this machine runs: later ones load no plugins."""

TFLITE = ("tflite-runtime==2.14.0", "numpy<2", "pillow")
"""What pip is to fetch for the runtime of 32-bit systems, the last of that name."""

_RECIPE = 1
"""Raise it where the same settings would now make another folder."""

_LOADERS = {"amd64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}


@dataclass(frozen=True)
class Userland:
    """Debian's Python with a TFLite runtime, numpy and Pillow, for some processor.

    Attributes:
      root: What is unpacked of Debian.
      site: Python's packages.
      emulator: How QEMU is started; empty where this machine's own processor runs it.
      boards: A folder for each board of `pi.BOARDS`, in which a program finds what it opens by an
        absolute path before it finds it on this machine.
    """

    suite: Suite
    root: Path
    site: Path
    emulator: tuple[str, ...] = ()
    boards: Path = Path()

    def command(
        self, board: str, arguments: Sequence[str], plugin: Path | None = None
    ) -> list[str]:
        """Return the command that runs its Python with `arguments` as on a board.

        Args:
          board: One of `pi.BOARDS`; of no account where nothing is emulated.
          plugin: A shared library for QEMU to load.
        """
        # Without -B, Python would leave compiled files beside the board's scripts.
        return self._python(board, ["-B", *arguments], plugin)

    def _python(self, board: str, arguments: Sequence[str], plugin: Path | None) -> list[str]:
        python = str(self.root / "usr" / "bin" / f"python{self.suite.python}")
        settings = {
            "PYTHONPATH": str(self.site),
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONNOUSERSITE": "1",
            "PYTHONHASHSEED": "0",
        }
        variables = [f"{key}={value}" for key, value in settings.items()]
        # What this machine's programs are to load is nothing for Debian's, let alone for a Pi's.
        environment = ["env", "-u", "LD_LIBRARY_PATH", "-u", "LD_PRELOAD", *variables]
        if not self.emulator:
            return [*environment, *_loader(self.root), python, *arguments]
        if board not in pi.BOARDS:
            raise UserError("board", f"there is no {board!r}", did_you_mean(board, pi.BOARDS))
        options = ["-cpu", pi.BOARDS[board].cpu, "-L", str(self.boards / board)]
        if plugin:
            options += ["-plugin", "file=" + str(plugin).replace(",", ",,")]
        return [*environment, *self.emulator, *options, python, *arguments]


def userland(progress: Progress, requirements: tuple[str, ...] = ()) -> Userland:
    """Return a Pi's userland, made at the first call in half a minute.

    The next call, of this or another process, finds it in $TFEDGE_CACHE or ~/.cache/tfedge.

    Args:
      requirements: What pip is to fetch: a runtime, numpy and Pillow; else the runtime that is
        installed here, of the same version.

    Raises:
      UserError: apt, pip or a network is missing, or what was made does not run.
    """
    wanted = requirements or _same_as_here()
    with ThreadPoolExecutor() as pool:
        root = pool.submit(_root, progress, BOOKWORM, "arm64", BOOKWORM.packages)
        site = pool.submit(_site, progress, BOOKWORM, "arm64", wanted)
        own = pool.submit(_own_root, progress, BOOKWORM)
        qemu = (*_loader(own.result()), str(own.result() / "usr" / "bin" / QEMU))
        return _proved(_with_boards(BOOKWORM, root.result(), site.result(), qemu))


def at_hand() -> bool:
    """Say whether `userland` has nothing to fetch.

    Raises:
      UserError: On this machine no Pi can be emulated.
    """
    own = debian.machine()
    roots = (("arm64", BOOKWORM.packages), (own, _own_packages(BOOKWORM)))
    return holds("wheels-arm64", _site_recipe(BOOKWORM, "arm64", _same_as_here())) and all(
        holds(f"debian-{of}", _root_recipe(BOOKWORM, of, packages)) for of, packages in roots
    )


def native(
    progress: Progress, requirements: tuple[str, ...] = (), suite: Suite = BOOKWORM
) -> Userland:
    """Return the same for this machine's processor: a board's Python and packages, at full speed.

    Args:
      requirements: As of `userland`.
    """
    wanted = requirements or _same_as_here()
    with ThreadPoolExecutor() as pool:
        root = pool.submit(_own_root, progress, suite)
        site = pool.submit(_site, progress, suite, debian.machine(), wanted)
        return Userland(suite, root.result(), site.result())


def _same_as_here() -> tuple[str, ...]:
    # Of one version: results are compared to the last bit.
    return (f"ai-edge-litert=={importlib.metadata.version('ai-edge-litert')}", "numpy", "pillow")


def _root_recipe(suite: Suite, architecture: str, packages: tuple[str, ...]) -> dict[str, Any]:
    return {"recipe": _RECIPE, "suite": suite.name, "for": architecture, "packages": packages}


def _root(progress: Progress, suite: Suite, architecture: str, packages: tuple[str, ...]) -> Path:
    def make(folder: Path) -> None:
        progress.say(f"{'userland':12} fetching Debian {suite.name} for {architecture}")
        debian.unpack(suite, architecture, packages, folder)

    decides = _root_recipe(suite, architecture, packages)
    return cached(f"debian-{architecture}", decides, make)


def _own_root(progress: Progress, suite: Suite) -> Path:
    return _root(progress, suite, debian.machine(), _own_packages(suite))


def _own_packages(suite: Suite) -> tuple[str, ...]:
    return ("qemu-user", *suite.packages) if suite is BOOKWORM else suite.packages


def _site_recipe(suite: Suite, architecture: str, requirements: tuple[str, ...]) -> dict[str, Any]:
    decides = {"recipe": _RECIPE, "python": suite.python, "glibc": suite.glibc}
    return decides | {"for": architecture, "requirements": requirements}


def _site(
    progress: Progress, suite: Suite, architecture: str, requirements: tuple[str, ...]
) -> Path:
    def make(folder: Path) -> None:
        progress.say(f"{'userland':12} fetching {', '.join(requirements)} for {architecture}")
        wheels.fetch(suite, architecture, requirements, folder)

    decides = _site_recipe(suite, architecture, requirements)
    return cached(f"wheels-{architecture}", decides, make)


def _with_boards(suite: Suite, root: Path, site: Path, qemu: tuple[str, ...]) -> Userland:
    """Give every board a folder with its own /proc and /sys, and links to the root's rest."""
    contents = {name: pi.files(board) for name, board in pi.BOARDS.items()}
    decides = {"recipe": _RECIPE, "root": str(root), "files": contents}

    def make(folder: Path) -> None:
        for name, board in pi.BOARDS.items():
            pi.write(board, folder / name)
            for entry in root.iterdir():
                (folder / name / entry.name).symlink_to(entry)

    return Userland(suite, root, site, qemu, cached("boards", decides, make))


def _proved(made: Userland) -> Userland:
    """Import all that is in a userland, once for each that is made.

    That it works is known from then on, and its modules are compiled: later starts are shorter.
    """
    decides = {"recipe": _RECIPE, "root": str(made.root), "site": str(made.site)}
    cached("proved", decides | {"emulator": made.emulator}, partial(_prove, made))
    return made


def _prove(made: Userland, folder: Path) -> None:
    """Run every module that a board's script may need, and let Python keep it compiled."""
    modules = "argparse, csv, json, zipfile, logging, numpy, PIL.Image, PIL.ImageOps"
    (runtime,) = made.site.glob("*/interpreter.py")
    script = f"import {modules}, {runtime.parent.name}.interpreter, platform\n"
    script += "print(platform.machine())"
    done = subprocess.run(made._python("pi4", ["-c", script], None), capture_output=True, text=True)
    if done.stdout.strip() != "aarch64":
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        fix = f"remove {made.root.parent}, so that it is made anew"
        raise UserError("the emulated Pi", f"does not run: {said}", fix)
    (folder / "said").write_text(done.stdout)


def _loader(root: Path) -> tuple[str, ...]:
    """Return how a program of a root starts with that root's own libraries."""
    own = debian.machine()
    libraries = root / "usr" / "lib" / f"{debian.PROCESSORS[own]}-linux-gnu"
    return (str(libraries / _LOADERS[own]), "--library-path", str(libraries))
