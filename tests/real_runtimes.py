"""Python processes with one TFLite runtime or the other, which do not fit into one."""

import os
import sys
from pathlib import Path

RUNTIMES = ("ai-edge-litert", "tflite-runtime")
OLD = Path(sys.prefix) / "tflite-runtime"
"""Where `make` puts tflite-runtime 2.14 and the numpy 1 that it needs."""


def python_with(package: str) -> list[str]:
    """Return what starts a Python that finds no other runtime, in `environment_with` it."""
    return [sys.executable, "-S"] if package == "tflite-runtime" else [sys.executable]


def environment_with(package: str) -> dict[str, str]:
    """Return the environment of a process in which infer.py takes that runtime."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if package == "tflite-runtime":
        if not (OLD / "tflite_runtime").is_dir():
            raise FileNotFoundError(f"{OLD}: is not there; make .venv/installed puts it there")
        bare["PYTHONPATH"] = str(OLD)
    return {**bare, "TFEDGE_RUNTIME": package}
