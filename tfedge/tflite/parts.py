"""Cut a .tflite into models of some of its operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfedge.tflite.running import packed, unpacked


@dataclass(frozen=True)
class Part:
    """A model of some operators; `inputs` numbers what it is fed by the whole's tensors."""

    flatbuffer: bytes
    inputs: tuple[int, ...]


def part(flatbuffer: bytes, operators: range) -> Part:
    """Return a model of some operators of the first subgraph, one after the other.

    What they read of operators before them are its inputs, what others read of theirs its outputs,
    each with its type and its scale.  State that an operator keeps from one call to the next stays
    its own.

    Args:
      flatbuffer: A model without its card; nothing of it is changed.
      operators: Numbers in the order in which they run, without gaps; perhaps none.
    """
    model = unpacked(flatbuffer)
    graph = model.subgraphs[0]
    others = [one for number, one in enumerate(graph.operators) if number not in operators]
    graph.operators = [graph.operators[number] for number in operators]
    read = _ends(graph.operators, "inputs")
    made = _ends(graph.operators, "outputs")
    wanted = {*_ends(others, "inputs"), *map(int, graph.outputs)}
    graph.inputs = [i for i in read if i not in made and _is_fed(model, graph.tensors[i])]
    graph.outputs = [index for index in made if index in wanted]
    for index, tensor in enumerate(graph.tensors):
        if index not in read and index not in made:
            tensor.buffer = 0
    held = {tensor.buffer for one in model.subgraphs for tensor in one.tensors}
    for number, buffer in enumerate(model.buffers):
        if number not in held:
            buffer.data = None
    model.signatureDefs, model.metadata = [], []
    return Part(packed(model), tuple(graph.inputs))


def _ends(operators: list[Any], side: str) -> list[int]:
    """List the tensors that operators read or make, each once."""
    found = (int(i) for one in operators for i in _numbers(getattr(one, side)) if i >= 0)
    return list(dict.fromkeys(found))


def _numbers(of: Any) -> Any:
    return () if of is None else of


def _is_fed(model: Any, tensor: Any) -> bool:
    """Whether a tensor is neither a constant nor an operator's state."""
    data = model.buffers[tensor.buffer].data
    return (data is None or not len(data)) and not tensor.isVariable
