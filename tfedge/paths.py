"""Where files lie: those that ship with tfedge, and those that must never be found half written."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

_HERE = Path(__file__).resolve().parent


def bundled() -> Path:
    """Return the folder that holds models/, pipelines/ and device/.

    The wheel copies them into ``tfedge/bundled`` (see pyproject.toml); a clone has them beside
    ``tfedge/``.
    """
    inside = _HERE / "bundled"
    return inside if inside.is_dir() else _HERE.parent


@cache
def runner() -> ModuleType:
    """Import ``device/infer.py``, the board's own script, from its file.

    What it does with a picture or a model is what the board does, so the workstation decodes its
    training images and measures its models with it and has no second implementation.
    """
    spec = importlib.util.spec_from_file_location("infer", bundled() / "device" / "infer.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(bundled() / "device" / "infer.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where the files beside it look for it
    spec.loader.exec_module(module)
    return module


def beside(name: str) -> ModuleType:
    """Import ``device/<name>.py``, a part of the board's script, as `runner` imports that."""
    module: ModuleType = runner()._beside(name)
    return module


def replace(file: Path, content: bytes | str) -> None:
    """Write `content` to `file` so that a reader finds the old or the new, never a half.

    The content is on the disk before the name points to it: a power cut leaves one of the two.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
