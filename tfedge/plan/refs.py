"""Functions that a pipeline file names: ``path.py:name`` or ``package.module:name``."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tfedge.errors import Paused, UserError, did_you_mean
from tfedge.paths import bundled

SOURCE = "__tfedge_source__"
"""In an imported file's module: the hash of what was imported."""

REQUIRED = object()
"""Stands for the default of a parameter that has none."""


@dataclass(frozen=True)
class Ref:
    """A function, or a class, and the file that defines it.

    Attributes:
      text: What the pipeline file says, such as ``models/small.py:student``.
      file: Where that is on this machine.
    """

    text: str
    file: Path

    @classmethod
    def parse(cls, text: str, folder: Path, where: str = "") -> Ref:
        """Find the file; a ``.py`` path is looked for in `folder`, then in what tfedge brings.

        The name must be defined there, which is read from the source and not by running it.
        """
        where = where or repr(text)
        target, _, name = text.rpartition(":")
        if not target or not name.isidentifier():
            fix = "write path.py:name or package.module:name"
            raise UserError(where, f"{text!r} does not name a function", fix)
        if target.endswith(".py"):
            places = [folder / target, bundled() / target]
        else:
            places = _source_of(target)
        for place in places:
            if place.is_file():
                ref = cls(text, place.resolve())
                ref._check_name(where)
                return ref
        looked = "looked for " + " and ".join(map(str, places)) if places else ""
        raise UserError(where, f"no such file or module: {target!r}", looked)

    @property
    def name(self) -> str:
        """What the file is asked for."""
        return self.text.rpartition(":")[2]

    def load(self) -> Callable[..., Any]:
        """Import the file or module and return what `text` names in it."""
        found: Callable[..., Any] = getattr(self.module(), self.name)
        return found

    def module(self) -> ModuleType:
        """Import the file or module."""
        target = self.text.rpartition(":")[0]
        with blaming(self.file):
            is_file = target.endswith(".py")
            return _import_file(self.file) if is_file else importlib.import_module(target)

    def guarded(self) -> Callable[..., Any]:
        """Do as `load`, for a function whose failure is the user's to mend: it names their line."""
        function = self.load()
        where = f"{self.file} {self.name}()"

        @functools.wraps(function)
        def call(*positional: Any, **named: Any) -> Any:
            try:
                inspect.signature(function).bind(*positional, **named)
            except TypeError as error:
                raise UserError(
                    where, f"is called with {_shown(positional, named)}: {error}"
                ) from None
            with blaming(self.file):
                return function(*positional, **named)

        return call

    def fingerprint(self) -> str:
        """Hash the whole file, so that an edit to a helper beside the function counts too."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def parameters(self, skip: int) -> Mapping[str, Any] | None:
        """Map the function's parameters after the first `skip` to their defaults.

        Returns:
          `REQUIRED` for a parameter without a default; None for a default that is no plain value.
          Or None instead of a mapping where the file only imports the function from elsewhere.
        """
        node = self._definitions()[self.name]
        if not isinstance(node, ast.FunctionDef):
            return None
        named = node.args.posonlyargs + node.args.args
        defaults = [REQUIRED] * (len(named) - len(node.args.defaults))
        pairs = list(zip(named, [*defaults, *node.args.defaults], strict=True))[skip:]
        pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        return {argument.arg: _value(default) for argument, default in pairs}

    def _check_name(self, where: str) -> None:
        known = self._definitions()
        if self.name not in known:
            public = [name for name in known if not name.startswith("_")]
            raise UserError(
                where, f"{self.file} has no {self.name!r}", did_you_mean(self.name, public)
            )

    def _definitions(self) -> dict[str, ast.stmt]:
        try:
            tree = ast.parse(self.file.read_text("utf-8"), str(self.file))
        except (SyntaxError, UnicodeDecodeError) as error:
            raise UserError(self.file, f"is not valid Python: {error}") from None
        found: dict[str, ast.stmt] = {}
        for node in tree.body:
            for name in _names_of(node):
                found[name] = node
        return found


def _shown(positional: tuple[Any, ...], named: Mapping[str, Any]) -> str:
    words = [f"{len(positional)} values in their order"] if positional else []
    return " and ".join([*words, *([", ".join(named)] if named else [])]) or "nothing"


@contextmanager
def blaming(file: Path) -> Iterator[None]:
    """Turn what code in a user's `file` raises into a UserError with the line that did it."""
    try:
        yield
    except (UserError, Paused):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file)]
        if not lines:  # not in their code: a bug of ours, or of a library
            raise
        raise UserError(f"{file}:{lines[-1]}", f"{type(error).__name__}: {error}") from error


def _names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _value(default: Any) -> Any:
    if default is REQUIRED or default is None:  # a keyword-only parameter without default has None
        return REQUIRED
    try:
        return ast.literal_eval(default)
    except ValueError:
        return None


def _source_of(module: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):  # its parent package is missing, or it is no name
        return []
    return [Path(spec.origin)] if spec and spec.origin else []


def _import_file(file: Path) -> ModuleType:
    # Its whole path is its name, since two pipelines may each have a models.py.  It must be in
    # sys.modules while it runs: a dataclass looks its own module up there.
    name, source = str(file), hashlib.sha256(file.read_bytes()).hexdigest()
    known = sys.modules.get(name)
    if known is not None and vars(known).get(SOURCE) == source:
        return known  # once, or a layer that registers itself would do so twice
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(file, "is not a Python file")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    setattr(module, SOURCE, source)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
