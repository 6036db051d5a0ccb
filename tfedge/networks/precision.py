"""A network's twin that computes in another precision."""

from __future__ import annotations

from typing import Any

from tfedge.networks.backend import keras, refuse_nested

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """Return a functional twin of `model` that computes in `precision`; weights stay float32.

    The twin starts with the model's weights and shares none.  Its answer is float32 whatever it
    computes in, because a cross-entropy of bfloat16 logits has two decimal digits.

    Args:
      precision: A key of `POLICIES`.
    """
    refuse_nested(model)
    policy = POLICIES[precision]

    def retyped(layer: keras.layers.Layer) -> keras.layers.Layer:
        config: dict[str, Any] = layer.get_config()
        if not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = policy
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
