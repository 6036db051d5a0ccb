"""How tf_keras stores a model; see `reading.Dialect`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import Layer
from tfedge.networks.operators import Arguments

_K = keras.layers
_FUNCTIONS = ("TFOpLambda", "SlicingOpLambda")


class Keras2:
    """tf_keras, which tfmot works on."""

    def functional(self, layer: Any) -> Any | None:
        if isinstance(layer, keras.Sequential) and layer.built and layer.inputs is None:
            shape = layer.layers[0].input_shape
            inputs = outputs = keras.Input(shape[1:])
            for part in layer.layers:
                outputs = part(outputs)
            return keras.Model(inputs, outputs, name=layer.name)
        return layer if getattr(layer, "_is_graph_network", False) else None

    def input(self, shape: tuple[int | None, ...]) -> Any:
        return keras.Input(shape)

    def model(self, inputs: Any, outputs: Any, name: str) -> Any:
        return keras.Model(inputs, outputs, name=name)

    def nodes(self, model: Any) -> Iterator[tuple[Any, Arguments, list[Any]]]:
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not isinstance(node.layer, _K.InputLayer):
                    arguments = tuple(node.call_args), dict(node.call_kwargs)
                    yield node.layer, arguments, tf.nest.flatten(node.outputs)

    def key(self, tensor: Any) -> tuple[int, int, int] | None:
        history = getattr(tensor, "_keras_history", None)
        return history and (id(history.layer), history.node_index, history.tensor_index)

    def is_model(self, layer: Any) -> bool:
        return isinstance(layer, keras.Model)

    def may_hold_others(self, layer: Any) -> bool:
        return not type(layer).__module__.startswith(("tf_keras.src.layers", "tfedge."))

    def called_function(self, layer: Any) -> Any | None:
        if isinstance(layer, _K.Activation):
            return _not_keras(layer.activation)
        if not isinstance(layer, _K.Lambda):
            return None
        return functools.partial(layer.function, **(layer.arguments or {}))

    def own_activation(self, layer: Any) -> Any | None:
        if (
            self.may_hold_others(layer)
            or isinstance(layer, _K.Activation)
            or hasattr(layer, "cell")
        ):
            return None
        return _not_keras(getattr(layer, "activation", None))

    def function(self, layer: Any, arguments: Arguments) -> tuple[str, Arguments] | None:
        if type(layer).__name__ not in _FUNCTIONS:
            return None
        return str(layer.get_config()["function"]), arguments

    def twin(self, layer: Any, name: str) -> list[Layer]:
        where = f"layer {layer.name!r} ({type(layer).__name__})"
        if isinstance(layer, _K.SpectralNormalization):
            return self.twin(layer.layer, name)  # it changes the weights, and in training only
        try:
            config = dict(layer.get_config())
        except NotImplementedError:
            fix = "give its class a get_config() that returns all arguments of its __init__"
            raise UserError(where, "cannot say how it was made", fix) from None
        if config.get("data_format") == "channels_first":
            fix = "build it with channels_last: TFLite knows no other"
            raise UserError(where, "has its channels first", fix)
        config.pop("name", None)
        if "dtype" in config:
            config["dtype"] = "float32"  # whatever precision it was trained in
        activation = getattr(layer, "activation", None)
        if self.own_activation(layer):
            config["activation"] = "linear"
        if not isinstance(activation, _K.Layer) or self.may_hold_others(layer):
            return [Layer(name, type(layer), config, layer.get_weights())]
        behind = self.twin(activation, f"{name}_{activation.name}")
        if isinstance(layer, _K.Activation):
            return behind
        config["activation"] = "linear"
        inner = {id(weight) for weight in activation.weights}
        weights = [weight.numpy() for weight in layer.weights if id(weight) not in inner]
        return [Layer(name, type(layer), config, weights), *behind]

    def is_variable(self, item: Any) -> bool:
        return isinstance(item, tf.Variable)


def _not_keras(function: Any) -> Any | None:
    """Return an activation that is a function of the user's or TensorFlow's; None for Keras's."""
    module = getattr(function, "__module__", None) or ""
    known = isinstance(function, _K.Layer) or module.startswith("tf_keras.")
    return function if callable(function) and not known else None
