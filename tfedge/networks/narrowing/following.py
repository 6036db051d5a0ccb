"""Each channel followed through a network, from the kernel that makes it to all that read it.

Channels get numbers, and layers tie numbers together: an addition ties those it adds, a
concatenation puts them side by side, a kernel ends some and makes others.  What is tied can only
be taken out together (Fang et al. 2023, section 3.2, https://arxiv.org/abs/2301.12900).  A layer
that has no rule here, or whose channels lie elsewhere than its rule can say, holds on to all that
it reads and makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfedge.networks.graph import Call, Graph, Layer, Shape, Tensor

MAKES, READS, PASSES, SAYS = "makes", "reads", "passes", "says"
"""What a layer does with channels along an axis of a weight: a kernel makes them or ends them, a
bias or scale or depthwise kernel has something for each; and an entry of its config counts them."""


@dataclass(frozen=True)
class Place:
    """An axis of a weight, or an entry of a layer's config that counts channels.

    Attributes:
      layer: By name.
      of: The weight, in the order of `Layer.weights`, or the entry's key.
      axis: Counted from the end, -1 the last.
    """

    layer: str
    of: int | str
    axis: int


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor.

    Attributes:
      axis: Along which they lie, counted from the end.
      ids: A number each, int [size of the axis].
    """

    axis: int
    ids: np.ndarray


class Trace:
    """What was found on the way through a network.

    Attributes:
      count: Of all numbers given so far.
      ties: Pairs of arrays; what stands at the same index goes together.
      places: The number at each index of an axis, and what the layer does there.
      held: Numbers that cannot be taken out, and why.
      channels: Of each tensor.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.count = 0
        self.ties: list[tuple[np.ndarray, np.ndarray]] = []
        self.places: dict[Place, tuple[np.ndarray, str]] = {}
        self.held: list[tuple[np.ndarray, str]] = []
        self.channels: dict[Tensor, Channels] = {}

    def new(self, size: int) -> np.ndarray:
        """Return numbers that no channel has yet."""
        self.count += size
        return np.arange(self.count - size, self.count)

    def tie(self, one: np.ndarray, other: np.ndarray) -> None:
        """Let channels of two arrays go together, index by index; either may be broadcast."""
        pair = np.broadcast_arrays(one, other)
        self.ties.append((pair[0].ravel(), pair[1].ravel()))

    def hold(self, ids: np.ndarray, why: str) -> None:
        """Keep channels in."""
        self.held.append((ids, why))

    def place(self, layer: Layer, of: int | str, axis: int, ids: np.ndarray, role: str) -> None:
        """Note what lies along an axis; a layer called again ties it to what lay there before."""
        before = self.places.setdefault(Place(layer.name, of, axis), (ids, role))
        if before[0] is not ids:
            self.tie(before[0], ids)

    def make(self, layer: Layer, weight: int, axis: int) -> np.ndarray:
        """Return the channels that a kernel makes, the same ones each time."""
        place = Place(layer.name, weight, axis)
        if place not in self.places:
            self.places[place] = self.new(layer.weights[weight].shape[axis]), MAKES
        return self.places[place][0]

    def last(self, call: Call) -> np.ndarray | None:
        """Return the channels of a call's only input if they lie along the last axis."""
        found = self.only(call)
        return found.ids if found is not None and found.axis == -1 else None

    def only(self, call: Call) -> Channels | None:
        """Return the channels of a call's only input; None if it has others."""
        return self.channels[call.inputs[0]] if len(call.inputs) == 1 else None

    def unknown(self, call: Call) -> list[Channels]:
        """Hold all that a call reads and makes."""
        for tensor in call.inputs:
            self.hold(self.channels[tensor].ids, f"{call.layer} reads it")
        made = [Channels(-1, self.new(_last(tensor.shape))) for tensor in call.outputs]
        for channels in made:
            self.hold(channels.ids, f"goes with what {call.layer} makes")
        return made


def reshaped(
    trace: Trace, channels: Channels, before: Sequence[int], after: Sequence[int]
) -> Channels:
    """Follow channels from one shape to another of as many numbers, in the same order.

    Where they come to lie along two axes, as in a shuffle's [groups, channels], all but the longest
    of these stay whole: the same channel of each group goes with the others.

    Args:
      before: Without the batch.
      after: Without the batch.
    """
    lying = np.ones(len(before), int)
    lying[channels.axis] = -1
    ids = np.broadcast_to(channels.ids.reshape(lying), before).reshape(after)
    varying = [axis for axis in range(len(after)) if not (ids == ids.take([0], axis)).all()]
    longest = max(varying or [len(after) - 1], key=lambda axis: (after[axis], axis))
    first = ids[tuple(slice(None) if axis == longest else slice(1) for axis in range(len(after)))]
    if len(varying) > 1:
        trace.tie(ids, first)
    return Channels(longest - len(after), first.ravel())


def _last(shape: Shape) -> int:
    return int(shape[-1] or 1) if len(shape) > 1 else 1
