"""Layers that stand for arithmetic which Keras writes as bare operators.

tfmot handles layers only.  A model file that has been saved with one of these is read by
`saving.load_model` without further ado.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfedge.networks.backend import keras


class HardSigmoid(keras.layers.Layer):
    """Relu6(x + 3) / 6, a sigmoid of straight lines (Howard 2019, section 5.2)."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu6(inputs + 3.0) * (1.0 / 6.0)


class HardSwish(keras.layers.Layer):
    """X * relu6(x + 3) / 6 (Howard 2019, section 5.2); one operator in TFLite.

    https://arxiv.org/abs/1905.02244
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * tf.nn.relu6(inputs + 3.0) * (1.0 / 6.0)


class Affine(keras.layers.Layer):
    """X * scale + offset, with a scale and an offset for each index of the last axis."""

    def build(self, shape: tf.TensorShape) -> None:
        size = (int(shape[-1]),)
        self.scale = self.add_weight("scale", size, initializer="ones")
        self.offset = self.add_weight("offset", size, initializer="zeros")
        super().build(shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.scale + self.offset


class Augmentation(keras.layers.Layer):
    """Stands for a layer that changes inputs in training only; it does nothing."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs


class Operation(keras.layers.Layer):
    """A function of TensorFlow's, such as ``math.exp``, on tensors and constants.

    Args:
      function: Its name below ``tf``; ``getitem`` for ``x[...]``.
      arguments: Positional ones; ``{"tensor": 0}`` stands for the first input, ``{"slice":
        [start, stop, step]}`` for a slice, ``{"array": [...], "dtype": "float32"}`` for numbers.
      named: The others, alike.
    """

    def __init__(
        self,
        function: str,
        arguments: Sequence[Any],
        named: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.function, self.arguments, self.named = function, list(arguments), dict(named or {})

    def call(self, inputs: Any) -> Any:
        tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        positional = [_filled(item, tensors) for item in self.arguments]
        named = {key: _filled(item, tensors) for key, item in self.named.items()}
        if self.function == "getitem":
            return positional[0][tuple(positional[1])]
        return function_of(self.function)(*positional, **named)

    def get_config(self) -> dict[str, Any]:
        own = {"function": self.function, "arguments": self.arguments, "named": self.named}
        return {**super().get_config(), **own}


def function_of(name: str) -> Any:
    """Return TensorFlow's function ``tf.<name>``."""
    found: Any = tf
    for part in name.split("."):
        found = getattr(found, part)
    return found


OWN = {kind.__name__: kind for kind in (HardSigmoid, HardSwish, Affine, Augmentation, Operation)}
"""What a file that was saved with these must be read with."""


def _filled(item: Any, tensors: Sequence[Any]) -> Any:
    """Return an argument with the tensors and slices that it stands for."""
    if isinstance(item, dict) and "tensor" in item:
        return tensors[item["tensor"]]
    if isinstance(item, dict) and "slice" in item:
        return slice(*item["slice"])
    if isinstance(item, dict) and "array" in item:
        return np.array(item["array"], item["dtype"])
    if isinstance(item, dict) and "ellipsis" in item:
        return Ellipsis
    if isinstance(item, (list, tuple)):
        return [_filled(part, tensors) for part in item]
    return item
