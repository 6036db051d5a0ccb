"""A SavedModel folder of Keras 2, read without running anything of what it holds.

A SavedModel is a program: TensorFlow's loader revives the functions in it and calls them.  Keras
puts the model's config beside them, and the weights are a checkpoint, which is numbers.  These two
are enough, with the user's own classes where the config names some.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tf_keras.protobuf import saved_metadata_pb2
from tf_keras.src.saving.legacy.saved_model import json_utils
from tf_keras.src.saving.serialization_lib import SafeModeScope

from tfedge.errors import UserError
from tfedge.networks.backend import keras

_SEQUENTIAL = "_tf_keras_sequential"
_SILENT = "layer was saved without config"  # tf_keras's words


def config_of(folder: Path) -> dict[str, Any]:
    """Return class and config of the Keras model in a SavedModel.

    Returns:
      ``class_name`` and ``config``, and ``save_spec``, what it was called with when it was saved.

    Raises:
      UserError: It is no such folder, or holds no Keras model.
    """
    if not (folder / "saved_model.pb").is_file():
        fix = "give a .keras or .h5 file, or the folder that model.save wrote"
        raise UserError(folder, "is no SavedModel", fix)
    notes = folder / "keras_metadata.pb"
    if not notes.is_file():
        problem = "is a SavedModel without a Keras model in it, as model.export writes it"
        raise UserError(folder, problem, 'save the model as a file: model.save("model.keras")')
    saved = saved_metadata_pb2.SavedMetadata()
    try:
        saved.ParseFromString(notes.read_bytes())
        (root,) = (node for node in saved.nodes if node.node_path == "root")
        told = json_utils.decode(root.metadata)
    except (DecodeError, KeyError, TypeError, ValueError) as error:
        fix = "give the folder as model.save wrote it"
        raise UserError(notes, f"is damaged ({error})", fix) from error
    kind = str(told.get("class_name"))
    if told.get("is_graph_network"):
        kind = "Sequential" if root.identifier == _SEQUENTIAL else "Functional"
    config = told.get("config") or {}
    graph = kind in ("Sequential", "Functional")
    if graph and ("layers" not in config or _SILENT in root.metadata):
        problem = "says nothing of its layers: one of them could not say how it was made"
        fix = "give each class of your own a get_config() that returns all arguments; save it anew"
        raise UserError(folder, problem, fix)
    config = {"name": told.get("name", ""), **config}
    return {"class_name": kind, "config": config, "save_spec": told.get("save_spec")}


def model_of(
    folder: Path,
    told: Mapping[str, Any],
    shape: tuple[int, ...],
    custom: Mapping[str, Any],
    *,
    trust: bool,
) -> keras.Model:
    """Make the model anew that a SavedModel was saved from, with its weights.

    Args:
      told: What `config_of` found, and found harmless.
      shape: Of one input, for a subclassed model that was saved without it.
      custom: The user's own layers and models by name.
      trust: Make functions of the bytecode in the config.

    Raises:
      UserError: The folder lacks weights.  Whatever a class of the user's raises comes through.
    """
    kind = custom.get(told["class_name"])
    with SafeModeScope(safe_mode=not trust):
        if kind is None:
            made = {"class_name": told["class_name"], "config": told["config"]}
            model = keras.models.model_from_config(made, custom_objects=dict(custom))
        else:
            model = kind.from_config(dict(told["config"]))
    if not model.built or kind is not None:
        spec = told["save_spec"]
        known = isinstance(spec, tf.TensorSpec) and None not in spec.shape[1:]
        model(tf.zeros((1, *(spec.shape[1:] if known else shape))))
    model.set_weights([_unset(weight) for weight in model.get_weights()])
    model.load_weights(folder / "variables" / "variables").expect_partial()
    for weight in model.weights:
        value = weight.numpy()
        if value.dtype.kind == "f" and value.size and np.isnan(value).all():
            fix = "save it anew, as the class is now: model.save(…)"
            raise UserError(folder, f"holds no numbers for its weight {weight.name!r}", fix)
    return model


def _unset(weight: np.ndarray) -> np.ndarray:
    """Return what no trained weight is, so that one that is not in the file is noticed."""
    return np.full_like(weight, np.nan) if weight.dtype.kind == "f" else weight
