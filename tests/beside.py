"""Load what lies beside infer.py on the board, as infer.py does when an option needs it."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from tfedge import paths


def beside(name: str) -> ModuleType:
    """Return device/<name>.py, which finds the one infer.py of these tests under that name."""
    sys.modules["infer"] = paths.runner()
    file = paths.bundled() / "device" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"beside_{name}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
