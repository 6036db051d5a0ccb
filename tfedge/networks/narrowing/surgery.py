"""A network without some of its channels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tfedge.networks.graph import Call, Graph, Layer, Tensor, mapped
from tfedge.networks.narrowing.following import READS
from tfedge.networks.narrowing.groups import Group, Groups, Slice

Kept = Mapping[str, np.ndarray]
"""The channels of a group that stay, in rising order, by the group's name; all where not named."""


def without(groups: Groups, kept: Kept) -> Graph:
    """Return the graph of a network that has only some of its channels.

    Layers keep their names, and the numbers in the weights that stay are the same.  The network
    that the groups are of is not changed.
    """
    layers = {call.layer.name: _copy(call.layer) for call in groups.graph.calls}
    for (name, of, axis), stays in _masks(groups.all, kept).items():
        layer = layers[name]
        if isinstance(of, int):
            layer.weights[of] = np.compress(stays, layer.weights[of], axis)
        else:
            gone = int(np.count_nonzero(~stays))
            layer.config[of] = _less(layer.config[of], axis, gone, groups.graph, name)
    return _rebuilt(groups.graph, layers)


def masked(groups: Groups, kept: Kept) -> Graph:
    """Return a graph of the old widths that reads nothing of the channels that `without` drops.

    It answers as the smaller network does, as long as no layer normalises over channels.
    """
    layers = {call.layer.name: _copy(call.layer) for call in groups.graph.calls}
    for group in groups.all:
        for part in group.of(READS):
            weight = layers[part.layer].weights[int(part.of)]
            np.moveaxis(weight, part.axis, 0)[~_stays(group, part, kept)] = 0
    return _rebuilt(groups.graph, layers)


def _masks(found: Sequence[Group], kept: Kept) -> dict[tuple[str, int | str, int], np.ndarray]:
    """Return which indices stay along each axis that loses some."""
    masks: dict[tuple[str, int | str, int], np.ndarray] = {}
    for group in found:
        if group.name in kept:
            for part in group.slices:
                place = part.layer, part.of, part.axis
                stays = _stays(group, part, kept)
                masks[place] = masks.get(place, stays) & stays
    return masks


def _stays(group: Group, part: Slice, kept: Kept) -> np.ndarray:
    stay = kept.get(group.name, np.arange(group.width))
    return np.isin(part.channels, stay) | (part.channels < 0)


def _less(entry: object, axis: int, gone: int, graph: Graph, name: str) -> object:
    """Return a config's entry with so many channels fewer."""
    if isinstance(entry, int):
        return entry - gone
    # A Reshape may leave a size to be found out; what it made is known.
    made = next(call.output for call in graph.calls if call.layer.name == name)
    sizes = list(made.shape[1:])
    sizes[axis] = int(sizes[axis] or 0) - gone
    return tuple(sizes)


def _copy(layer: Layer) -> Layer:
    config = {key: item for key, item in layer.config.items() if key != "batch_input_shape"}
    weights = [weight.copy() for weight in layer.weights]
    return replace(layer, config=copy.deepcopy(config), weights=weights)


def _rebuilt(graph: Graph, layers: Mapping[str, Layer]) -> Graph:
    """Return the same calls of other layers."""
    tensors: dict[Tensor, Tensor] = {}

    def twin(tensor: Tensor) -> Tensor:
        return tensors.setdefault(tensor, Tensor(tensor.shape))

    inputs = [twin(tensor) for tensor in graph.inputs]
    calls = [
        Call(
            layers[call.layer.name],
            mapped(call.arguments, twin),
            [twin(tensor) for tensor in call.outputs],
        )
        for call in graph.calls
    ]
    return Graph(graph.name, inputs, [twin(tensor) for tensor in graph.outputs], calls)
