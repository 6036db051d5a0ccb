"""Open the model files that users bring: .keras of either Keras, .h5, SavedModel."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf
from tensorflow_model_optimization.quantization import keras as quantization
from tensorflow_model_optimization.sparsity import keras as sparsity

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import Graph
from tfedge.networks.keras2 import Keras2
from tfedge.networks.layers import OWN
from tfedge.networks.reading import read
from tfedge.networks.safety import refuse_code, refuse_strangers
from tfedge.networks.saved_model import config_of, model_of

_DAMAGED = (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError, pickle.UnpicklingError)
_FIRST_OF_KERAS3 = 3
_CONFIG, _METADATA = "config.json", "metadata.json"

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
    is_keras3 = looked_through(file, trust=trust, custom=own)
    try:
        # Keras's own safe mode is a second lock on the same door.
        options = {"safe_mode": False} if trust else {}
        return (_with_keras3 if is_keras3 else _with_keras2)(file, shape, own, options)
    except UserError as error:
        raise error.within(str(file)) from error.__cause__


def looked_through(
    file: Path, *, trust: bool = False, custom: Mapping[str, Any] | None = None
) -> bool:
    """Refuse a file that would run code, or needs what is not given, before anything of it runs.

    Returns:
      Whether Keras 3 wrote it.
    """
    is_keras3, config = _inside(file)
    if not trust:
        refuse_code(file, config)
    refuse_strangers(file, config, custom or {})
    return is_keras3


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
        return False, config_of(file)
    try:
        version, config = (_of_zip if _is_zip(file) else _of_h5)(file)
    except _DAMAGED as error:
        fix = "give a .keras or .h5 file, or a SavedModel folder, that Keras has saved"
        if not _is_zip(file) and zipfile.is_zipfile(file) and _CONFIG in _names(file):
            fix = "rename it to end in .keras, if model.save wrote it: Keras reads no other name"
        raise UserError(file, f"is no Keras model, or is damaged ({error})", fix) from error
    config.pop("compile_config", None)  # how it was trained, which is not read
    version = version.decode() if isinstance(version, bytes) else str(version)
    major = version.split(".")[0]
    if not major.isdecimal():
        fix = "save it anew with model.save"
        raise UserError(file, f"says that Keras {version!r} wrote it, which is no version", fix)
    return int(major) >= _FIRST_OF_KERAS3, config


def _names(file: Path) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def _of_zip(file: Path) -> tuple[Any, dict[str, Any]]:
    """Return version and config of a .keras file."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if missing := {_CONFIG, _METADATA} - {*names}:
            raise ValueError(f"a zip without {min(missing)}")
        told, config = (json.loads(archive.read(name)) for name in (_METADATA, _CONFIG))
    if not (isinstance(told, dict) and isinstance(config, dict) and "class_name" in config):
        raise ValueError(f"its {_CONFIG} names no class")
    if not any(name.startswith("model.weights") for name in names):
        fix = "save the whole model: model.save(…)"
        raise UserError(file, "holds a network without its weights", fix)
    return told.get("keras_version"), config


def _of_h5(file: Path) -> tuple[Any, dict[str, Any]]:
    """Return version and config of an HDF5 file."""
    with h5py.File(file) as store:
        if "model_config" not in store.attrs:
            fix = "save the whole model: model.save(…), not save_weights"
            raise UserError(file, "holds weights and no network", fix)
        config = json.loads(store.attrs["model_config"])
        if not isinstance(config, dict) or "class_name" not in config:
            raise ValueError("its model_config names no class")
        return store.attrs.get("keras_version", "2"), config


def _is_zip(file: Path) -> bool:
    """Whether Keras would read a file as .keras; what it holds else is not what Keras will see."""
    return file.suffix == ".keras" and zipfile.is_zipfile(file)


def _with_keras2(
    file: Path, shape: tuple[int, ...], custom: dict[str, Any], options: dict[str, bool]
) -> tuple[Graph, Answers]:
    with (
        warnings.catch_warnings(action="ignore"),
        quantization.quantize_scope({**OWN, **custom}),
        sparsity.prune_scope(),
    ):
        try:
            if file.is_dir():
                model = model_of(file, config_of(file), shape, custom, trust=bool(options))
            else:
                options = options if _is_zip(file) else {}
                model = keras.models.load_model(file, compile=False, **options)
        except UserError:
            raise
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
    """Return what a model answers, asked in batches of the size that it takes if that is fixed."""
    batch = tf.nest.flatten(getattr(model, "inputs", None) or [None])[0]
    size = None if batch is None else batch.shape[0]

    def answer(inputs: np.ndarray) -> np.ndarray:
        parts = [inputs]
        if size is not None:
            rest = -len(inputs) % size
            full = np.concatenate([inputs, np.repeat(inputs[-1:], rest, axis=0)])
            parts = np.split(full, len(full) // size)
        # A model may hand out its one answer in a dictionary or a list.
        answers = [tf.nest.flatten(model(part, training=False))[0] for part in parts]
        return np.concatenate([np.asarray(part) for part in answers])[: len(inputs)]

    return answer
