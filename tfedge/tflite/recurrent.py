"""Which LSTM layer an operator is, whose tensors do not tell.

The converter makes one operator of an LSTM's loop and names neither it nor what it adds around it:
the slice that takes the last step, the reversal of one that runs backwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfedge.tflite.graph import Subgraph

Layers = Sequence[tuple[str, str]]
"""A network's Keras layers, each with the name of its class, in the order of the network."""

_OPERATOR = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_OPERATORS_OF = {"LSTM": 1, "Bidirectional": 2}

ENOUGH = 100
"""Calibration inputs from which on the ranges inside an LSTM settle, measured on small networks."""

Owners = Sequence[tuple[str, ...]]


def named(subgraph: Subgraph, layers: Layers, owners: Owners) -> tuple[tuple[str, ...], ...]:
    """Name the operators of LSTM layers, and those around them, that have no layer yet.

    Only where the layers follow one another, each on what the one before it makes: of two side by
    side none knows which operator is which.

    Args:
      owners: For each operator its layers, as far as they are known.
    """
    found = list(owners)
    loops = [i for i, operator in enumerate(subgraph.operators) if operator.name == _OPERATOR]
    loops = [i for i in loops if not found[i]]
    turns = [name for name, kind in layers for _ in range(_OPERATORS_OF.get(kind, 0))]
    if not loops or len(loops) != len(turns):
        return tuple(found)
    before = _before(subgraph)
    for place, loop in enumerate(loops):
        earlier = [other for other, name in zip(loops[:place], turns, strict=False)
                   if name != turns[place]]  # fmt: skip
        if not before[loop].issuperset(earlier):
            return tuple(found)
    for loop, name in zip(loops, turns, strict=True):
        found[loop] = (name,)
    _spread(subgraph, found, set(loops))
    return tuple(found)


def of_one_operator(layers: Layers) -> list[str]:
    """Name the LSTM layers of a network, and those that hold one for each direction."""
    return [name for name, kind in layers if kind in _OPERATORS_OF]


def _spread(subgraph: Subgraph, found: list[tuple[str, ...]], loops: set[int]) -> None:
    """Give what stands around a loop, and has no layer, the loop's."""
    makers = _makers(subgraph)
    for index, operator in enumerate(subgraph.operators):
        read = [makers[i] for i in operator.inputs if i in makers]
        if not found[index] and len(read) == 1 and read[0] in loops:
            found[index] = found[read[0]]
        if index in loops:
            for maker in read:
                found[maker] = found[maker] or found[index]


def _makers(subgraph: Subgraph) -> dict[int, int]:
    return {made: i for i, operator in enumerate(subgraph.operators) for made in operator.outputs}


def _before(subgraph: Subgraph) -> list[set[int]]:
    """Return, for each operator, all those whose results it depends on."""
    makers, before = _makers(subgraph), list[set[int]]()
    for operator in subgraph.operators:
        read = {makers[i] for i in operator.inputs if i in makers}
        before.append(read.union(*(before[i] for i in read)))
    return before
