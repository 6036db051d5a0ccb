"""A network's twin that computes in another precision, or on several processors."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfedge.networks.backend import keras, refuse_nested

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """Return a functional twin of `model` that computes in `precision`; weights stay float32.

    The twin starts with the model's weights and shares none.  Its answer is float32 whatever it
    computes in, because a cross-entropy of bfloat16 logits has two decimal digits.

    Within the scope of a strategy of tf.distribute, BatchNormalization takes its statistics over
    the whole batch and not over a processor's part of it, in float32: sums of bfloat16 stop at 256.

    Args:
      precision: A key of `POLICIES`.
    """
    refuse_nested(model)
    policy = POLICIES[precision]

    def retyped(layer: keras.layers.Layer) -> keras.layers.Layer:
        config: dict[str, Any] = layer.get_config()
        if not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = policy
        if isinstance(layer, keras.layers.BatchNormalization) and tf.distribute.has_strategy():
            config |= {"synchronized": True, "dtype": "float32"}
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=retyped)
    if precision != "float32":
        names = ("float32_logits", *(f"float32_logits_{n}" for n in range(1, len(twin.outputs))))
        answers = [
            keras.layers.Activation("linear", dtype="float32", name=name)(output)
            for name, output in zip(names, twin.outputs, strict=True)
        ]
        twin = keras.Model(twin.inputs, answers if names[1:] else answers[0], name=model.name)
    twin.set_weights(model.get_weights())
    return twin


def trained_as(model: keras.Model, precision: str) -> keras.Model:
    """Return what is to be trained in place of `model`: itself, or a twin.

    It is a twin in another precision and wherever a strategy of tf.distribute is to train it.  A
    twin's weights are the model's own only once they are set after the training.
    """
    alone = precision == "float32" and not tf.distribute.has_strategy()
    return model if alone else in_precision(model, precision)


def for_one(model: keras.Model) -> keras.Model:
    """Return a twin of `model` whose BatchNormalization knows nothing of other processors."""

    def alone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        config.pop("synchronized", None)
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=alone)
    twin.set_weights(model.get_weights())
    return twin
