"""How large a memory TFLite's planner lays out for the tensors of a graph.

The plan is worked out as the runtime does it (arena_planner.cc and simple_memory_arena.cc of
TensorFlow Lite), greedy by size: Pisarchyk and Lee 2020, section 5,
https://arxiv.org/abs/2001.03288.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tfedge.tflite.graph import Operator, Subgraph, Tensor

_BYTES = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
}
_ALIGNMENT = 64
_SCALAR = 4
_UNMODIFIED = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "BITCAST")
_IN_PLACE = {
    **dict.fromkeys((*_UNMODIFIED, "SOFTMAX", "DYNAMIC_UPDATE_SLICE"), 1),
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), 2),
}
"""Operators whose answer may take the place of one of so many of their first operands."""


@dataclass(frozen=True)
class _Block:
    """What is to be placed: a tensor, alive from the operator `first` to `last`; None: for good."""

    tensor: int
    size: int
    first: int
    last: int | None

    def meets(self, other: _Block) -> bool:
        """Whether both are needed at once."""
        return self._until >= other.first and other._until >= self.first

    @property
    def _until(self) -> float:
        return float("inf") if self.last is None else self.last

    @property
    def turn(self) -> tuple[int, int, int, int]:
        """Its place in the order of placing: what always lives, then the largest."""
        if self.first == 0 and self.last is None:
            return (0, 0, 0, self.tensor)
        return (1, -self.size, self.first, self.tensor)


def planned(subgraph: Subgraph) -> int:
    """Return how many bytes the tensors need that are worked out, a multiple of 64.

    Two of them share a place unless both are needed at once: from the operator that makes a tensor
    to the last that reads it; inputs, outputs and states always.  What a kernel needs for itself is
    not in it, such as the matrix into which TFLite's own convolutions copy their input.
    """
    states = sum(_aligned(bytes_of(subgraph.tensors[index])) for index in _states(subgraph))
    return _aligned(_height(_blocks(subgraph))) + states


def peak(subgraphs: Iterable[Subgraph]) -> int:
    """Return what the graph needs that needs most."""
    return max(planned(subgraph) for subgraph in subgraphs)


def bytes_of(tensor: Tensor) -> int:
    """Return how many bytes a tensor takes; an axis of unknown length counts as one element."""
    return abs(tensor.elements) * element_bytes(tensor)


def element_bytes(tensor: Tensor) -> int:
    """Return how many bytes one element takes."""
    return _BYTES.get(tensor.dtype, 1)


def _height(blocks: Iterable[_Block]) -> int:
    """Place each block into the smallest gap that takes it, else on top; return the top."""
    placed: list[tuple[int, _Block]] = []
    for block in sorted(blocks, key=lambda one: one.turn):
        others = [(start, other) for start, other in placed if block.meets(other)]
        placed.append((_place(block.size, others), block))
        placed.sort(key=lambda entry: entry[0])
    return max((start + block.size for start, block in placed), default=0)


def _place(size: int, others: Iterable[tuple[int, _Block]]) -> int:
    """Return the offset for `size` bytes among `others`, which are in the order of theirs."""
    top, best, gap = 0, -1, float("inf")
    for start, other in others:
        offset = _aligned(top)
        if offset + size <= start and start - offset < gap:
            best, gap = offset, start - top
        top = max(top, start + other.size)
    return best if best >= 0 else _aligned(top)


def _blocks(subgraph: Subgraph) -> list[_Block]:
    roots, reads = _roots(subgraph), _kept(subgraph)
    first = {index: 0 for index in subgraph.inputs if index >= 0}
    last: dict[int, int] = {}
    for operator in subgraph.operators:
        reads.update(roots.get(index, index) for index in operator.inputs)
    for number, operator in enumerate(subgraph.operators):
        for index in _present(operator.outputs):
            first.setdefault(index, number)
        for index in operator.inputs:
            root = roots.get(index, index)
            reads[root] -= 1
            if not reads[root]:
                last[root] = number
    sizes = {index: bytes_of(subgraph.tensors[index]) for index in first if index not in roots}
    return [_Block(i, size, first[i], last.get(i)) for i, size in sizes.items() if size]


def _roots(subgraph: Subgraph) -> Mapping[int, int]:
    """Map each tensor that takes another's place to that other."""
    uses = _kept(subgraph)
    for operator in subgraph.operators:
        uses.update(operator.inputs)
    roots: dict[int, int] = {}
    for operator in subgraph.operators:
        for index in operator.inputs[: _IN_PLACE.get(operator.name, 0)]:
            root = roots.get(index, index)
            if _may_share(operator, index, subgraph, uses):
                if operator.name in _UNMODIFIED or uses[root] <= 1:
                    roots[operator.outputs[0]] = root
                break
    return roots


def _may_share(operator: Operator, index: int, subgraph: Subgraph, uses: Counter[int]) -> bool:
    """Whether an operator may write its answer over its operand `index`."""
    answer = operator.outputs[0]
    if index < 0 or index in subgraph.inputs or answer in subgraph.outputs:
        return False
    given = subgraph.tensors[index]
    if given.constant or index in _states(subgraph):
        return False
    size = bytes_of(given)
    alone = uses[index] <= 1 and size == bytes_of(subgraph.tensors[answer]) and size > _SCALAR
    return alone or operator.name in _UNMODIFIED


def _kept(subgraph: Subgraph) -> Counter[int]:
    """Count a use that never ends for each input and output."""
    return Counter(_present((*subgraph.inputs, *subgraph.outputs)))


def _states(subgraph: Subgraph) -> set[int]:
    """Return what outlives a call, such as an LSTM's state: it is read, and nothing makes it."""
    made = {index for operator in subgraph.operators for index in operator.outputs}
    read = {index for operator in subgraph.operators for index in _present(operator.inputs)}
    worked_out = {index for index in read if not subgraph.tensors[index].constant}
    return worked_out - made - set(subgraph.inputs)


def _present(indices: Iterable[int]) -> list[int]:
    return [index for index in indices if index >= 0]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
