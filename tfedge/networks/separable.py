"""Separable convolutions taken apart, for tools that know only the two halves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tfedge.networks.backend import keras

_OF_DEPTHWISE = ("strides", "padding", "data_format", "dilation_rate", "depth_multiplier")
_OF_POINTWISE = ("filters", "use_bias", "activation", "data_format")


def split_separable(model: keras.Model, keep: Collection[str] = ()) -> keras.Model:
    """Return a twin with a depthwise and a 1x1 convolution for each SeparableConv2D.

    The 1x1 convolution has the layer's name, the depthwise one that of `depthwise_half`.

    Args:
      keep: Names of layers to leave as they are.
    """
    flat = keras.Model(model.inputs, model.outputs, name=model.name)
    config = flat.get_config()
    config["layers"] = [part for entry in config["layers"] for part in _parts(entry, keep)]
    kinds = {keras.saving.get_registered_name(type(layer)): type(layer) for layer in model.layers}
    with keras.utils.custom_object_scope(kinds):
        twin = keras.Model.from_config(config)
    for layer in model.layers:
        weights = layer.get_weights()
        if _is_split(type(layer).__name__, layer.name, keep):
            twin.get_layer(depthwise_half(layer.name)).set_weights(weights[:1])
            weights = weights[1:]
        twin.get_layer(layer.name).set_weights(weights)
    return twin


def depthwise_half(name: str) -> str:
    """Return the name of the depthwise convolution that is split off the layer `name`."""
    return f"{name}_depthwise"


def _is_split(kind: str, name: str, keep: Collection[str]) -> bool:
    return kind == "SeparableConv2D" and name not in keep


def _parts(entry: dict[str, Any], keep: Collection[str]) -> list[dict[str, Any]]:
    """Return a layer's entry in a functional model's config, or those of its halves."""
    name, whole = entry["name"], entry["config"]
    if not _is_split(entry["class_name"], name, keep):
        return [entry]
    half = depthwise_half(name)
    depthwise = {key: whole[key] for key in _OF_DEPTHWISE} | {"use_bias": False}
    pointwise = {key: whole[key] for key in _OF_POINTWISE} | {"kernel_size": (1, 1)}
    for config, own in ((depthwise, half), (pointwise, name)):
        config |= {"name": own, "dtype": whole["dtype"], "trainable": whole["trainable"]}
    depthwise["kernel_size"] = whole["kernel_size"]
    calls = [[[half, number, 0, {}]] for number in range(len(entry["inbound_nodes"]))]
    return [
        entry | {"class_name": "DepthwiseConv2D", "config": depthwise, "name": half},
        entry | {"class_name": "Conv2D", "config": pointwise, "inbound_nodes": calls},
    ]
