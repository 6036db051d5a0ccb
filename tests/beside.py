"""Load what lies beside infer.py on the board, as infer.py does when an option needs it."""

from __future__ import annotations

from types import ModuleType

from tfedge import paths


def beside(name: str) -> ModuleType:
    """Return device/<name>.py, which finds the one infer.py of these tests under that name."""
    return paths.runner()._beside(name)
