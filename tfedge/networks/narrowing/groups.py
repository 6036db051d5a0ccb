"""Groups: channels that can be taken out one by one, with all that must go with each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfedge.networks.graph import Graph
from tfedge.networks.narrowing.following import MAKES, Place, Trace
from tfedge.networks.narrowing.rules import follow


@dataclass(frozen=True, eq=False)
class Slice:
    """Where the channels of a group lie in one weight, or what counts them in a layer's config.

    Attributes:
      layer: By name.
      of: The weight, in the order of `graph.Layer.weights`, or a key of the config.
      axis: Counted from the end.
      role: "makes", "reads", "passes" or "says"; see `following`.
      channels: The group's channel at each index of the axis, int [size]; -1 where it is another
        group's, or one that stays.
    """

    layer: str
    of: int | str
    axis: int
    role: str
    channels: np.ndarray

    @property
    def per_channel(self) -> int:
        """Indices that one channel has here: more than one behind a Flatten, for instance."""
        return int(np.count_nonzero(self.channels == 0))


@dataclass(frozen=True, eq=False)
class Group:
    """Channels of one or more layers, of which any may go, in all of the slices at once.

    Attributes:
      name: Of the layer that makes them; of the first, if several do.
      width: How many there are.
      slices: In each of them every channel has as many indices as the others.
    """

    name: str
    width: int
    slices: tuple[Slice, ...]

    def __str__(self) -> str:
        lines = [
            f"  {s.role:6} {s.layer} {s.of} axis {s.axis}: {s.per_channel} a channel"
            for s in self.slices
        ]
        return "\n".join([f"{self.name}: {self.width} channels", *lines])

    def of(self, *roles: str) -> tuple[Slice, ...]:
        """Return the slices in which something of this kind is done."""
        return tuple(part for part in self.slices if part.role in roles)

    @property
    def makers(self) -> tuple[str, ...]:
        """Names of the layers that make the channels."""
        return tuple(dict.fromkeys(part.layer for part in self.of(MAKES)))

    @property
    def made_at_once(self) -> int:
        """Channels of a layer that one of the group's stands for, at most."""
        return max((part.per_channel for part in self.of(MAKES)), default=1)


@dataclass(frozen=True, eq=False)
class Groups:
    """All channels of a network that can be taken out, and the layers that keep some of theirs.

    Attributes:
      graph: Of the network; it is not changed.
      all: In the order in which the network makes them.
      whole: Names of layers that make channels which stay, and why they do.
    """

    graph: Graph
    all: tuple[Group, ...]
    whole: dict[str, str]


def groups(graph: Graph, protect: Iterable[str] = ()) -> Groups:
    """Find the groups of a network.

    Two channels are of one group if they lie in the same weights, equally often.

    Args:
      protect: Shell-like patterns of names of layers whose channels stay.

    Raises:
      UserError: A pattern of `protect` matches no layer.
    """
    trace = follow(graph, protect)
    units = _components(trace.count, trace.ties)
    reasons = {unit: why for ids, why in reversed(trace.held) for unit in np.unique(units[ids])}
    where = {place: units[ids] for place, (ids, _) in trace.places.items()}
    found = _apart(list(_found(trace, where, set(reasons))))
    whole: dict[str, str] = {}
    for place, (_, role) in trace.places.items():
        held = [reasons[unit] for unit in where[place].tolist() if unit in reasons]
        if role == MAKES and held:
            whole.setdefault(place.layer, held[0])
    return Groups(graph, found, whole)


def _found(trace: Trace, where: dict[Place, np.ndarray], held: set[int]) -> Iterable[Group]:
    """Yield groups in the order of the first channel of each."""
    places = list(where)
    made = [where[place] for place in places if trace.places[place][1] == MAKES]
    units = np.unique(np.concatenate([*made, np.zeros(0, int)]))
    units = np.array([unit for unit in units.tolist() if unit not in held], int)
    if not len(units):
        return
    number = np.full(trace.count, -1)
    number[units] = np.arange(len(units))
    counts = np.zeros((len(units), len(places)), np.int32)
    for column, place in enumerate(places):
        here = number[where[place]]
        counts[:, column] = np.bincount(here[here >= 0], minlength=len(units))
    _, first, kind = np.unique(counts, axis=0, return_index=True, return_inverse=True)
    for group in np.argsort(first):
        members = units[kind.ravel() == group]
        touched = [place for place, n in zip(places, counts[first[group]], strict=True) if n]
        yield _group(trace, where, members, touched)


def _group(
    trace: Trace, where: dict[Place, np.ndarray], members: np.ndarray, touched: Sequence[Place]
) -> Group:
    number = np.full(trace.count, -1)
    number[members] = np.arange(len(members))
    slices = tuple(
        Slice(place.layer, place.of, place.axis, trace.places[place][1], number[where[place]])
        for place in touched
    )
    name = next(part.layer for part in slices if part.role == MAKES)
    return Group(name, len(members), slices)


def _apart(found: Sequence[Group]) -> tuple[Group, ...]:
    """Number the groups that have the same first maker, which share it."""
    names = [group.name for group in found]
    return tuple(
        replace(group, name=f"{group.name}:{names[:place].count(group.name)}")
        if names.count(group.name) > 1
        else group
        for place, group in enumerate(found)
    )


def _components(count: int, ties: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return for each number the smallest that it is tied to, also by way of others."""
    one = np.concatenate([pair[0] for pair in ties] or [np.zeros(0, int)])
    other = np.concatenate([pair[1] for pair in ties] or [np.zeros(0, int)])
    root = np.arange(count)
    while not np.array_equal(root[one], root[other]):
        low = np.minimum(root[one], root[other])
        np.minimum.at(root, root[one], low)
        np.minimum.at(root, root[other], low)
        while not np.array_equal(root, root[root]):
            root = root[root]
    return root
