"""How values run through a graph: who makes them, who reads them, and where channels are mixed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from tfedge.tflite.graph import Operator, Subgraph
from tfedge.tflite.names import SEAMS

MIXERS = frozenset(("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"))
"""Operators each of whose output channels is a sum over all input channels."""

_COARSENESS = {"int16": 1, "int8": 2}

INPUT = -1
"""Stands among numbers of operators for the graph's input."""


@dataclass(frozen=True)
class Flow:
    """A subgraph with the ways between its operators.

    Operators and tensors go by their numbers.  `names.SEAMS` count as part of the way: two tensors
    with one between them hold the same value, and are known by the first, the `root`.
    """

    subgraph: Subgraph

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """The operators that compute, in order."""
        operators = self.subgraph.operators
        return tuple(i for i, operator in enumerate(operators) if operator.name not in SEAMS)

    @cached_property
    def roots(self) -> tuple[int, ...]:
        """For each tensor, the one that it is a copy of in another type; itself if it is none."""
        found = list(range(len(self.subgraph.tensors)))
        for operator in self.subgraph.operators:
            if operator.name in SEAMS:
                found[operator.outputs[0]] = found[operator.inputs[0]]
        return tuple(found)

    @cached_property
    def makers(self) -> dict[int, int]:
        """For each value that depends on the input, the step that makes it, or `INPUT`."""
        found = dict.fromkeys(self.subgraph.inputs, INPUT)
        for step in self.steps:
            if self.moving(step, found):
                found |= dict.fromkeys(self.operator(step).outputs, step)
        return found

    def operator(self, step: int) -> Operator:
        return self.subgraph.operators[step]

    def moving(self, step: int, among: Iterable[int] | None = None) -> list[int]:
        """Return the places of those operands whose values depend on the input."""
        known = self.makers if among is None else among
        inputs = self.operator(step).inputs
        return [place for place, i in enumerate(inputs) if i >= 0 and self.roots[i] in known]

    def values(self, step: int) -> tuple[int, ...]:
        """Return what a step makes; of `INPUT`, the graph's inputs."""
        return self.subgraph.inputs if step == INPUT else self.operator(step).outputs

    def readers(self, step: int) -> list[int]:
        """Return the steps that read what a step makes."""
        made = set(self.values(step))
        return [
            other
            for other in self.steps
            if any(i >= 0 and self.roots[i] in made for i in self.operator(other).inputs)
        ]

    def until_mixed(
        self, step: int, opaque: Collection[int] = ()
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Follow what a step makes to where its channels are mixed.

        Args:
          opaque: Steps that nothing is followed through.

        Returns:
          The steps on the way, in order, and the values at its ends: what the first `MIXERS` make,
          and, before any, the graph's outputs and what `opaque` steps read.
        """
        reached, way = set(self.values(step)), []
        ends = [self.roots[i] for i in self.subgraph.outputs if self.roots[i] in reached]
        for other in self.steps:
            operator = self.operator(other)
            touched = [
                self.roots[i] for i in operator.inputs if i >= 0 and self.roots[i] in reached
            ]
            if touched and other in opaque:
                ends += touched
            elif touched and operator.name in MIXERS:
                way.append(other)
                ends += operator.outputs
            elif touched:
                way.append(other)
                reached |= set(operator.outputs)
                ends += [self.roots[i] for i in self.subgraph.outputs]
        reached |= {i for other in way for i in self.operator(other).outputs}
        return tuple(way), tuple(i for i in dict.fromkeys(ends) if i in reached)

    def copies(self, tensor: int) -> list[int]:
        """Return the tensors from a value's root to `tensor`, which seams lie between."""
        chain = [tensor]
        made = {
            operator.outputs[0]: operator.inputs[0]
            for operator in self.subgraph.operators
            if operator.name in SEAMS
        }
        while chain[0] in made:
            chain.insert(0, made[chain[0]])
        return chain

    def read_as(self, tensor: int) -> int:
        """Return the coarsest form in which a value is handed on to all that read it."""
        tensors, operators = self.subgraph.tensors, self.subgraph.operators
        direct = tensor in self.subgraph.outputs or any(
            tensor in self.operator(step).inputs for step in self.steps
        )
        copies = [o.outputs[0] for o in operators if o.name in SEAMS and o.inputs[0] == tensor]
        forms = [tensor, *([] if direct else copies)]
        return max(forms, key=lambda i: _COARSENESS.get(tensors[i].dtype, 0))

    def origin(self, tensor: int) -> int:
        """Return the step with weights, or of several values, that a value's channels come from."""
        step = self.makers[self.roots[tensor]]
        while step != INPUT:
            operator, moving = self.operator(step), self.moving(step)
            weights = [
                i
                for place, i in enumerate(operator.inputs)
                if i >= 0 and place not in moving and self.subgraph.tensors[i].dtype != "int32"
            ]
            if weights or len(moving) != 1:
                return step
            step = self.makers[self.roots[operator.inputs[moving[0]]]]
        return step


def paired(left: Flow, right: Flow) -> dict[int, int]:
    """Pair the steps of two files of one network.

    Steps that make a tensor of the same name belong together; of what is left, like operators
    with a like result in the order in which they run.  A step without partner is absent.
    """

    def kind(flow: Flow, step: int) -> tuple[str, tuple[int, ...]]:
        operator = flow.operator(step)
        return operator.name, flow.subgraph.tensors[operator.outputs[0]].shape

    def result(flow: Flow, step: int) -> tuple[str, str, tuple[int, ...]]:
        return (flow.subgraph.tensors[flow.operator(step).outputs[0]].name, *kind(flow, step))

    ours, theirs = ([s for s in flow.steps if flow.operator(s).outputs] for flow in (left, right))
    named = {result(right, step): step for step in theirs}
    pairs = {step: named[result(left, step)] for step in ours if result(left, step) in named}
    rest = [step for step in ours if step not in pairs]
    others = [step for step in theirs if step not in pairs.values()]
    matcher = difflib.SequenceMatcher(
        None, [kind(left, s) for s in rest], [kind(right, s) for s in others], autojunk=False
    )
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            pairs[rest[block.a + offset]] = others[block.b + offset]
    return dict(sorted(pairs.items()))
