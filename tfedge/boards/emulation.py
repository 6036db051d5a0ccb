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
from shutil import which

from tfedge.boards import debian, pi, wheels
from tfedge.boards.cache import cached
from tfedge.boards.debian import BOOKWORM, Suite
from tfedge.errors import UserError, did_you_mean
from tfedge.progress import Progress

QEMU = "qemu-aarch64"
"""Of Debian's package `qemu-user`.  The one of `qemu-user-static` can load no plugin."""

_RECIPE = 1
"""Raise it where the same settings would now make another folder."""

_LOADERS = {"amd64": "lib64/ld-linux-x86-64.so.2", "arm64": "lib/ld-linux-aarch64.so.1"}


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
        if not self.emulator:
            variables = [f"{key}={value}" for key, value in settings.items()]
            return ["env", *variables, *_loader(self.root), python, *arguments]
        if board not in pi.BOARDS:
            raise UserError("board", f"there is no {board!r}", did_you_mean(board, pi.BOARDS))
        options = ["-cpu", pi.BOARDS[board].cpu, "-L", str(self.boards / board)]
        options += ["-plugin", str(plugin)] if plugin else []
        options += [word for key, value in settings.items() for word in ("-E", f"{key}={value}")]
        return [*self.emulator, *options, python, *arguments]


def userland(progress: Progress, runtime: str = "ai-edge-litert") -> Userland:
    """Return a Pi's userland with one of `RUNTIMES`, made at the first call in half a minute.

    The next call, of this or another process, finds it in $TFEDGE_CACHE or ~/.cache/tfedge.

    Raises:
      UserError: apt, pip or a network is missing, or what was made does not run.
    """
    with ThreadPoolExecutor() as pool:
        root = pool.submit(_root, progress, BOOKWORM, "arm64", BOOKWORM.packages)
        site = pool.submit(_site, progress, BOOKWORM, "arm64", RUNTIMES[runtime]())
        qemu = pool.submit(emulator, progress)
        return _proved(_with_boards(BOOKWORM, root.result(), site.result(), qemu.result()))


def native(progress: Progress, runtime: str = "ai-edge-litert") -> Userland:
    """Return the same for this machine's processor: the Pi's Python and packages, at full speed."""
    own = debian.machine()
    with ThreadPoolExecutor() as pool:
        root = pool.submit(_own_root, progress)
        site = pool.submit(_site, progress, BOOKWORM, own, RUNTIMES[runtime]())
        return Userland(BOOKWORM, root.result(), site.result())


def emulator(progress: Progress) -> tuple[str, ...]:
    """Return how QEMU for 64-bit Arm is started: the installed one, or Debian's from the cache."""
    if installed := which(QEMU):
        return (installed,)
    root = _own_root(progress)
    return (*_loader(root), str(root / "usr" / "bin" / QEMU))


def _litert() -> tuple[str, ...]:
    # The version that is installed here: results are compared to the last bit.
    return (f"ai-edge-litert=={importlib.metadata.version('ai-edge-litert')}", "numpy", "pillow")


def _tflite() -> tuple[str, ...]:
    return ("tflite-runtime==2.14.0", "numpy<2", "pillow")


RUNTIMES = {"ai-edge-litert": _litert, "tflite-runtime": _tflite}
"""What pip is to fetch for a runtime."""


def _root(progress: Progress, suite: Suite, architecture: str, packages: tuple[str, ...]) -> Path:
    decides = {"recipe": _RECIPE, "suite": suite.name, "for": architecture, "packages": packages}

    def make(folder: Path) -> None:
        progress.say(f"{'userland':12} fetching Debian {suite.name} for {architecture}")
        debian.unpack(suite, architecture, packages, folder)

    return cached(f"debian-{architecture}", decides, make)


def _own_root(progress: Progress) -> Path:
    packages = ("qemu-user", *BOOKWORM.packages)
    return _root(progress, BOOKWORM, debian.machine(), packages)


def _site(
    progress: Progress, suite: Suite, architecture: str, requirements: tuple[str, ...]
) -> Path:
    decides = {"recipe": _RECIPE, "python": suite.python, "glibc": suite.glibc}
    decides |= {"for": architecture, "requirements": requirements}

    def make(folder: Path) -> None:
        progress.say(f"{'userland':12} fetching {', '.join(requirements)} for {architecture}")
        wheels.fetch(suite, architecture, requirements, folder)

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
        fix = f"another QEMU may do: apt-get install qemu-user ({' '.join(made.emulator)})"
        raise UserError("the emulated Pi", f"does not run: {said}", fix)
    (folder / "said").write_text(done.stdout)


def _loader(root: Path) -> tuple[str, ...]:
    """Return how a program of a root starts with that root's own libraries."""
    own = debian.machine()
    libraries = root / "usr" / "lib" / f"{debian.PROCESSORS[own]}-linux-gnu"
    return (str(root / _LOADERS[own]), "--library-path", str(libraries))
