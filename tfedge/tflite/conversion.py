"""Keras to TFLite."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.progress import quietly
from tfedge.tflite import gates, names
from tfedge.tflite.calibration import QUANTISED, calibrated, converter_of, quantised

FORMS = (*QUANTISED, "dynamic", "float16", "float32")
"""What `convert` makes."""

_TRIED = 8


def convert(
    model: keras.Model, form: str, samples: np.ndarray, limits: tuple[float, float]
) -> bytes:
    """Convert `model` to one of `FORMS`.

    Args:
      model: Float; for ``int8`` quantization-aware as well.
      form: ``int8`` and ``int16x8`` (activations int16, weights int8) are integers from input to
        output.  The others take and give float32: ``dynamic`` has weights in int8 and quantises
        activations as it runs, ``float16`` has weights in float16, and ``float32`` is as trained.
      samples: Float32 [count, ...], normalised as in training, of every class.  They set the
        activations' ranges; forms with a float input do not look at them.
      limits: Least and largest value that a normalised input can have, as in `to_int8`.

    Returns:
      The .tflite file's bytes.
    """
    if form not in FORMS:
        raise ValueError(f"expected one of {', '.join(FORMS)}, got {form!r}")
    if form == "int8":
        return to_int8(model, samples, limits)
    if any(type(layer).__name__.startswith("Quantize") for layer in model.layers):
        problem = f"a quantization-aware network cannot become {form}"
        raise UserError(f"network {model.name!r}", problem, "convert it to int8, or its float twin")
    if form == "int16x8":
        return quantised(calibrated(model, samples, limits), form)
    if form == "float32":
        return to_float(model)
    converter = converter_of(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    if form == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with quietly():
        return bytes(converter.convert())


def to_int8(model: keras.Model, samples: np.ndarray, limits: tuple[float, float]) -> bytes:
    """Convert `model` so that weights, activations, input and output are all int8.

    A dense layer has one scale for all its weights: with one a channel, runtimes before 2.10 answer
    nonsense.

    Args:
      model: Float or quantization-aware; what a quantization-aware model has learned of ranges is
        taken over.
      samples: Float32 [count, ...], normalised as in training, of every class.  They set the
        activations' ranges; beyond a few hundred, more change little.
      limits: Least and largest value that a normalised input can have.  They set the input's scale
        and zero point, so that no two pixels become one (`data.grid.on_grid`).

    Returns:
      The .tflite file's bytes.
    """
    return quantised(calibrated(model, samples, limits))


def check_becomes_int8(
    aware: keras.Model, samples: np.ndarray, limits: tuple[float, float], where: object
) -> None:
    """Refuse a quantization-aware network before it is trained, if int8 it will never be.

    Training moves ranges and weights; which operators stay in float is settled before it.

    Raises:
      UserError: It names the layers at fault.
    """
    try:
        made = to_int8(aware, samples[:_TRIED], limits)
        gates.check(made, "int8", limits, where, names.of_network(aware))
    except UserError as error:
        _, problem, fix = error.parts
        before = f"training in 8 bits would be in vain: {problem}"
        raise UserError(where, before, fix.replace(_FLOAT16, _FLOAT16_OF_FLOAT)) from error


_FLOAT16 = 'write form = "float16"'
_FLOAT16_OF_FLOAT = 'convert the network as it is before this stage with form = "float16"'


def to_float(model: keras.Model) -> bytes:
    """Convert `model` as it is, in float32: the size that every later stage is compared with."""
    converter = converter_of(model)
    with quietly():
        return bytes(converter.convert())
