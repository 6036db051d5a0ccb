"""Early exits: small classifiers in the middle of a network, so that easy inputs need not go on.

BranchyNet (Teerapittayanon et al. 2016, https://arxiv.org/abs/1709.01686).  A network with exits
is functional, of one input and several outputs, each logits [batch, classes], from the earliest
exit to the last, which is the answer of the network itself.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfedge.errors import UserError, did_you_mean
from tfedge.networks.backend import keras
from tfedge.networks.blocks import MOMENTUM
from tfedge.networks.graph import Call, Graph, Tensor, build
from tfedge.networks.keras2 import Keras2
from tfedge.networks.layers import HardSigmoid, HardSwish
from tfedge.networks.narrowing.costs import macs, uncounted
from tfedge.networks.reading import read

HEADS = ("pool", "separable")
"""What an exit may be: the mean of each channel and a dense layer, or before these a
depthwise-separable block."""

_K = keras.layers
_VECTOR, _SERIES, _PICTURES = 2, 3, 4
# What int8 computes in one go with the layer before it: between the two nothing is handed on.
_BELONGS_BEFORE = (
    *(_K.BatchNormalization, _K.ReLU, _K.Activation, _K.LeakyReLU, _K.PReLU, _K.ELU),
    *(_K.Dropout, HardSwish, HardSigmoid),
)
_BLOCKS = {
    _SERIES: (_K.AveragePooling1D, _K.DepthwiseConv1D, _K.Conv1D),
    _PICTURES: (_K.AveragePooling2D, _K.DepthwiseConv2D, _K.Conv2D),
}
_LATEST = 0.95
"""Of the multiply-accumulates, the share behind which an exit saves less than its head costs."""
_LARGEST = 16
"""Rows and columns that a separable head looks at, at most; larger maps are averaged first."""
_WIDER = 4
"""Times the channels that it reads which such a head makes at most; else as many as the network's
own classifier reads."""


@dataclass(frozen=True)
class Seam:
    """A place where all that a network has found out so far is in one tensor.

    Attributes:
      layer: The name of the layer that makes it.
      share: Of the network's multiply-accumulates that lie before it, 0 to 1; 0 where none of the
        network's are counted.
      size: Numbers in the tensor, of one input.
    """

    layer: str
    share: float
    size: int


def with_exits(
    network: keras.Model, points: Sequence[str], head: str, *, seed: int = 0
) -> keras.Model:
    """Return a network that answers with `network`, and before that at each of some points.

    Args:
      network: Functional, in float, with one output of logits [batch, classes]; it is not changed.
        What is nested in it comes flat.
      points: Names of layers, from early to late, behind each of which a head comes.
      head: One of `HEADS`.
      seed: Of the heads' first weights.

    Returns:
      A network whose weights are the old ones, with those of the heads' layers, whose names begin
      with ``exit_0_``, ``exit_1_``, and so on.

    Raises:
      UserError: A point is none; the network has several outputs, or a layer that is named as
        those of a head are.
    """
    graph = _graph(network)
    _check_points(graph, points)
    twin = build(graph)
    if taken := [layer.name for layer in twin.layers if of_a_head(layer.name)]:
        problem = f"has a layer {taken[0]!r}, which is a name of a head's"
        raise UserError(f"network {network.name!r}", problem, "give it another, such as early_conv")
    classes = int(twin.output_shape[-1])
    width = _answers_from(graph)
    answers = []
    for number, point in enumerate(points):
        features = twin.get_layer(point).output
        names = _Names(f"exit_{number}_", seed + number * 16)
        answers.append(_head(features, head, classes, width, names))
    return keras.Model(twin.inputs, [*answers, twin.outputs[0]], name=twin.name)


def of_a_head(layer: str) -> bool:
    """Whether a layer of this name belongs to the head of an early exit."""
    return re.match(r"exit_\d+_", layer) is not None


def even_points(network: keras.Model, count: int) -> tuple[str, ...]:
    """Choose layers to put `count` exits behind, evenly spaced by multiply-accumulates.

    None is behind all but 5 % of them, if there are enough others.

    Raises:
      UserError: There are not so many seams, or not all that the network multiplies is counted.
    """
    graph = _graph(network)
    where = f"network {network.name!r}"
    if missing := [str(call.layer) for call in graph.calls if uncounted(call)]:
        problem = f"what it multiplies is not counted of layer {', '.join(missing)}"
        fix = 'name the exits\' places yourself: points = ["layer", ...]'
        raise UserError(where, problem, fix)
    found = _spread_out(graph)
    if len(found) < count:
        names = ", ".join(seam.layer for seam in found) or "none"
        problem = f"has {len(found)} places for early exits ({names}), not {count}"
        raise UserError(where, problem, "ask for fewer, with count")
    early = [seam for seam in found if seam.share <= _LATEST]
    return tuple(seam.layer for seam in _nearest(early if len(early) >= count else found, count))


def _nearest(found: Sequence[Seam], count: int) -> Sequence[Seam]:
    """Choose the seams that are in all nearest to equal shares, by the squares of what is off."""
    best: list[tuple[float, list[Seam]]] = [(0.0, [])] * (len(found) + 1)
    for number in range(1, count + 1):
        # best[k]: the first `number` of the exits among the first k seams
        before, best = best, [(float("inf"), [])]
        for place, seam in enumerate(found):
            off, chosen = before[place]
            off += (seam.share - number / (count + 1)) ** 2
            best.append(min(best[-1], (off, [*chosen, seam]), key=lambda each: each[0]))
    return best[-1][1]


def last_exit(network: keras.Model) -> keras.Model:
    """Return the network of the last output alone, with the same layers in it."""
    return keras.Model(network.inputs, network.outputs[-1], name=network.name)


def macs_to(network: keras.Model) -> tuple[float, ...]:
    """Count the multiply-accumulates it takes to answer at each exit, with all heads on the way.

    Empty where not all that the network multiplies is counted.
    """
    graph = read(network, Keras2())
    if any(uncounted(call) for call in graph.calls):
        return ()
    needed: set[Tensor] = set()
    counts = []
    for output in graph.outputs:
        needed.add(output)
        for call in reversed(graph.calls):
            if needed.intersection(call.outputs):
                needed.update(call.inputs)
        counts.append(sum(macs(call) for call in graph.calls if needed.intersection(call.outputs)))
    return tuple(counts)


def exit_names(network: keras.Model) -> tuple[str, ...]:
    """Name a network's exits, ``exit_0`` and so on; a network of one answer has none."""
    count = len(network.outputs)
    return tuple(f"exit_{number}" for number in range(count)) if count > 1 else ()


def seams(network: keras.Model) -> tuple[Seam, ...]:
    """List the places where exits may be, from early to late."""
    graph = _graph(network)
    return tuple(_seam(graph, call) for call in _settled(graph))


def _graph(network: keras.Model) -> Graph:
    graph = read(network, Keras2())
    if len(graph.outputs) > 1:
        problem = f"answers at {len(graph.outputs)} exits already"
        fix = "take the stage before the one that gave it exits"
        raise UserError(f"network {network.name!r}", problem, fix)
    return graph


def _cuts(graph: Graph) -> list[Call]:
    """List the calls behind each of which one tensor alone goes on.

    In any order of calls in which each reads only what is made, all that comes before such a
    tensor has been called when it is made, and all that is left needs no other.
    """
    readers = {
        tensor: len(graph.readers(tensor)) for call in graph.calls for tensor in call.outputs
    }
    readers |= {tensor: len(graph.readers(tensor)) for tensor in graph.inputs}
    live = set(graph.inputs)
    found = []
    for call in graph.calls:
        live.update(call.outputs)
        for tensor in dict.fromkeys(call.inputs):
            readers[tensor] -= 1
            if not readers[tensor]:
                live.discard(tensor)
        if live == set(call.outputs) and len(live) == 1:
            found.append(call)
    return found


def _settled(graph: Graph) -> list[Call]:
    """List the seams behind which no activation or normalisation comes, without the answer."""
    cuts = (call for call in _cuts(graph) if call.output not in graph.outputs)
    return [
        call
        for call in cuts
        if not graph.shared(call.layer)
        and call.output.rank in (_VECTOR, _SERIES, _PICTURES)
        and _behind(graph, call) is call
    ]


def _behind(graph: Graph, call: Call) -> Call:
    """Return the last of the calls that belong to this one: its normalisation and activation."""
    reader = graph.only_reader(call.output)
    return _behind(graph, reader) if reader and reader.is_a(*_BELONGS_BEFORE) else call


def _seam(graph: Graph, call: Call) -> Seam:
    place = graph.calls.index(call) + 1
    whole = sum(macs(other) for other in graph.calls)
    before = sum(macs(other) for other in graph.calls[:place])
    size = int(np.prod([size or 1 for size in call.output.shape[1:]]))
    return Seam(call.layer.name, before / whole if whole else 0.0, size)


def _spread_out(graph: Graph) -> list[Seam]:
    """List the seams to choose from: of those that nothing is multiplied between, the smallest.

    What comes behind the pictures is left out where there are pictures: so late no exit saves much.
    """
    calls = _settled(graph)
    large = [call for call in calls if call.output.rank > _VECTOR]
    best: dict[float, Seam] = {}
    for seam in (_seam(graph, call) for call in large or calls):
        if 0 < seam.share < 1 and (seam.share not in best or seam.size < best[seam.share].size):
            best[seam.share] = seam
    return list(best.values())


def _check_points(graph: Graph, points: Sequence[str]) -> None:
    where = "points"
    order = [call.layer.name for call in graph.calls]
    fits = [call.layer.name for call in _settled(graph)]
    for point in points:
        if point not in order:
            fix = did_you_mean(point, fits)
            raise UserError(where, f"network {graph.name!r} has no layer {point!r}", fix)
        if point not in fits:
            call = graph.calls[order.index(point)]
            raise UserError(
                where,
                f"{point!r} is no place for an exit: {_why_not(graph, call)}",
                _instead(graph, call, fits),
            )
    for one, other in itertools.pairwise(points):
        if order.index(one) >= order.index(other):
            problem = f"{other!r} does not come behind {one!r}"
            raise UserError(where, problem, "name them from early to late, each once")


def _why_not(graph: Graph, call: Call) -> str:
    if any(tensor in graph.outputs for tensor in call.outputs):
        return "it is the network's answer"
    if graph.shared(call.layer):
        return "the layer is called more than once"
    if call in _cuts(graph):
        last = _behind(graph, call)
        if last is call:
            return f"it makes {call.output.shape[1:]}, and a head takes vectors, series or pictures"
        return f"int8 computes it in one go with {last.layer.name!r}"
    skipped = [other for other in _passing(graph, call) if other is not None]
    by = ", ".join(repr(other.layer.name) for other in skipped) or "the input"
    return f"what {by} made is needed behind it, too"


def _passing(graph: Graph, call: Call) -> list[Call | None]:
    """Return what makes the tensors that are still needed behind a call, besides its own."""
    place = graph.calls.index(call)
    later = {tensor for other in graph.calls[place + 1 :] for tensor in other.inputs}
    made = {tensor for other in graph.calls[:place] for tensor in other.outputs}
    passing = [tensor for tensor in (*graph.inputs, *made) if tensor in later]
    return [graph.producer(tensor) for tensor in passing]


def _instead(graph: Graph, call: Call, fits: Sequence[str]) -> str:
    """Name the nearest places before and behind a call."""
    order = [other.layer.name for other in graph.calls]
    place = order.index(call.layer.name)
    before = [name for name in fits if order.index(name) < place][-1:]
    behind = [name for name in fits if order.index(name) > place][:1]
    near = " or ".join(repr(name) for name in (*before, *behind))
    return f"the nearest are {near}" if near else "no layer of this network is a place for one"


def _answers_from(graph: Graph) -> int:
    """Return how many numbers the network's own classifier answers from."""
    last = next(call for call in reversed(graph.calls) if graph.outputs[0] in call.outputs)
    tensor: Tensor = last.inputs[0]
    return int(tensor.shape[-1] or 1)


@dataclass
class _Names:
    """Names an exit's layers, and seeds what they start from."""

    prefix: str
    seed: int

    def __call__(self, name: str) -> str:
        return self.prefix + name

    def kernel(self) -> keras.initializers.Initializer:
        self.seed += 1
        return keras.initializers.GlorotUniform(seed=self.seed)


def _head(x: tf.Tensor, head: str, classes: int, width: int, names: _Names) -> tf.Tensor:
    """Answer from features, float [batch, ..., channels], with logits, float [batch, classes]."""
    rank = len(x.shape)
    if head == "separable":
        if rank == _VECTOR:
            problem = f"a separable head takes pictures or series, not the {x.shape[1]} numbers of"
            fix = 'write head = "pool", or name earlier points'
            raise UserError("head", f"{problem} {x._keras_history.layer.name!r}", fix)
        x = _separable(x, min(width, _WIDER * int(x.shape[-1])), names)
    if rank != _VECTOR:
        pool = _K.GlobalAveragePooling2D if rank == _PICTURES else _K.GlobalAveragePooling1D
        x = pool(name=names("pool"))(x)
    return _K.Dense(classes, kernel_initializer=names.kernel(), name=names("logits"))(x)


def _separable(x: tf.Tensor, width: int, names: _Names) -> tf.Tensor:
    """Convolve each channel, halving the picture, then each pixel to `width` channels.

    Howard 2017, section 3.1 (https://arxiv.org/abs/1704.04861).
    """
    shrink, depthwise, pointwise = _BLOCKS[len(x.shape)]
    times = min(int(size or 1) for size in x.shape[1:-1]) // _LARGEST
    if times > 1:
        x = shrink(times, name=names("shrink"))(x)
    options = {"use_bias": False, "depthwise_initializer": names.kernel()}
    x = depthwise(3, 2, "same", name=names("depthwise"), **options)(x)
    x = _K.BatchNormalization(momentum=MOMENTUM, name=names("depthwise_bn"))(x)
    x = _K.ReLU(name=names("depthwise_relu"))(x)
    options = {"use_bias": False, "kernel_initializer": names.kernel()}
    x = pointwise(width, 1, name=names("pointwise"), **options)(x)
    x = _K.BatchNormalization(momentum=MOMENTUM, name=names("pointwise_bn"))(x)
    return _K.ReLU(name=names("pointwise_relu"))(x)
