"""What Google's compiler will map to an Edge TPU, told without the compiler.

It runs on Debian x86-64 only and says little of why; this says beforehand which operators stay on
the CPU, in the compiler's own status words, so that a network can be changed before it is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tfedge.boards import edgetpu_rules as rules
from tfedge.boards.edgetpu_rules import LATER, MAPPED, VERSION, Step
from tfedge.tflite import counts
from tfedge.tflite.container import decoding, root, split
from tfedge.tflite.facts import EXIT
from tfedge.tflite.graph import Graph, Subgraph, read

MIB = 1 << 20

CACHED_MOST = int(6.5 * MIB)
PROBABLY_MOST = int(7.5 * MIB)
CACHE_LEAST = int(6.87 * MIB)
"""Of the 8 MB of SRAM, the executable and scratch take some: the logs of users show 6.87, 7.50 and
7.86 MiB for parameters (google-coral/edgetpu issues 60 and 322), one layer's at a time whole."""

GAIN_MACS_LEAST = 1_000_000
"""An estimate.  In google-coral/edgetpu issue 89 a network of 101,632 MACs takes 38 us on the Dev
Board's Edge TPU and 14 us on its CPU: handing over an input costs about as much as 0.3 million MACs
on that CPU, and more over USB."""

REFUSED = "Not compiled"
"""Ours, not the compiler's: it stops before it says anything of the single operators."""


@dataclass(frozen=True)
class Mapped:
    """What becomes of one operator.

    Attributes:
      index: Its place in the order in which operators run, from 0.
      status: In the compiler's words; `REFUSED` where it does not come to that.
      why: What keeps it off the Edge TPU; empty for one that is mapped.
      output: Name of the tensor that it makes.
    """

    index: int
    name: str
    version: int
    status: str
    why: str
    output: str
    macs: int


@dataclass(frozen=True)
class Mapping:
    """What the compiler will do with a file.

    Attributes:
      refused: Why it stops without a result, each with what to do; empty where it compiles.
      operators: In the order in which they run, of the first graph.
      parameter_bytes: Weights and biases of the mapped operators.
      cached: Whether these stay in the Edge TPU's own memory between inferences.
      warnings: What else a user should know.
    """

    refused: tuple[str, ...]
    operators: tuple[Mapped, ...]
    parameter_bytes: int
    cached: str
    warnings: tuple[str, ...]

    @property
    def mapped(self) -> int:
        """How many operators run on the Edge TPU."""
        return sum(operator.status == MAPPED for operator in self.operators)

    @property
    def total(self) -> int:
        return len(self.operators)

    @property
    def whole(self) -> bool:
        """All of the network runs on the Edge TPU."""
        return 0 < self.mapped == self.total


def mapping(flatbuffer: bytes, where: object) -> Mapping:
    """Predict what edgetpu_compiler 16.0 makes of a model.

    Args:
      flatbuffer: A .tflite file, with or without a card behind it.
      where: What an error calls the file.

    Raises:
      UserError: The file is none of TFLite's, is cut off or is damaged.
    """
    with decoding(where):
        graph = read(root(split(flatbuffer)[0], where))
        steps = list(rules.steps(graph.subgraphs[0]))
        refused = tuple(_refused(graph, steps))
        operators = _operators(graph.subgraphs[0], steps, refused=bool(refused))
        on_tpu = [step for step, op in zip(steps, operators, strict=True) if op.status == MAPPED]
        size = _parameter_bytes(on_tpu)
        return Mapping(
            refused,
            operators,
            size,
            _cached(size) if on_tpu else "nothing to cache",
            () if refused else tuple(_warnings(graph.subgraphs[0], steps, operators)),
        )


def describe(of: Mapping) -> str:
    """Lay a mapping out for a terminal: the verdict, a row an operator, memory, warnings."""
    lines = [f"the compiler refuses this file: {reason}" for reason in of.refused]
    lines += ["", *_table(of.operators), ""]
    lines.append(f"{of.mapped} of {of.total} operators are mapped to the Edge TPU (predicted)")
    if of.mapped:
        lines.append(f"parameters: {of.parameter_bytes / MIB:.2f} MiB, {of.cached}")
    lines += [f"note: {warning}" for warning in of.warnings]
    return "\n".join(lines).strip("\n")


def as_json(of: Mapping) -> dict[str, Any]:
    """Return the same as `describe` as JSON takes it."""
    return {
        **asdict(of),
        "refused": list(of.refused),
        "operators": [asdict(operator) for operator in of.operators],
        "warnings": list(of.warnings),
        "mapped": of.mapped,
        "total": of.total,
    }


def _refused(graph: Graph, steps: Sequence[Step]) -> list[str]:
    """List what makes the compiler stop, in its own words where they are known."""
    found = []
    if len(graph.subgraphs) > 1:
        names = ", ".join(signature.name for signature in graph.signatures) or "without names"
        staged = any(signature.name.startswith(EXIT) for signature in graph.signatures)
        found.append(
            f"it holds {len(graph.subgraphs)} graphs ({names}) and the compiler takes one; "
            + (
                'a convert stage with target = "coral" writes a file a stage'
                if staged
                else "convert each to a file of its own"
            )
        )
    for step in steps:
        if rules.too_new(step.operator):
            op, most = step.operator, rules.newest(step.operator)
            found.append(
                f"Didn't find op for builtin opcode '{op.name}' version '{op.version}' (it reads "
                f"{f'up to version {most}' if most else 'none'}); build that layer of others"
            )
    dynamic = [end.name for step in steps for end in (*step.given, *step.outputs) if end.dynamic]
    if dynamic:
        found.append(
            f"it has dynamic-sized tensors ({dynamic[0]}); convert with a fixed batch of 1"
        )
    kinds = {end.dtype for step in steps for end in (*step.given, *step.outputs)}
    if any(step.operator.name == "edgetpu-custom-op" for step in steps):
        found.append("it is compiled already; give the file that it was made from")
    elif not kinds & {"int8", "uint8"}:
        found.append("Model not quantized; convert it to full int8")
    return list(dict.fromkeys(found))


def _operators(subgraph: Subgraph, steps: Sequence[Step], *, refused: bool) -> tuple[Mapped, ...]:
    verdicts = [
        (VERSION, f"version {step.operator.version}, it reads up to {rules.newest(step.operator)}")
        if rules.too_new(step.operator)
        else rules.verdict(step)
        for step in steps
    ]
    if refused:
        verdicts = [
            (REFUSED, why) if status == MAPPED else (status, why) for status, why in verdicts
        ]
    else:
        verdicts = _cut(steps, verdicts)
    return tuple(
        Mapped(
            index,
            "CUSTOM" if step.operator.custom else step.operator.name,  # as the log has it
            step.operator.version,
            *verdict,
            step.outputs[0].name if step.outputs else "",
            counts.macs(step.operator, subgraph),
        )
        for index, (step, verdict) in enumerate(zip(steps, verdicts, strict=True))
    )


def _cut(steps: Sequence[Step], verdicts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave one connected part to the Edge TPU: the first.

    The compiler is a TFLite delegate, and TFLite cuts a graph into parts by what hangs on what: if
    it starts with operators for the CPU (the QUANTIZE of a float input, a CAST), these come before
    the first part and cost nothing.  Whatever hangs on another one that stays on the CPU is of a
    later part, and of those the compiler takes none.
    """
    starts_on_cpu = bool(verdicts) and verdicts[0][0] != MAPPED
    behind: dict[int, str] = {}  # tensor -> the operator on the CPU that it hangs on
    on_tpu: set[int] = set()  # tensors that hang on the Edge TPU's part
    cut = []
    for step, (status, why) in zip(steps, verdicts, strict=True):
        inputs, outputs = step.operator.inputs, step.operator.outputs
        blocked = next((behind[number] for number in inputs if number in behind), "")
        if status == MAPPED and blocked:
            status, why = LATER, f"it comes after {blocked}, which stays on the CPU"
        if status == MAPPED:
            on_tpu.update(outputs)
        elif blocked or not starts_on_cpu or not on_tpu.isdisjoint(inputs):
            name = f"{step.operator.name} {step.outputs[0].name}" if step.outputs else ""
            behind.update(dict.fromkeys(outputs, blocked or name))
        cut.append((status, why))
    return cut


def _parameter_bytes(steps: Sequence[Step]) -> int:
    held = {
        tensor.buffer: tensor.stored
        for step in steps
        for tensor in step.inputs
        if tensor.constant and (tensor.scales or tensor.dtype in ("int8", "uint8"))
    }
    return sum(held.values())


def _cached(size: int) -> str:
    if size <= CACHED_MOST:
        return "cached on the Edge TPU"
    if size <= PROBABLY_MOST:
        return "probably cached on the Edge TPU"
    return f"about {(size - CACHE_LEAST) / MIB:.1f} MiB streamed every inference"


def _warnings(subgraph: Subgraph, steps: Sequence[Step], operators: Sequence[Mapped]) -> list[str]:
    found = []
    macs = sum(operator.macs for operator in operators)
    on_tpu = sum(operator.macs for operator in operators if operator.status == MAPPED)
    if 0 < on_tpu < macs:
        found.append(f"{100 * (macs - on_tpu) / macs:.0f} % of the MACs stay on the CPU")
    if not any(operator.status == MAPPED for operator in operators):
        found.append("nothing is mapped; the compiled file would run on the CPU alone")
    elif on_tpu < GAIN_MACS_LEAST:
        found.append(
            f"{on_tpu:,} MACs are few: below about {GAIN_MACS_LEAST:,}, handing the input over may "
            "take longer than the CPU takes for all (an estimate; measure with infer.py --bench)"
        )
    batches = {subgraph.tensors[index].shape[:1] for index in subgraph.inputs} - {(1,), ()}
    if batches:
        (batch,) = next(iter(batches))
        found.append(f"the batch is {batch}; the Edge TPU takes one input at a time")
    per_channel = [
        step.outputs[0].name
        for step in steps
        if step.operator.name == "FULLY_CONNECTED" and step.inputs[1].axis is not None
    ]
    if per_channel:
        found.append(
            f"{per_channel[0]} has a scale for each channel of a dense layer, which no sample of "
            "Google's has, and on the CPU the runtime of 2.5 answers nonsense with it; "
            "convert it with tfedge, which writes one scale"
        )
    return found


def _table(operators: Sequence[Mapped]) -> list[str]:
    width = max((len(operator.name) for operator in operators), default=0)
    lines = []
    for op in operators:
        lines.append(f"{op.index:4}  {op.name.ljust(width)}  {op.status}")
        if op.why:
            lines.append(" " * (width + 8) + op.why)
    return lines
