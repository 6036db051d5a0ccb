"""Where a quantised network differs from its float twin: which layer is at fault, and how much.

Both files come from one network by one converter, so that they hold the same operators; each is
run with all its tensors kept.  The figures are signal-to-noise ratios in decibels,
10 log10(sum f^2 / sum (f - q)^2): of what a layer answers, with the noise of all layers before it
(`arrived_db`), of its weights (`weights_db`), and the one that ranks the layers, of what the layer
alone damages (`own_db`).

That one is not measured on the layer's own tensor.  Where channels of very different sizes share a
range, the small ones drown; a sum over all channels does not show it, and whether it matters is up
to the next layer, which may have large weights for them (Nagel et al. 2019, section 3.1,
https://arxiv.org/abs/1906.04721).  So the layer's rounding, put into the float network, is followed
to where channels are next mixed and measured there: a channel counts as much as the network makes
of it.  The same layer answers for what the inequality of its channels does to the weights behind
it, which make up for it and so share a scale badly: their error there, less the error that they
would make if all channels that reach them were equally large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfedge.errors import UserError
from tfedge.tflite import graph, names
from tfedge.tflite.attribution import LIMIT_DB, Attribution, Damage, decibels
from tfedge.tflite.container import decoding, root, split
from tfedge.tflite.flow import INPUT, Flow, paired
from tfedge.tflite.names import Layers
from tfedge.tflite.running import Run, unpacked
from tfedge.tflite.sameness import rescaled

LOST_DB = 6.0
"""Below this the steps of a channel are about as large as its values."""


_WITH_KERNEL = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class LayerDifference:
    """How one layer differs between two files; ratios in decibels, at most `LIMIT_DB`.

    Attributes:
      layer: The Keras layer's name.
      kind: Its class, or TFLite's operator where no class is known.
      fused: All layers that became one operator with it, itself first.
      own_db: Signal to what this layer alone damages, see the module's docstring.
      arrived_db: Signal to noise of what the layer answers.
      weights_db: Signal to noise of its weights; None where it has none.
      lost: How many of its `channels` their shared range is too coarse for, see `LOST_DB`.
      order: Its place in the network, from 0.
      step: Its operator in the float file that damages most, or `flow.INPUT`.
    """

    layer: str
    kind: str
    fused: tuple[str, ...]
    own_db: float
    arrived_db: float
    weights_db: float | None
    lost: int
    channels: int
    order: int
    step: int


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
      layers: The worst first, by `own_db`.
      left_out: Operators of the float file without a partner in the other.
      count: Inputs that were run.
    """

    layers: tuple[LayerDifference, ...]
    left_out: int
    count: int


def compare(
    float32: bytes,
    quantised: bytes,
    inputs: np.ndarray,
    layers: Layers = (),
    tell: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Measure what each layer loses from `float32` to `quantised`.

    An input costs a few runs of the float network on plain kernels, more where many additions or
    concatenations follow one another; 32 inputs tell the layers apart.

    Args:
      float32: A .tflite in float, such as `conversion.to_float` makes.
      quantised: The same network in int8, int16 with int8 weights, or partly so.
      inputs: Float32 [count, ...], normalised.
      layers: The network's, see `names.of_network`; guessed from the file where there are none.
      tell: Called with how many inputs are done.

    Raises:
      UserError: The two are not of one network, or the first is not in float.
    """
    ours, theirs = flow_of(float32, "the float file"), flow_of(quantised, "the quantised file")
    _check_float(ours)
    pairs = paired(ours, theirs)
    if 2 * len(pairs) < len(ours.steps):
        problem = f"only {len(pairs)} of {len(ours.steps)} operators are in both files"
        raise UserError("compare", problem, "give two files that were made of one network")
    bare = split(float32)[0]
    runs = Run(bare), Run(split(quantised)[0])
    _check_weights((ours, theirs), pairs, runs, layers)
    work = Attribution(ours, theirs, pairs, runs, unpacked(bare))
    for x in inputs:
        work.see(x)
    for number, x in enumerate(inputs, 1):
        work.weigh(x)
        tell(number)
    found = _by_layer(work, ours, theirs, layers or names.guessed(ours.subgraph))
    ranked = sorted(found, key=lambda layer: (layer.own_db, layer.order))
    return Comparison(tuple(ranked), len(ours.steps) - len(pairs), len(inputs))


def flow_of(file: bytes, where: object) -> Flow:
    """Return the way through a file's graph, with or without a card behind it."""
    flatbuffer, _ = split(file)
    with decoding(where):
        read = graph.read(root(flatbuffer, where))
    if len(read.subgraphs[0].inputs) != 1 or len(read.subgraphs[0].outputs) != 1:
        raise UserError(where, "has several inputs or outputs", "give a network with one of each")
    return Flow(read.subgraphs[0])


def _check_float(flow: Flow) -> None:
    for step in flow.steps:
        for tensor in flow.operator(step).inputs:
            if tensor >= 0 and flow.subgraph.tensors[tensor].dtype in ("int8", "int16"):
                name = flow.subgraph.tensors[tensor].name
                fix = "give the network before it was quantised, as .tflite or model.h5"
                raise UserError("the float file", f"is quantised in {name!r}", fix)


def _check_weights(
    flows: tuple[Flow, Flow], pairs: dict[int, int], runs: tuple[Run, Run], layers: Layers
) -> None:
    """Refuse a network that was equalised on its way to the quantised file."""
    owners = names.of_operators(flows[0].subgraph, layers or names.guessed(flows[0].subgraph))
    found: list[str] = []
    for step, partner in pairs.items():
        if flows[0].operator(step).name not in _WITH_KERNEL:
            continue
        places = (
            flow.operator(i).inputs[1] for flow, i in zip(flows, (step, partner), strict=True)
        )
        kernels = [
            run.value(i)
            for flow, run, i in zip(flows, runs, places, strict=True)
            if flow.subgraph.tensors[i].constant
        ]
        whole = len(kernels) == len(flows) and kernels[0].shape == kernels[1].shape
        if whole and rescaled(*kernels):
            found += owners[step][:1]
    if found:
        problem = f"has the channels of other scales than the quantised one in {', '.join(found)}"
        problem += ": the network was equalised before it became int8"
        fix = "give the model.h5 of the convert stage's folder, which keeps what it converted"
        raise UserError("the float file", problem, fix)


def _by_layer(work: Attribution, ours: Flow, theirs: Flow, layers: Layers) -> list[LayerDifference]:
    """Join the figures of all operators of a layer: of each kind the worst."""
    strain = _strain(work, ours)
    fused = _fused(work, ours, theirs, layers)
    found: dict[str, list[tuple[int, Damage]]] = {}
    together: dict[str, tuple[str, ...]] = {}
    for step, damage in work.found.items():
        name = fused[step][0]
        found.setdefault(name, []).append((step, damage))
        together[name] = tuple(dict.fromkeys((*together.get(name, ()), *fused[step])))
    kinds = dict(layers)
    return [
        LayerDifference(
            layer=name,
            kind=kinds.get(name) or _operator(parts[0][0], ours),
            fused=together[name],
            own_db=min(decibels(1.0, _own(damage) + strain.get(s, 0.0)) for s, damage in parts),
            arrived_db=min(damage.arrived.db for _, damage in parts),
            weights_db=min((d.weights.db for _, d in parts if d.weights), default=None),
            lost=max(_lost(damage) for _, damage in parts),
            channels=max(np.size(damage.channels.signal) for _, damage in parts),
            order=place,
            step=min(parts, key=lambda part: decibels(1.0, _own(part[1])))[0],
        )
        for place, (name, parts) in enumerate(found.items())
    ]


def _fused(
    work: Attribution, ours: Flow, theirs: Flow, layers: Layers
) -> dict[int, tuple[str, ...]]:
    """Name the layers of each step, by what either file calls it; the first has the weights."""
    order = {name: place for place, (name, _) in enumerate(layers)}
    mine, yours = (names.of_operators(flow.subgraph, layers) for flow in (ours, theirs))
    entry = next((name for name, kind in layers if kind == "InputLayer"), "input")
    found: dict[int, tuple[str, ...]] = {INPUT: (entry,)}
    for step, partner in work.pairs.items():
        if step != INPUT:
            head, *_ = (*mine[step], *yours[partner], "")
            both = {*mine[step], *yours[partner]}
            made = ours.subgraph.tensors[ours.values(step)[0]].name
            ranked = sorted(both, key=lambda name: (name != head, order[name]))
            found[step] = tuple(ranked) or (made,)
    return found


def _strain(work: Attribution, flow: Flow) -> dict[int, float]:
    """Return, for the steps whose channels are unequal, what that does to the weights behind."""
    found: dict[int, float] = {}
    for step, damage in work.found.items():
        if step != INPUT and damage.strain:
            operator = flow.operator(step)
            origin = flow.origin(operator.inputs[flow.moving(step)[0]])
            found[origin] = max(found.get(origin, 0.0), damage.strain)
    return found


def _own(damage: Damage) -> float:
    return max((tally.share for tally in damage.rounding.values()), default=0.0)


def _lost(damage: Damage) -> int:
    signal, noise = np.atleast_1d(damage.channels.signal), np.atleast_1d(damage.channels.noise)
    return int(((signal > 0) & (noise * 10 ** (LOST_DB / 10) > signal)).sum())


def _operator(step: int, flow: Flow) -> str:
    return "input" if step == INPUT else flow.operator(step).name


__all__ = ["LIMIT_DB", "Comparison", "LayerDifference", "compare", "decibels", "flow_of"]
