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
        return not own and type(layer).__name__ not in self.twins

    def called_function(self, layer: Any) -> Any | None:
        if not isinstance(layer, keras3.layers.Lambda):
            return None
        return functools.partial(layer.function, **(layer.arguments or {}))

    def function(self, layer: Any, arguments: Arguments) -> tuple[str, Arguments] | None:
        if isinstance(layer, keras3.layers.Layer):
            return None
        word = type(layer).__name__
        if word not in _FUNCTIONS:
            fix = "write it with layers of Keras's, or give tfedge a network without it"
            raise UserError(f"layer {layer.name!r}", f"keras.ops' {word} is not known here", fix)
        name, attributes = _FUNCTIONS[word]
        positional, named = arguments
        own = {key: getattr(layer, attribute) for attribute, key in attributes.items()}
        return name, (positional, {**named, **own})

    def twin(self, layer: Any, name: str) -> list[Layer]:
        where = f"layer {layer.name!r} ({type(layer).__name__})"
        if isinstance(layer, _AUGMENTING):
            return [Layer(name, Augmentation)]
        return list(_twin(layer, name, self.twins, where))

    def is_variable(self, item: Any) -> bool:
        return isinstance(item, keras3.Variable)


def _twin(layer: Any, name: str, twins: Mapping[str, type], where: str) -> Iterator[Layer]:
    """Yield the tf_keras layer of the same name, and its activation where that is another's."""
    word = type(layer).__name__
    kind = twins.get(word) or getattr(_K, word, None)
    if kind is None:
        fix = "name a file with a tf_keras layer of the same name in custom, or leave it out"
        raise UserError(where, "tf_keras has no such layer", fix)
    config = layer.get_config()
    _refuse_channels_first(config, where)
    if word == "Normalization":
        ends = {key: np.asarray(getattr(layer, key)).reshape(-1).tolist() for key in _MOMENTS}
        yield Layer(name, kind, {"axis": config["axis"], **ends, "dtype": "float32"})
        return
    if "layer" in config:  # a wrapper, such as Bidirectional
        config |= _held(layer, twins, where)
    activation = config.get("activation")
    behind = None
    if isinstance(activation, str) and word not in _RECURRENT:
        behind = _ACTIVATIONS.get(activation)
    if word == "Activation" and behind:
        yield Layer(name, behind[0], dict(behind[1]))
        return
    if behind:
        config["activation"] = "linear"
    weights = [np.asarray(weight) for weight in layer.weights]
    yield Layer(name, kind, _known(config, layer, kind, where), weights)
    if behind:
        yield Layer(f"{name}_{activation}", behind[0], dict(behind[1]))


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
            (held,) = _twin(inner, inner.name, twins, f"{where}, in it {inner.name!r}")
            config = {**held.config, "name": held.name}
            found[key] = {"class_name": held.kind.__name__, "config": config}
    return found


_MOMENTS = ("mean", "variance")
_RECURRENT = ("LSTM", "GRU", "SimpleRNN")

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


def _known(config: dict[str, Any], layer: Any, kind: type, where: str) -> dict[str, Any]:
    """Return the settings that the tf_keras class takes; refuse others that are in use."""
    takes = _parameters(kind)
    defaults = _parameters(type(layer))
    found: dict[str, Any] = {"dtype": "float32"}
    for key, value in config.items():
        renamed = _RENAMED.get((kind.__name__, key), key)
        if key in _PASSING or key.endswith(_START_VALUES) or key == "activity_regularizer":
            continue
        if renamed in takes:
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


def _same(name: str, **attributes: str) -> tuple[str, dict[str, str]]:
    return name, attributes


_FUNCTIONS: dict[str, tuple[str, dict[str, str]]] = {
    **{word: (f"math.{word.lower()}", {}) for word in ("Add", "Subtract", "Multiply", "Divide")},
    **{word: (f"math.{word.lower()}", {}) for word in ("Maximum", "Minimum", "Exp", "Log", "Sqrt")},
    **{word: (f"math.{word.lower()}", {}) for word in ("Rsqrt", "Square", "Negative", "Floor")},
    **{word: (f"nn.{word.lower()}", {}) for word in ("Relu", "Relu6", "Sigmoid", "Tanh", "Silu")},
    **{word: (f"nn.{word.lower()}", {}) for word in ("Softplus", "Softsign", "Selu")},
    **dict.fromkeys(("Identity", "StopGradient", "Copy"), _same("identity")),
    "TrueDivide": _same("math.divide"),
    "Power": _same("math.pow"),
    "Absolute": _same("math.abs"),
    "Abs": _same("math.abs"),
    "Elu": _same("nn.elu"),
    "Gelu": _same("nn.gelu", approximate="approximate"),
    "HardSigmoid": _same("hard_sigmoid"),
    "HardSilu": _same("hard_swish"),
    "LeakyRelu": _same("nn.leaky_relu", negative_slope="alpha"),
    "Softmax": _same("nn.softmax", axis="axis"),
    "Mean": _same("reduce_mean", axis="axis", keepdims="keepdims"),
    "Max": _same("reduce_max", axis="axis", keepdims="keepdims"),
    "Sum": _same("math.reduce_sum", axis="axis", keepdims="keepdims"),
    "Reshape": _same("reshape", newshape="shape"),
    "Transpose": _same("transpose", axes="perm"),
    "Squeeze": _same("squeeze", axis="axis"),
    "ExpandDims": _same("expand_dims", axis="axis"),
    "Concatenate": _same("concat", axis="axis"),
    "Stack": _same("stack", axis="axis"),
    "Flip": _same("reverse", axis="axis"),
    "GetItem": _same("getitem"),
    "Matmul": _same("linalg.matmul"),
    "Clip": _same("clip", x_min="clip_value_min", x_max="clip_value_max"),
    "Split": _same("split", indices_or_sections="num_or_size_splits", axis="axis"),
    "Cast": _same("cast", dtype="dtype"),
    "Pad": _same("pad", pad_width="paddings"),
    "Einsum": _same("einsum", subscripts="equation"),
}
"""Classes of keras.ops: TensorFlow's function, and its arguments by the class's attributes."""
