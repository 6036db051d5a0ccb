"""Open the model files that users bring: .keras of either Keras, .h5, SavedModel."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tensorflow_model_optimization.quantization import keras as quantization
from tensorflow_model_optimization.sparsity import keras as sparsity

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import Graph
from tfedge.networks.keras2 import Keras2
from tfedge.networks.layers import OWN
from tfedge.networks.reading import read

TRUST = (
    "if you trust whoever made the file, write trust = true; or replace the layer by Keras's own"
)
_DAMAGED = (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError, pickle.UnpicklingError)
_FIRST_OF_KERAS3 = 3

Answers = Callable[[np.ndarray], np.ndarray]


def opened(
    file: Path,
    shape: tuple[int, ...],
    *,
    trust: bool = False,
    custom: Mapping[str, Any] | None = None,
) -> tuple[Graph, Answers]:
    """Read a model file.

    Args:
      shape: Of one input, for a subclassed model, which does not say what it takes.
      trust: Run code that the file holds: a Lambda's, a SavedModel's.
      custom: The user's own layers and functions by name.

    Returns:
      The network's graph, and a function that gives what the model as it was read answers to
      float32 [count, ...].

    Raises:
      UserError: It is no such file, is damaged, or holds what cannot be read.
    """
    if not file.exists():
        raise UserError(file, "No such file or directory")
    own = dict(custom or {})
    is_keras3, config = _inside(file)
    if not trust:
        _refuse_code(file, config)
    _refuse_strangers(file, config, own)
    try:
        # Keras's own safe mode is a second lock on the same door.
        options = {"safe_mode": False} if trust else {}
        return (_with_keras3 if is_keras3 else _with_keras2)(file, shape, own, options)
    except UserError as error:
        raise error.within(str(file)) from error.__cause__


def is_keras3(file: Path) -> bool:
    """Whether Keras 3 wrote a model file."""
    return _inside(file)[0]


def made_by(model: Any, shape: tuple[int, ...]) -> tuple[Graph, Answers]:
    """Do as `opened` for a model that a function of the user's has made, of either Keras."""
    if isinstance(model, keras.Model):
        return read(model, Keras2(), shape), _answers(model)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    bases = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if "keras" in bases and hasattr(model, "layers"):
        from tfedge.networks.keras3 import Keras3

        return read(model, Keras3(), shape), _answers(model)
    fix = "return a keras.Model of Keras 2 (tf_keras) or Keras 3"
    raise UserError("the function", f"returned {kind}, which is no Keras model", fix)


def _inside(file: Path) -> tuple[bool, Any]:
    """Return whether Keras 3 wrote a file, and its config as JSON values."""
    if file.is_dir():
        return False, _saved_model(file)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                version = json.loads(archive.read("metadata.json"))["keras_version"]
                config = json.loads(archive.read("config.json"))
        else:
            with h5py.File(file) as store:
                version = store.attrs.get("keras_version", "2")
                config = json.loads(store.attrs["model_config"])
    except KeyError as error:
        problem = "holds weights and no network"
        fix = "save the whole model: model.save(…), not save_weights"
        raise UserError(file, problem, fix) from error
    except _DAMAGED as error:
        fix = "give a .keras or .h5 file, or a SavedModel folder, that Keras has saved"
        raise UserError(file, f"is no Keras model, or is damaged ({error})", fix) from error
    version = version.decode() if isinstance(version, bytes) else str(version)
    return int(version.split(".")[0]) >= _FIRST_OF_KERAS3, config


def _saved_model(folder: Path) -> Any:
    """Return what a SavedModel folder says of its layers."""
    if not (folder / "saved_model.pb").is_file():
        fix = "give a .keras or .h5 file, or the folder that model.save wrote"
        raise UserError(folder, "is no SavedModel", fix)
    notes = folder / "keras_metadata.pb"
    if not notes.is_file():
        problem = "is a SavedModel without a Keras model in it, as model.export writes it"
        raise UserError(folder, problem, 'save the model as a file: model.save("model.keras")')
    text = notes.read_bytes().decode("utf-8", "replace")
    found, decoder, start = [], json.JSONDecoder(), text.find('{"')
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
            found.append(value)
        except json.JSONDecodeError:
            end = start + 1
        start = text.find('{"', end)
    return found


def _refuse_code(file: Path, config: Any) -> None:
    for name, part in _parts(config, ""):
        if (kind := part["class_name"]) in _CODE:
            problem = f"layer {name!r} ({kind}) holds code, which could do anything"
            raise UserError(file, problem, TRUST)


def _refuse_strangers(file: Path, config: Any, custom: Mapping[str, Any]) -> None:
    """Refuse classes that are neither Keras's nor given; tf_keras would import their modules."""
    for name, part in _parts(config, ""):
        module, kind = part.get("module", _OWN_MODULES[0]) or "", part["class_name"]
        given = {kind, part.get("registered_name")} & {*custom, *OWN}
        if module.split(".")[0] not in _OWN_MODULES and not given:
            problem = f"layer {name!r} ({kind}) is not Keras's own"
            fix = f'name the file that defines it: custom = "layers.py:{kind}"'
            raise UserError(file, problem, fix)


_CODE = ("Lambda", "__lambda__", "function_type", "TFSMLayer")
_OWN_MODULES = ("keras", "tf_keras", "tensorflow_model_optimization", "builtins")


def _parts(config: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what in a config would become an object, with the name of the layer that it is in."""
    if isinstance(config, dict):
        inner = config.get("config")
        if isinstance(inner, dict):
            name = str(inner.get("name", name))
        if isinstance(config.get("class_name"), str):
            yield name, config
        for value in config.values():
            yield from _parts(value, name)
    elif isinstance(config, list):
        for value in config:
            yield from _parts(value, name)


def _with_keras2(
    file: Path, shape: tuple[int, ...], custom: dict[str, Any], options: dict[str, bool]
) -> tuple[Graph, Answers]:
    with (
        warnings.catch_warnings(action="ignore"),
        quantization.quantize_scope({**OWN, **custom}),
        sparsity.prune_scope(),
    ):
        try:
            options = options if zipfile.is_zipfile(file) else {}
            model = keras.models.load_model(file, compile=False, **options)
        except Exception as error:
            raise _unread(file, error) from error
        model = _without_wrappers(model, file)
        if not isinstance(model, keras.Model):
            fix = 'save it as a file: model.save("model.keras")'
            raise UserError(file, f"holds {type(model).__name__}, which is no Keras model", fix)
        return read(model, Keras2(), shape), _answers(model)


def _without_wrappers(model: Any, file: Path) -> Any:
    """Take off what tfmot's pruning put around layers; refuse what its 8 bits did."""
    kinds = {type(layer).__name__ for layer in getattr(model, "layers", ())}
    if any(kind.startswith("Quantize") for kind in kinds):
        fix = "give the network as it was before; tfedge's qat stage trains it in 8 bits"
        raise UserError(file, "was made quantization-aware already", fix)
    return sparsity.strip_pruning(model) if "PruneLowMagnitude" in kinds else model


def _with_keras3(
    file: Path, shape: tuple[int, ...], custom: dict[str, Any], options: dict[str, bool]
) -> tuple[Graph, Answers]:
    from tfedge.networks.keras3 import Keras3, keras3

    layers = {name: item for name, item in custom.items() if isinstance(item, type)}
    twins = {name: kind for name, kind in layers.items() if issubclass(kind, keras.layers.Layer)}
    of_keras3 = {name: item for name, item in custom.items() if name not in twins}
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(keras3.saving.custom_object_scope(of_keras3))
        try:
            model = keras3.models.load_model(file, compile=False, **options)
        except Exception as error:
            # Operators are written to it as if they were layers, and Keras 3.15 does not read them.
            fix = "" if file.suffix == ".keras" else 'save it anew: model.save("model.keras")'
            raise _unread(file, error, fix) from error
        return read(model, Keras3(twins), shape), _answers(model)


def _unread(file: Path, error: Exception, fix: str = "") -> UserError:
    """Say in one line why Keras could not read a file."""
    text = str(error).split("Exception encountered: ")[-1]  # Keras 3 wraps it once a level
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = (lines or [type(error).__name__])[0][:300]
    fix = fix or 'name the file with a layer of your own: custom = "layers.py:MyLayer"'
    if line.startswith("Could not locate function"):
        fix = 'name the file that defines it: custom = "layers.py:my_function"'
    return UserError(file, f"Keras cannot read it: {line}", fix)


def _answers(model: Any) -> Answers:
    def answer(inputs: np.ndarray) -> np.ndarray:
        return np.asarray(model(inputs, training=False))

    return answer
