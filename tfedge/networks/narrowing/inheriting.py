"""A student's first weights: its teacher's, of as many channels as the student has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import Call, Graph, Layer, Tensor
from tfedge.networks.keras2 import Keras2
from tfedge.networks.narrowing.amounts import fewer
from tfedge.networks.narrowing.following import MAKES, SAYS
from tfedge.networks.narrowing.groups import Group, Groups, groups
from tfedge.networks.narrowing.scores import l1
from tfedge.networks.narrowing.surgery import without
from tfedge.networks.reading import read

WHERE = "start"
FIX = 'build the student with the teacher\'s function, only narrower, or write start = "nothing"'

_K = keras.layers
_FOR_TRAINING = (
    *(_K.Dropout, _K.SpatialDropout1D, _K.SpatialDropout2D, _K.SpatialDropout3D),
    *(_K.GaussianNoise, _K.GaussianDropout, _K.AlphaDropout, _K.ActivityRegularization),
)
"""Layers that answer with what they read, so that one of the two networks may lack them."""

_CHANGES_NO_ANSWER = ("trainable", "dtype", "batch_input_shape", "momentum")
_HOW_IT_LEARNS = ("_initializer", "_regularizer", "_constraint")


def inherit(student: keras.Model, teacher: keras.Model) -> Mapping[str, tuple[int, int]]:
    """Give a student the weights of those channels of its teacher that are worth most.

    Both must be the same network but for how many channels their layers have.  Of channels that go
    together the student gets those of the largest `scores.l1`, in the teacher's order.

    Args:
      student: Functional and flat; its weights are set.
      teacher: Functional; it is not changed.

    Returns:
      How many channels the teacher has and the student got, where those are fewer, by the names of
      the teacher's layers that make them.

    Raises:
      UserError: The networks differ in more than channels, or the student has more of them; the
        message names the layer.
    """
    theirs, ours = _as_answering(teacher), _as_answering(student)
    found = groups(theirs)
    pairs = dict(_pairs(theirs, ours))
    for layer, own in pairs.items():
        _refuse_unlike(layer, own, found)
    names = {layer.name: own for layer, own in pairs.items()}
    scores = l1(found, ())
    kept = {}
    for group in found.all:
        width = _width(group, names)
        best = np.argsort(-scores[group.name], kind="stable")[:width]
        kept[group.name] = np.sort(best)
    narrowed = {call.layer.name: call.layer for call in without(found, kept).calls}
    for layer, own in pairs.items():
        _set(student, own, narrowed[layer.name])
    return fewer(found, kept)


def _as_answering(network: keras.Model) -> Graph:
    """Return a network's graph without the layers that only training has a use for."""
    graph = read(network, Keras2())
    for call in [call for call in graph.calls if call.is_a(*_FOR_TRAINING)]:
        graph.bypass(call)
    return graph


def _pairs(theirs: Graph, ours: Graph) -> Iterator[tuple[Layer, Layer]]:
    """Yield each layer of a teacher with the student's that is in its place, from the end on."""
    counts = f"the student has {len(ours.calls)} layers and the teacher {len(theirs.calls)}"
    if len(ours.outputs) != len(theirs.outputs):
        problem = f"the student has {len(ours.outputs)} exits, the teacher {len(theirs.outputs)}"
        raise UserError(WHERE, problem, FIX)
    todo = list(zip(theirs.outputs, ours.outputs, strict=True))
    met: set[tuple[Tensor, Tensor]] = set()
    there: dict[Layer, Layer] = {}
    back: dict[Layer, Layer] = {}
    while todo:
        pair = todo.pop()
        if pair in met:
            continue
        met.add(pair)
        made, own = theirs.producer(pair[0]), ours.producer(pair[1])
        if made is None and own is None:
            continue
        if made is None or own is None or not _alike(made, own):
            problem = f"{_called(own)} of the student is {_called(made)} in the teacher; {counts}"
            raise UserError(WHERE, problem, FIX)
        known = there.setdefault(made.layer, own.layer), back.setdefault(own.layer, made.layer)
        if known != (own.layer, made.layer):
            problem = f"layer {own.layer} is called more often in one of the networks; {counts}"
            raise UserError(WHERE, problem, FIX)
        todo += zip(made.inputs, own.inputs, strict=True)
    yield from there.items()


def _alike(one: Call, other: Call) -> bool:
    """Whether two calls are of the same kind, with weights and inputs of the same kind."""
    ranks = [[weight.ndim for weight in call.layer.weights] for call in (one, other)]
    kinds = one.layer.kind is other.layer.kind
    return kinds and ranks[0] == ranks[1] and len(one.inputs) == len(other.inputs)


def _called(call: Call | None) -> str:
    return f"layer {call.layer}" if call else "the input"


def _refuse_unlike(theirs: Layer, ours: Layer, found: Groups) -> None:
    """Refuse layers that differ in more than how many channels they have."""
    counts = {
        part.of for group in found.all for part in group.of(SAYS) if part.layer == theirs.name
    }
    for key, value in ours.config.items():
        learns = key in _CHANGES_NO_ANSWER or key.endswith(_HOW_IT_LEARNS)
        other = theirs.config.get(key)
        if key not in counts and not learns and _plain(value) != _plain(other):
            why = found.whole.get(theirs.name, "")
            note = f" ({theirs.name} {why})" if why else ""
            problem = f"{key} of layer {ours} is {value}, and the teacher's {other}{note}"
            raise UserError(WHERE, problem, FIX)


def _plain(value: Any) -> Any:
    """Return a value in which a list equals a tuple: a file tells them no more apart."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _width(group: Group, student: Mapping[str, Layer]) -> int:
    """Return how many channels of a group the student has."""
    for part in group.of(MAKES):
        own = student[part.layer]
        size = own.weights[int(part.of)].shape[part.axis]
        if size > len(part.channels):
            problem = f"layer {own} makes {size} channels, and the teacher's {len(part.channels)}"
            raise UserError(WHERE, problem, "give the student at most as many as the teacher has")
        if size == len(part.channels):
            return group.width
        if (part.channels >= 0).all():
            return int(size // part.per_channel)
    problem = f"which channels of layer {student[group.makers[0]]} go together, cannot be told"
    raise UserError(WHERE, problem, FIX)


def _set(student: keras.Model, ours: Layer, narrowed: Layer) -> None:
    """Set the weights of a student's layer."""
    wanted = [weight.shape for weight in ours.weights]
    given = [weight.shape for weight in narrowed.weights]
    if wanted != given:
        problem = f"layer {ours} has weights of {wanted}, and the teacher's, narrowed, {given}"
        raise UserError(WHERE, problem, FIX)
    flat = {layer.name: layer for layer in student.layers}
    own = flat.get(ours.name)
    if wanted and (own is None or [tuple(weight.shape) for weight in own.weights] != wanted):
        problem = f"layer {ours} is part of another layer or model"
        raise UserError(WHERE, problem, "write the student as one functional model of layers")
    if own is not None and wanted:
        own.set_weights(narrowed.weights)
