"""Which engines there are, how each is installed, and which Python runs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tfedge.boards.runtimes import RUNTIMES
from tfedge.errors import UserError, did_you_mean

_OLD = RUNTIMES["tflite-runtime 2.14"]


@dataclass(frozen=True)
class Engine:
    """An engine that `child.py` knows.

    Attributes:
      name: As the user writes it.
      packages: What to give to ``pip install``, its importer among them.
      takes: The ending of the file that it runs; what is not ``.tflite`` is converted first.
      beside: The ending of a file that the user puts beside the .tflite, for want of an importer.
      pythons: The least and the last Python 3 that has wheels, if not all do.
      apart: It does not fit into one environment with TensorFlow.
    """

    name: str
    packages: str
    takes: str = ".tflite"
    beside: str = ""
    pythons: tuple[int, int] | None = None
    apart: bool = False

    @property
    def folder(self) -> Path:
        """Where it is looked for if it is `apart`, as ``pip install --target`` leaves it."""
        return Path(sys.prefix) / self.name

    @property
    def install(self) -> str:
        """What to type to have it."""
        if not self.apart:
            return f"pip install {self.packages}"
        minor = sys.version_info.minor
        if self.pythons is None or self.pythons[0] <= minor <= self.pythons[1]:
            return f"pip install --target {self.folder} {self.packages}"
        old = f"python3.{self.pythons[1]} -m venv old && old/bin/pip install {self.packages}"
        return f"{old}; then give --python {self.name}=old/bin/python"


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("litert", "ai-edge-litert"),
        Engine(
            _OLD.package,
            _OLD.install.removeprefix("pip install "),
            pythons=_OLD.pythons,
            apart=True,
        ),
        Engine("onnxruntime", "onnxruntime tf2onnx", takes=".onnx"),
        Engine("openvino", "openvino"),
        Engine("tvm", "apache-tvm tflite", takes=".so"),
        Engine("executorch", "executorch torch", beside=".pte"),
    )
}
"""All that are known, by name, in the order of the table."""

ALL = "all"


def named(text: str) -> tuple[Engine, ...]:
    """Return the engines of a list such as ``litert,openvino``, or of ``all``.

    Raises:
      UserError: A name is not known, is there twice, or there is none.
    """
    names = list(ENGINES) if text == ALL else [name.strip() for name in text.split(",")]
    for number, name in enumerate(names):
        if name not in ENGINES:
            hint = did_you_mean(name, (*ENGINES, ALL))
            raise UserError("--engines", f"unknown engine {name!r}", hint)
        if name in names[:number]:
            raise UserError("--engines", f"{name} is there twice", "name each engine once")
    return tuple(ENGINES[name] for name in names)


def pythons(given: tuple[str, ...]) -> dict[str, Path]:
    """Return the Python for each engine that one was named for, as ``ENGINE=PATH``.

    Raises:
      UserError: Of a form, an engine or a file that is none.
    """
    found = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or name not in ENGINES:
            fix = f"write ENGINE=PATH with one of {', '.join(ENGINES)}"
            raise UserError("--python", f"must name an engine and its Python, got {text!r}", fix)
        if not os.access(path, os.X_OK) or Path(path).is_dir():
            raise UserError("--python", f"{path} is no program", "give venv/bin/python of its venv")
        found[name] = Path(path)
    return found


def command(engine: Engine, python: Path | None) -> tuple[list[str], dict[str, str]]:
    """Return what starts a Python that has an engine, and the environment for it.

    Args:
      python: The user's choice; else this one, without what is installed here if the engine lies in
        a folder of its own.
    """
    # Safe path: the modules beside the script are not for it to import.
    own = {**os.environ, "PYTHONSAFEPATH": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    bare = {key: value for key, value in own.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    if python:
        return [str(python)], bare
    if engine.apart and engine.folder.is_dir():
        return [sys.executable, "-S"], bare | {"PYTHONPATH": str(engine.folder)}
    return [sys.executable], own
