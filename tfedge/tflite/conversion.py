"""Keras to TFLite."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfedge.networks.backend import keras
from tfedge.progress import quietly


def to_int8(model: keras.Model, samples: np.ndarray, limits: tuple[float, float]) -> bytes:
    """Convert `model` so that weights, activations, input and output are all int8.

    An operation that has no int8 form is an error here.  Left in float, it would send itself and
    all that follows it from the Edge TPU to the CPU, and nothing would say so.  A dense layer has
    one scale for all its weights: with one a channel, runtimes before 2.10 answer nonsense.

    Args:
      model: Float or quantization-aware; what a quantization-aware model has learned of ranges is
        taken over.
      samples: Float32 [count, ...], normalised as in training, of every class.  They set the
        activations' ranges; beyond a few hundred, more change little.
      limits: Least and largest value that a normalised input can have.  They set the input's scale
        and zero point, so that quantising a pixel is exact.

    Returns:
      The .tflite file's bytes.
    """
    converter = _converter(model, samples.shape[1:])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: _calibration(samples, limits)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    with quietly():
        return bytes(converter.convert())


def to_float(model: keras.Model) -> bytes:
    """Convert `model` as it is, in float32: the size that every later stage is compared with."""
    converter = _converter(model, model.input_shape[1:])
    with quietly():
        return bytes(converter.convert())


def _converter(model: keras.Model, shape: tuple[int, ...]) -> tf.lite.TFLiteConverter:
    # A fixed batch of 1: the Edge TPU compiler refuses dynamic shapes.
    inputs = tf.TensorSpec((1, *shape), tf.float32, name="inputs")
    answer = tf.function(lambda inputs: {"logits": model(inputs, training=False)})
    module = tf.Module()
    module.model = model
    step = answer.get_concrete_function(inputs)
    return tf.lite.TFLiteConverter.from_concrete_functions([step], module)


def _calibration(samples: np.ndarray, limits: tuple[float, float]) -> Iterator[list[np.ndarray]]:
    # The converter takes the input's range from the samples.  Two corner values of the first make
    # it what it must be; a corner pixel moves no other range to speak of.
    first = samples[:1].copy()
    first.reshape(-1)[[0, -1]] = limits
    yield [first]
    for sample in samples[1:]:
        yield [sample[None]]
