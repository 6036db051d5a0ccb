"""How Keras 3 stores a model, and which of its layers and functions are which of tf_keras's.

Keras 3 is imported here only, and only to read: nothing of it goes into a network of tfedge's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras as keras3
import numpy as np

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import Layer
from tfedge.networks.keras3_functions import as_tensorflow
from tfedge.networks.layers import Augmentation, HardSigmoid, HardSwish
from tfedge.networks.operators import Arguments

__all__ = ["Keras3", "keras3"]

_K = keras.layers
_AUGMENTING = tuple(
    kind
    for name, kind in vars(keras3.layers).items()
    if name.startswith(("Random", "Rand", "AugMix", "CutMix", "MixUp", "Solarization"))
    and name != "RandomCrop"  # which crops at inference, too
)
_START_VALUES = ("_initializer", "_regularizer", "_constraint")


class Keras3:
    """Keras 3, on its TensorFlow backend.

    Args:
      twins: tf_keras layers that stand for layers of the user's own, by the name of their class.
    """

    def __init__(self, twins: Mapping[str, type] | None = None) -> None:
        self.twins = dict(twins or {})

    def functional(self, layer: Any) -> Any | None:
        if isinstance(layer, keras3.Sequential):
            return layer._functional if layer.built else None
        return layer if hasattr(layer, "_nodes_by_depth") else None

    def input(self, shape: tuple[int | None, ...]) -> Any:
        return keras3.Input(shape)

    def model(self, inputs: Any, outputs: Any, name: str) -> Any:
        return keras3.Model(inputs, outputs, name=name)

    def nodes(self, model: Any) -> Iterator[tuple[Any, Arguments, list[Any]]]:
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    arguments = tuple(node.arguments.args), dict(node.arguments.kwargs)
                    yield node.operation, arguments, list(node.outputs)

    def key(self, tensor: Any) -> tuple[int, int, int] | None:
        history = getattr(tensor, "_keras_history", None)
        return history and (id(history.operation), history.node_index, history.tensor_index)

    def is_model(self, layer: Any) -> bool:
        return isinstance(layer, keras3.Model)

    def may_hold_others(self, layer: Any) -> bool:
        own = type(layer).__module__.startswith("keras.src.")
        return not own and _own_twin(layer, self.twins) is None

    def called_function(self, layer: Any) -> Any | None:
        if isinstance(layer, keras3.layers.Activation):
            return _not_keras(layer.activation)
        if not isinstance(layer, keras3.layers.Lambda):
            return None
        return functools.partial(layer.function, **(layer.arguments or {}))

    def own_activation(self, layer: Any) -> Any | None:
        own = type(layer).__module__.startswith("keras.src.")
        if not own or isinstance(layer, keras3.layers.Activation) or hasattr(layer, "cell"):
            return None
        return _not_keras(getattr(layer, "activation", None))

    def function(self, layer: Any, arguments: Arguments) -> tuple[str, Arguments] | None:
        if isinstance(layer, keras3.layers.Layer):
            return None
        return as_tensorflow(layer, arguments)

    def twin(self, layer: Any, name: str) -> list[Layer]:
        where = f"layer {layer.name!r} ({type(layer).__name__})"
        if isinstance(layer, _AUGMENTING):
            return [Layer(name, Augmentation)]
        if isinstance(layer, keras3.layers.SpectralNormalization):
            return self.twin(layer.layer, name)  # it changes the weights, and in training only
        return list(_twin(layer, name, self.twins, where))

    def is_variable(self, item: Any) -> bool:
        return isinstance(item, keras3.Variable)


def _twin(layer: Any, name: str, twins: Mapping[str, type], where: str) -> Iterator[Layer]:
    """Yield the tf_keras layer of the same name, and its activation where that is another's."""
    word = type(layer).__name__
    kind = _own_twin(layer, twins) or getattr(_K, word, None)
    if kind is None:
        fix = f"write its twin, class {word}Twin(tf_keras.layers.Layer), in the file of custom"
        raise UserError(where, "tf_keras has no such layer", fix)
    config = layer.get_config()
    _refuse_channels_first(config, where)
    if word == "Normalization":
        ends = {key: np.asarray(getattr(layer, key)).reshape(-1).tolist() for key in _MOMENTS}
        yield Layer(name, kind, {"axis": config["axis"], **ends, "dtype": "float32"})
        return
    if "layer" in config:  # a wrapper, such as Bidirectional
        config |= _held(layer, twins, where)
    behind = list(_activation_behind(layer, config, name, twins, where))
    if word == "Activation" and behind:
        yield from behind
        return
    if behind:
        config["activation"] = "linear"
    inner = {id(weight) for weight in getattr(getattr(layer, "activation", None), "weights", ())}
    weights = [np.asarray(weight) for weight in layer.weights if id(weight) not in inner]
    yield Layer(name, kind, _known(config, layer, kind, where), weights)
    yield from behind


def _own_twin(layer: Any, twins: Mapping[str, type]) -> type | None:
    """Return the user's tf_keras layer that stands for one of the user's own."""
    word = type(layer).__name__
    return twins.get(f"{word}Twin") or twins.get(word)


def _not_keras(function: Any) -> Any | None:
    """Return an activation that is a function of the user's own; None for Keras's."""
    module = getattr(function, "__module__", None) or ""
    known = isinstance(function, keras3.layers.Layer) or module.startswith("keras.src.")
    return function if callable(function) and not known else None


def _activation_behind(
    layer: Any, config: dict[str, Any], name: str, twins: Mapping[str, type], where: str
) -> Iterator[Layer]:
    """Yield the layer for an activation that tf_keras has not, or not by this name."""
    given = getattr(layer, "activation", None)
    if hasattr(layer, "cell"):
        _refuse_steps_activations(config, where)
    elif isinstance(given, keras3.layers.Layer):
        yield from _twin(given, f"{name}_{given.name}", twins, where)
    elif _not_keras(given):
        config["activation"] = "linear"  # and it is followed
    elif isinstance(word := config.get("activation"), str):
        if word in _ACTIVATIONS:
            kind, own = _ACTIVATIONS[word]
            yield Layer(
                name if type(layer).__name__ == "Activation" else f"{name}_{word}", kind, dict(own)
            )
        else:
            _refuse_unknown(word, where)


def _refuse_steps_activations(config: Mapping[str, Any], where: str) -> None:
    """Refuse what a recurrent layer computes in each step and tf_keras computes otherwise."""
    for key in ("activation", "recurrent_activation"):
        word = config.get(key, "linear")
        if not isinstance(word, str) or word in _ACTIVATIONS:
            problem = f"has {key} = {word!r}, which tf_keras computes otherwise"
            raise UserError(where, problem, "train it with tanh and sigmoid, as TFLite has them")
        _refuse_unknown(word, where)


def _refuse_unknown(activation: str, where: str) -> None:
    try:
        keras.activations.get(activation)
    except (TypeError, ValueError):
        problem = f"has the activation {activation!r}, which tf_keras does not know"
        fix = "write it as a function of keras.ops' in a layer of your own, or take another"
        raise UserError(where, problem, fix) from None


def _refuse_channels_first(config: Mapping[str, Any], where: str) -> None:
    if config.get("data_format") == "channels_first":
        fix = "build it with channels_last: TFLite knows no other"
        raise UserError(where, "has its channels first", fix)


def _held(layer: Any, twins: Mapping[str, type], where: str) -> dict[str, Any]:
    """Return the layers that a wrapper holds, as tf_keras writes them."""
    found = {}
    names = {"layer": ("layer", "forward_layer"), "backward_layer": ("backward_layer",)}
    for key, attributes in names.items():
        inner = next((getattr(layer, name) for name in attributes if hasattr(layer, name)), None)
        if inner is not None:
            inside = f"{where}, in it {inner.name!r}"
            held, *behind = _twin(inner, inner.name, twins, inside)
            if behind:
                fix = "put the activation behind the wrapper, in a layer of its own"
                raise UserError(inside, f"has activation {inner.activation.__name__!r}", fix)
            config = {**held.config, "name": held.name}
            found[key] = {"class_name": held.kind.__name__, "config": config}
    return found


_MOMENTS = ("mean", "variance")

_ACTIVATIONS: dict[str, tuple[type, dict[str, Any]]] = {
    "hard_sigmoid": (HardSigmoid, {}),  # tf_keras's of the same name has another slope
    "hard_silu": (HardSwish, {}),
    "hard_swish": (HardSwish, {}),
    "silu": (_K.Activation, {"activation": "swish"}),
    "swish": (_K.Activation, {"activation": "swish"}),
    "relu6": (_K.ReLU, {"max_value": 6.0}),
    "leaky_relu": (_K.LeakyReLU, {"alpha": 0.2}),
}
"""Activations that tf_keras does not know, or knows by another name or another formula."""

_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
_PASSING = frozenset(("name", "dtype", "trainable"))
_OF_NO_EFFECT = frozenset(
    ("data_format", "seed", "autocast", "quantization_config", "lora_rank", "lora_alpha")
)


_OF_STEPS = ("zero_output_for_mask",)
"""What tf_keras's recurrent layers take among **kwargs."""
_SHAPES = ("query_shape", "key_shape", "value_shape")


def _known(config: dict[str, Any], layer: Any, kind: type, where: str) -> dict[str, Any]:
    """Return the settings that the tf_keras class takes; refuse others that are in use."""
    takes = _parameters(kind)
    defaults = _parameters(type(layer))
    found: dict[str, Any] = {"dtype": "float32"}
    if kind is _K.MultiHeadAttention:
        found |= dict.fromkeys(_SHAPES)  # its from_config asks for them, and its call builds it
    for key, value in config.items():
        renamed = _RENAMED.get((kind.__name__, key), key)
        if key in _PASSING or key.endswith(_START_VALUES) or key == "activity_regularizer":
            continue
        if renamed in takes or (key in _OF_STEPS and "cell" in vars(layer)):
            found[renamed] = value
        elif key not in _OF_NO_EFFECT and value not in (None, False, defaults.get(key)):
            fix = f"build the network without {key}"
            raise UserError(where, f"has {key} = {value!r}, which tf_keras does not know", fix)
    return found


def _parameters(kind: type) -> dict[str, Any]:
    """Map the arguments of a class and those that it is derived from to their defaults."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__[:-1]):
        if "__init__" in vars(base):
            signature = inspect.signature(vars(base)["__init__"])
            found |= {name: item.default for name, item in signature.parameters.items()}
    return found
