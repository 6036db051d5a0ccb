"""Python processes with one TFLite runtime or the other, which do not fit into one."""

import os
import sys
from pathlib import Path

OLD = Path(sys.prefix) / "tflite-runtime"
"""Where `make` puts tflite-runtime 2.14 and the numpy 1 that it needs."""


def python_with(package: str) -> list[str]:
    """Return what starts a Python that finds a runtime, in `environment_with` it."""
    return [sys.executable, "-S"] if package == "tflite-runtime" else [sys.executable]


def environment_with(package: str) -> dict[str, str]:
    """Return the environment of `python_with` the same runtime."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**bare, "PYTHONPATH": str(OLD)} if package == "tflite-runtime" else bare
