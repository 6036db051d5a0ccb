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
    if file.is_dir() or not h5py.is_hdf5(file):
        return False
    with h5py.File(file) as store:
        config = str(store.attrs.get("model_config", ""))
    return '"QuantizeLayer"' in config and '"Lambda"' not in config
