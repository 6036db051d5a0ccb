"""One network in every form, with and without what makes it right on old runtimes.

Convolution, depthwise, pooling and dense layers on images; an LSTM and a dense layer on sequences;
and many other operators on images.  The weights are as Keras starts them: what counts is whether a
runtime answers as the newest one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LIMITS = (0.0, 1.0)
WRONG = 0.5
"""Error relative to what the answers vary by, from which they are of no use."""


@dataclass(frozen=True)
class Case:
    """A .tflite, and inputs for it: float32 [count, ...] from 0 to 1."""

    content: bytes
    inputs: np.ndarray


def cases() -> dict[str, Case]:
    """Return all files by name: network, form, and what was left out."""
    from tfedge.networks.backend import keras
    from tfedge.tflite.conversion import FORMS, convert

    found = {}
    rng = np.random.default_rng(0)
    nets = (("conv", _conv, (12, 12, 3)), ("lstm", _lstm, (28, 28)), ("many", _many, (12, 12, 3)))
    for name, make, shape in nets:
        keras.utils.set_random_seed(1)
        count, channels = 64, shape[-1]
        inputs = rng.uniform(0, 1, (count, *shape)) * rng.uniform(
            0, 1, (count, *[1] * (len(shape) - 1), channels)
        )
        inputs = inputs.astype(np.float32)
        model = make(shape)
        files = {
            f"{name} {form}": convert(model, form, inputs, LIMITS)
            for form in FORMS
            if (name, form) != ("lstm", "int16x8")  # which TensorFlow does not convert
        }
        if name == "conv":
            files["conv int8, dense per channel"] = per_channel(model, inputs)
            files["conv dynamic, dense per channel"] = per_channel(model, None)
            files["conv float32, any batch"] = any_batch(model)
        if name == "lstm":
            files["lstm int8, itself in float"] = with_float(model, files, "memory")
        found |= {key: Case(content, inputs) for key, content in files.items()}
    return found


def error(answers: Any, right: Any) -> float:
    """Return the root mean square of the differences, relative to how much the right ones vary."""
    difference = np.asarray(answers) - np.asarray(right)
    return float(np.sqrt(np.mean(difference**2) / np.var(np.asarray(right), axis=0).mean()))


def with_float(model: Any, files: dict[str, bytes], layer: str) -> bytes:
    """Return the int8 file with a layer of the float one."""
    from tfedge.tflite import names
    from tfedge.tflite.mixing import Twins, mixed

    twins = Twins(files["lstm int8"], files["lstm float32"], names.of_network(model))
    return mixed(twins, [layer])


def per_channel(model: Any, inputs: np.ndarray | None) -> bytes:
    """Convert as TensorFlow does by default: a dense layer has a scale for each of its outputs.

    Full int8 with `inputs` to calibrate on; without, weights alone are int8.
    """
    import tensorflow as tf

    from tfedge.progress import quietly
    from tfedge.tflite.calibration import converter_of

    converter = converter_of(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if inputs is not None:
        converter.representative_dataset = lambda: ([one[None]] for one in inputs)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with quietly():
        return bytes(converter.convert())


def any_batch(model: Any) -> bytes:
    """Convert with a batch of any size."""
    import tensorflow as tf

    from tfedge.progress import quietly

    with quietly():
        return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def _conv(shape: tuple[int, ...]) -> Any:
    from tfedge.networks.backend import keras

    layers = keras.layers
    biases = [keras.initializers.RandomNormal(stddev=0.1, seed=seed) for seed in (1, 2)]
    x = given = keras.Input(shape)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Conv2D(64, 1, activation="relu", name="pointwise")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(64, activation="relu", bias_initializer=biases[0], name="hidden")(x)
    x = layers.Dense(10, bias_initializer=biases[1], name="logits")(x)
    return keras.Model(given, x, name="net")


def _lstm(shape: tuple[int, ...]) -> Any:
    from tfedge.networks.backend import keras

    layers = keras.layers
    given = keras.Input(shape)
    x = layers.LSTM(64, name="memory")(given)
    return keras.Model(given, layers.Dense(10, name="logits")(x), name="net")


def _many(shape: tuple[int, ...]) -> Any:
    from tfedge.networks.backend import keras

    layers = keras.layers
    x = given = keras.Input(shape)
    x = layers.Conv2D(8, 3, padding="same", activation="relu6")(x)
    parts = [
        layers.MaxPooling2D(2)(x),
        layers.AveragePooling2D(2)(x),
        layers.LeakyReLU(0.1)(layers.Conv2D(8, 1, strides=2)(x)),
        layers.Activation("tanh")(layers.Conv2D(8, 1, strides=2)(x)),
    ]
    x = layers.Concatenate()([layers.Add()(parts[:2]), layers.Multiply()(parts[2:])])
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.Conv2DTranspose(8, 2, strides=2, activation="sigmoid")(x)
    x = layers.Flatten()(layers.AveragePooling2D(4)(layers.ZeroPadding2D(2)(x)))
    return keras.Model(given, layers.Dense(10, name="logits")(x), name="net")
