"""The one way in which tfedge saves Keras models."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import h5py
from tensorflow_model_optimization.quantization.keras import quantize_scope

from tfedge import paths
from tfedge.networks.backend import keras
from tfedge.networks.layers import OWN


def save_model(model: keras.Model, file: Path) -> None:
    """Write `model`, a QAT model too, to an .h5 file.

    Not .keras: tfmot's QuantizeLayer does not come back from it ("expected 5 variables, but
    received 3", tf_keras 2.21 and tfmot 0.8.1).
    """
    partial = file.with_name("." + file.name)
    with warnings.catch_warnings(action="ignore"):  # "HDF5 is considered legacy"
        model.save(partial, include_optimizer=False, save_format="h5")
    paths.replace(file, partial.read_bytes())
    partial.unlink()


def load_model(file: Path, custom: Mapping[str, type] | None = None) -> keras.Model:
    """Read what `save_model` wrote; the model is not compiled.

    Args:
      custom: Layers that are not Keras's or tfmot's, by the name of their class.
    """
    with quantize_scope({**OWN, **(custom or {})}):
        return keras.models.load_model(file, compile=False)


def is_aware(file: Path) -> bool:
    """Whether a file holds a quantization-aware network as `save_model` wrote it, and no code.

    It is looked up in what the file says of itself; nothing in it is made or run.
    """
    config = _config(file)
    return '"QuantizeLayer"' in config and '"Lambda"' not in config


def has_exits(file: Path) -> bool:
    """Whether a file holds a network with tfedge's early exits, and no code; as `is_aware` does."""
    config = _config(file)
    return '"exit_0_' in config and '"Lambda"' not in config


def _config(file: Path) -> str:
    """Return what an .h5 file says of its network; nothing of any other file."""
    if file.is_dir() or not h5py.is_hdf5(file):
        return ""
    with h5py.File(file) as store:
        return str(store.attrs.get("model_config", ""))
