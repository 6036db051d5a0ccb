"""A network with several answers, cut into stages that run one after the other.

The staged file holds the whole network as its first graph, so that what knows nothing of exits
takes it for a plain classifier.  Behind it there is one graph a stage with the signatures
``exit_0``, ``exit_1``, …: each gives ``logits`` and, but for the last, ``features_0``, … as raw
int8, which the next one takes by the same names.  A stage that needs the network's input takes
``inputs``, as the first does.  All graphs share the weights' bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfedge.errors import UserError
from tfedge.tflite.container import split
from tfedge.tflite.facts import EXIT, Facts, facts
from tfedge.tflite.graph import Signature, Tensor
from tfedge.tflite.running import packed, unpacked

INPUTS, LOGITS, FEATURES = "inputs", "logits", "features"
"""What stages call the network's input, their answer, and what they hand on (``features_0``)."""

_STATEFUL = ("LSTM", "RNN", "SVDF")


@dataclass(frozen=True)
class Stage:
    """One stage of a staged file.

    Attributes:
      name: Its signature, ``exit_0`` for the first.
      subgraph: The number of its graph in the file.
      inputs: The names it takes: ``inputs``, or features of the stage before it.
      features: The names of what it hands on; none for the last, and in a cascade.
      scale, zero_point: The quantisation of its logits.
    """

    name: str
    subgraph: int
    inputs: tuple[str, ...]
    features: tuple[str, ...]
    scale: float
    zero_point: int


def staged(content: bytes, where: object = "model") -> bytes:
    """Return an int8 .tflite of several outputs as one of stages; see the module.

    One calibration serves all stages, as the graph is cut after it was quantised.  An operator
    belongs to the first stage whose answer needs it.

    Args:
      content: A model without a card, of one input and an output [1, classes] for each exit, the
        earliest first.
      where: What a message calls it.

    Raises:
      UserError: It has one output, more than one input, answers of unlike shape, or a recurrent
        layer; or something that a stage takes or gives is not int8.
    """
    _refuse_unfit(facts(content, where), where)
    model = unpacked(content)
    whole = model.subgraphs[0]
    answers = [int(index) for index in whole.outputs]
    parts = _parts(whole, answers)
    made = set(map(int, whole.inputs))
    ends: list[tuple[list[int], list[int]]] = []
    for number, operators in enumerate(parts):
        later = [operator for part in parts[number + 1 :] for operator in part]
        made |= set(_tensors(operators, "outputs"))
        wanted = _handed_on(later, made - set(map(int, whole.inputs)))
        given = ends[-1][1] if ends else []
        # What only a stage after the next one reads goes through the next.
        ends.append((given, wanted))
    model.signatureDefs = []
    for number, (operators, (given, wanted)) in enumerate(zip(parts, ends, strict=True)):
        needs_input = set(map(int, whole.inputs)) & set(_tensors(operators, "inputs"))
        taken = [*sorted(needs_input), *given]
        names = [*[INPUTS] * len(needs_input), *_numbered(given)]
        outputs = [answers[number], *wanted]
        graph = _graph(whole, operators, taken, outputs, f"{EXIT}{number}")
        model.subgraphs.append(graph)
        _sign(model, names, [LOGITS, *_numbered(wanted)])
    last = [operator for part in _parts(whole, answers[-1:]) for operator in part]
    model.subgraphs[0] = _graph(whole, last, whole.inputs, answers[-1:], whole.name)
    return _checked(packed(model), where)


def cascade(small: bytes, large: bytes, where: object = "cascade") -> bytes:
    """Return one file of two networks for the same input: ``exit_0`` is `small`, then `large`.

    The first graph is the large network.  Nothing is handed on: both stages take ``inputs``.

    Args:
      small: A model without a card, of one input and one output.
      large: Another for the same input and classes.

    Raises:
      UserError: They differ in the input's shape or quantisation, or in the number of classes; or
        one has several outputs or a recurrent layer, or is not int8.
    """
    first, second = facts(small, where), facts(large, where)
    for name, found in (("small", first), ("large", second)):
        if len(found.inputs) != 1 or len(found.outputs) != 1 or exits(found):
            what = "exits of its own" if exits(found) else "several inputs or outputs"
            fix = "give two networks of one input and one output, without exits"
            raise UserError(where, f"the {name} network has {what}", fix)
    _refuse_unlike(first.inputs[0], second.inputs[0], where)
    if first.outputs[0].shape != second.outputs[0].shape:
        shapes = [list(found.outputs[0].shape) for found in (first, second)]
        fix = "train both on the same classes"
        raise UserError(where, f"they answer {shapes[0]} and {shapes[1]}", fix)
    model, other = unpacked(large), unpacked(small)
    whole = model.subgraphs[0]
    model.signatureDefs = []
    for number, graph in enumerate((_adopted(model, other), copy.deepcopy(whole))):
        graph.name = f"{EXIT}{number}".encode()
        model.subgraphs.append(graph)
        _sign(model, [INPUTS], [LOGITS])
    return _checked(packed(model), where)


def stage(content: bytes, number: int, where: object = "model") -> bytes:
    """Return one stage of a staged file as a model of its own, with the bytes that it needs.

    Its outputs are its logits, then its features; its inputs as in `Stage`.  It has one signature,
    of the stage's own name.

    Args:
      content: From `staged` or `cascade`, with or without a card.
    """
    flatbuffer, _ = split(content)
    chosen = stages(flatbuffer, where)[number]
    model = unpacked(flatbuffer)
    model.subgraphs = [model.subgraphs[chosen.subgraph]]
    model.signatureDefs = [s for s in model.signatureDefs if _name(s) == chosen.name]
    model.signatureDefs[0].subgraphIndex = 0
    (graph,) = model.subgraphs
    held = {tensor.buffer for tensor in graph.tensors}
    for index, buffer in enumerate(model.buffers):
        if index not in held:
            buffer.data = None
    used = sorted({operator.opcodeIndex for operator in graph.operators})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for operator in graph.operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)
    model.metadata = []
    return packed(model)


def exits(found: Facts) -> tuple[Signature, ...]:
    """Return the signatures of a staged file, the earliest first; none where it is not staged."""
    by_name = {signature.name: signature for signature in found.signatures}
    names = [f"{EXIT}{number}" for number in range(len(by_name))]
    return tuple(by_name[name] for name in names if name in by_name)


def stages(content: bytes, where: object = "model") -> tuple[Stage, ...]:
    """Return the stages of a staged file, the earliest first.

    Raises:
      UserError: It has none.
    """
    found = exits(facts(content, where))
    if not found:
        fix = "give the .tflite of a network with exits, or of a cascade"
        raise UserError(where, "has no exits", fix)
    return tuple(
        Stage(
            signature.name,
            signature.subgraph,
            tuple(sorted(signature.inputs, key=_place)),
            tuple(sorted((name for name in signature.outputs if name != LOGITS), key=_place)),
            signature.outputs[LOGITS].scales[0],
            signature.outputs[LOGITS].zero_points[0],
        )
        for signature in found
    )


def _place(name: str) -> int:
    """Return where an end is among others: ``inputs`` first, then features by number."""
    return -1 if name == INPUTS else int(name.removeprefix(f"{FEATURES}_"))


def _parts(graph: Any, answers: Sequence[int]) -> list[list[Any]]:
    """Share the operators that answers need among the stages, each to the first that needs it."""
    taken: set[int] = set()
    parts = []
    for answer in answers:
        needed, own = {answer}, []
        for number in reversed(range(len(graph.operators))):
            operator = graph.operators[number]
            if needed & set(_tensors([operator], "outputs")):
                needed |= set(_tensors([operator], "inputs"))
                own += [number] if number not in taken else []
        taken |= set(own)
        parts.append([graph.operators[number] for number in sorted(own)])
    return parts


def _handed_on(later: Iterable[Any], made: set[int]) -> list[int]:
    """List what operators of later stages read of what was made so far, in order of first use."""
    return [index for index in _tensors(later, "inputs") if index in made]


def _tensors(operators: Iterable[Any], side: str) -> list[int]:
    """List the tensors that operators read or make, each once."""
    ends = (getattr(operator, side) for operator in operators)
    found = (int(index) for end in ends if end is not None for index in end if index >= 0)
    return list(dict.fromkeys(found))


def _graph(
    whole: Any, operators: Sequence[Any], inputs: Iterable[int], outputs: Iterable[int], name: Any
) -> Any:
    """Return a graph of some operators of another, with copies of the tensors that it touches."""
    inputs, outputs = list(map(int, inputs)), list(map(int, outputs))
    touched = {*inputs, *outputs}
    for operator in operators:
        for side in ("inputs", "outputs", "intermediates"):
            touched |= set(_tensors([operator], side))
    places = {old: new for new, old in enumerate(sorted(touched))}
    graph = schema.SubGraphT(name=name.encode() if isinstance(name, str) else name)
    graph.tensors = [copy.copy(whole.tensors[index]) for index in places]
    graph.operators = []
    for operator in operators:
        moved = copy.copy(operator)
        for side in ("inputs", "outputs", "intermediates"):
            ends = getattr(operator, side)
            if ends is not None:
                setattr(moved, side, [places.get(int(index), -1) for index in ends])
        graph.operators.append(moved)
    graph.inputs = [places[index] for index in inputs]
    graph.outputs = [places[index] for index in outputs]
    return graph


def _sign(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give the last graph a signature of the graph's name."""
    graph = model.subgraphs[-1]
    made = schema.SignatureDefT(
        signatureKey=graph.name, subgraphIndex=len(model.subgraphs) - 1, inputs=[], outputs=[]
    )
    for named, names, ends in (
        (made.inputs, inputs, graph.inputs),
        (made.outputs, outputs, graph.outputs),
    ):
        for name, index in zip(names, ends, strict=True):
            named.append(schema.TensorMapT(name=name.encode(), tensorIndex=int(index)))
    model.signatureDefs.append(made)


def _adopted(model: Any, other: Any) -> Any:
    """Return the first graph of `other`, its buffers and operators' codes appended to `model`'s."""
    graph = other.subgraphs[0]
    buffers, codes = len(model.buffers), len(model.operatorCodes)
    held = {tensor.buffer for tensor in graph.tensors}
    model.buffers += [
        buffer if index in held else schema.BufferT() for index, buffer in enumerate(other.buffers)
    ]
    model.operatorCodes += other.operatorCodes
    for tensor in graph.tensors:
        tensor.buffer += buffers
    for operator in graph.operators:
        operator.opcodeIndex += codes
    return graph


def _numbered(features: Sequence[int]) -> list[str]:
    return [f"{FEATURES}_{number}" for number in range(len(features))]


def _name(signature: Any) -> str:
    key = signature.signatureKey
    return key.decode() if isinstance(key, bytes) else str(key)


def _refuse_unfit(found: Facts, where: object) -> None:
    if len(found.inputs) != 1 or len(found.outputs) < 2:  # noqa: PLR2004 two answers make an exit
        problem = f"has {len(found.inputs)} inputs and {len(found.outputs)} outputs"
        fix = "give a network of one input and an answer for each exit"
        raise UserError(where, problem, fix)
    if len(found.subgraphs) > 1:
        fix = "unroll the layer that is a loop, or take the exits out"
        raise UserError(where, f"has {len(found.subgraphs)} graphs, and one can be cut", fix)
    shapes = {tensor.shape for tensor in found.outputs}
    if len(shapes) > 1:
        listed = " and ".join(str(list(tensor.shape)) for tensor in found.outputs)
        fix = "let each exit give logits for all classes"
        raise UserError(where, f"its exits answer {listed}", fix)


def _refuse_unlike(small: Tensor, large: Tensor, where: object) -> None:
    ends = [(list(one.shape), one.dtype, one.scales, one.zero_points) for one in (small, large)]
    if ends[0] == ends[1]:
        return
    told = [
        f"{dtype} {shape}, scale {scales[0] if scales else 1:.6g}, zero {zeros[0] if zeros else 0}"
        for shape, dtype, scales, zeros in ends
    ]
    fix = "convert both to int8 from the same data; in 8 bits trained ones learn the same range"
    raise UserError(where, f"they take unlike inputs: {told[0]}, and {told[1]}", fix)


def _checked(content: bytes, where: object) -> bytes:
    """Return a staged file; refuse one whose stages do not fit one another."""
    found = facts(content, where)
    # Runtimes reset the states of all graphs at once, and refuse where one is not laid out yet.
    if keeping := [name for name, _ in found.operators if any(s in name for s in _STATEFUL)]:
        problem = f"keeps a state from one input to the next ({keeping[0]}), and stages cannot"
        raise UserError(where, problem, "convert it without exits, or replace the recurrent layer")
    before: dict[str, Tensor] = {}
    for signature in exits(found):
        for name, tensor in (*signature.inputs.items(), *signature.outputs.items()):
            if tensor.dtype != "int8":
                problem = f"{signature.name} has {name} in {tensor.dtype}"
                raise UserError(where, problem, "convert the network with exits to int8")
        for name, tensor in signature.inputs.items():
            made = before.get(name)
            if name != INPUTS and (made is None or _grid(made) != _grid(tensor)):
                raise ValueError(f"{signature.name}: {name} is not what the stage before gives")
        before = signature.outputs
    return content


def _grid(tensor: Tensor) -> Any:
    return tensor.shape, tensor.scales, tensor.zero_points
