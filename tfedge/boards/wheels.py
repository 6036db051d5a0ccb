"""Python packages for a board, fetched as wheels by this machine's pip."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tfedge.boards.debian import PROCESSORS, Suite
from tfedge.errors import UserError

# Every glibc that wheels name; a board takes those up to its own (PEP 600).
_GLIBCS = (17, 24, 26, 27, 28, 31, 34, 35, 36)


def fetch(suite: Suite, architecture: str, requirements: Sequence[str], folder: Path) -> None:
    """Fill `folder` with the packages that `requirements` name, without what they depend on.

    Raises:
      UserError: pip is missing, or finds no such wheel.
    """
    if importlib.util.find_spec("pip") is None:
        fix = f"install it: {sys.executable} -m ensurepip"
        raise UserError("pip", "is not in tfedge's environment", fix)
    tags = platforms(suite, architecture)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--no-compile"]
    command += [word for tag in tags for word in ("--platform", tag)]
    command += ["--python-version", suite.python, "--target", str(folder), *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        problem = (errors or done.stderr.strip().splitlines() or ["failed without a word"])[-1]
        fix = "it needs a network, or the wheels where pip's settings say that it finds some"
        raise UserError("pip", problem.removeprefix("ERROR: "), fix)


def platforms(suite: Suite, architecture: str) -> list[str]:
    """Name the wheels' platforms that run on a release of Debian."""
    processor = PROCESSORS[architecture]
    tags = [f"manylinux_2_{minor}_{processor}" for minor in _GLIBCS if minor <= suite.glibc]
    return [*tags[::-1], f"manylinux2014_{processor}", f"linux_{processor}"]
