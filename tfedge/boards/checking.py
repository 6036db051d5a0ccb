"""Whether a .tflite will run on a board and answer right, known before it is copied there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tfedge.boards import memory, runtimes
from tfedge.boards.runtimes import CUSTOM, RUNTIMES, WRONG
from tfedge.boards.targets import Target
from tfedge.tflite import arena, names, staging
from tfedge.tflite.facts import Facts, facts
from tfedge.tflite.graph import Operator, Subgraph, Tensor
from tfedge.tflite.names import Layers

if TYPE_CHECKING:
    from tfedge.boards.edgetpu import Mapping

FAILS, WRONG_ANSWERS, SLOW, NOTE = "fails", "wrong", "slow", "note"
SEVERITIES = (FAILS, WRONG_ANSWERS, SLOW, NOTE)
"""The worst first; with either of the first two a file is of no use on its target."""

EDGE_TPU = "edgetpu-custom-op"
_PER_TENSOR = (
    "convert with tfedge, which gives a dense layer one scale; in TensorFlow's own converter set "
    "_experimental_disable_per_channel_quantization_for_dense_layers = True"
)
_LSTM = "int8 lstm"
_STATEFUL = ("LSTM", "RNN", "SVDF")
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing that a user should know of a file on a target.

    Attributes:
      severity: One of `SEVERITIES`.
      operators: Those concerned, with version and layer; empty where it is the whole file.
      runtimes: Those of the target that it happens on; empty where it is the board's matter.
      happens: What will be seen.
      remedy: What to do about it; empty where there is nothing to be done.
    """

    severity: str
    operators: tuple[str, ...]
    runtimes: tuple[str, ...]
    happens: str
    remedy: str


@dataclass(frozen=True)
class Verdict:
    """What becomes of a file on a target.

    Attributes:
      findings: The worst first.
      file_bytes: The whole file.
      arena_bytes: The activations, see `arena.planned`.
      process_bytes: The whole process, see `memory.process_bytes`.
      mapping: What the Edge TPU's compiler makes of it, where that is the target.
    """

    target: Target
    findings: tuple[Finding, ...]
    file_bytes: int
    arena_bytes: int
    process_bytes: int
    mapping: Mapping | None = None

    @property
    def ok(self) -> bool:
        """The file runs and answers right, as far as is known."""
        return not self.serious

    @property
    def serious(self) -> tuple[Finding, ...]:
        """What makes the file useless on the target."""
        return tuple(one for one in self.findings if one.severity in (FAILS, WRONG_ANSWERS))


def check(content: bytes, where: object, target: Target, layers: Layers = ()) -> Verdict:
    """Say what will become of a .tflite on a target.

    Args:
      content: The file, with or without a card.
      where: What a message calls it.
      layers: The network's, see `names.of_network`; else the file's own names tell.

    Raises:
      UserError: The file is none of TFLite's, is cut off or is damaged.
    """
    known = facts(content, where)
    mapped = _mapping(content, where, target, known)
    found = _merged([*_kernels(known, target, layers, mapped), *_file(known, target)])
    found += _edge_tpu(mapped) if mapped else []
    return Verdict(
        target,
        tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity))),
        len(content),
        arena.peak(known.subgraphs),
        _need(known, target),
        mapped,
    )


def unfit(content: bytes, layers: Layers, target: Target) -> dict[str, str]:
    """Name the layers of an int8 file that are wrong on a target in int8 alone, and what is wrong.

    Those of which no operator tells the layer are left out; `check` finds them.

    Args:
      layers: The network's, see `names.of_network`.
    """
    known = facts(content, target.name)
    on_tpu = _on_tpu(_mapping(content, target.name, target, known))
    subgraph = known.subgraphs[0]
    owners = names.of_operators(subgraph, layers)
    wrong = [name for name in target.runtimes if name in WRONG[_LSTM]]
    return {
        own[0]: f"int8 LSTM is wrong on {runtimes.listed(wrong)}"
        for index, (operator, own) in enumerate(zip(subgraph.operators, owners, strict=True))
        for what, *_ in _nonsense(operator, subgraph)
        if what == _LSTM and own and wrong and index not in on_tpu
    }


def as_json(of: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON takes it."""
    from tfedge.boards import edgetpu

    target = asdict(of.target)
    return {
        "target": {name: value for name, value in target.items() if value not in ("", 0)},
        "ok": of.ok,
        "findings": [asdict(finding) for finding in of.findings],
        "file_bytes": of.file_bytes,
        "arena_bytes": of.arena_bytes,
        "process_bytes": of.process_bytes,
        **({"edge_tpu": edgetpu.as_json(of.mapping)} if of.mapping else {}),
    }


def sentence(of: Finding) -> str:
    """Return a finding without its remedy in one line: where, on what, what happens."""
    on = f"{runtimes.listed(of.runtimes)} " if of.runtimes else ""
    return f"{_few(list(of.operators))}: {on}{of.happens}" if of.operators else f"{on}{of.happens}"


def _mapping(content: bytes, where: object, target: Target, known: Facts) -> Mapping | None:
    """Predict what the Edge TPU's compiler makes of a file, if it is yet to be compiled for one."""
    if not target.edge_tpu or EDGE_TPU in known.custom_operators:
        return None
    from tfedge.boards.edgetpu import mapping

    return mapping(content, where)


def _on_tpu(mapped: Mapping | None) -> set[int]:
    """Return the operators of the first graph that no runtime's kernel computes."""
    from tfedge.boards.edgetpu_rules import MAPPED

    return {one.index for one in mapped.operators if one.status == MAPPED} if mapped else set()


def _kernels(
    known: Facts, target: Target, layers: Layers, mapped: Mapping | None
) -> Iterator[Finding]:
    """Yield what the single operators meet; each finding names one operator."""
    on_tpu = _on_tpu(mapped)
    for number, subgraph in enumerate(known.subgraphs):
        owners = names.of_operators(subgraph, layers or names.guessed(subgraph))
        for index, (operator, own) in enumerate(zip(subgraph.operators, owners, strict=True)):
            place = _place(operator, own, subgraph)
            by_cpu = number > 0 or index not in on_tpu
            for finding in _of_operator(operator, subgraph, target, by_cpu=by_cpu):
                yield replace(finding, operators=(place,))


def _of_operator(
    operator: Operator, subgraph: Subgraph, target: Target, *, by_cpu: bool
) -> Iterator[Finding]:
    if operator.custom:
        yield from _custom(operator, target)
        return
    lacking = tuple(
        r for r in target.runtimes if not runtimes.has(r, operator.name, operator.version)
    )
    if lacking:
        yield _no_kernel(operator, subgraph, lacking)
    loads = tuple(name for name in target.runtimes if name not in lacking)
    for what, happens, remedy in _nonsense(operator, subgraph):
        if what == _LSTM and not by_cpu:
            continue
        if wrong := tuple(name for name in loads if name in WRONG[what]):
            yield Finding(
                WRONG_ANSWERS, (), wrong, f"answers nonsense, and says nothing: {happens}", remedy
            )
    if any(word in operator.name for word in _STATEFUL):
        happens = "keeps its state from one input to the next"
        remedy = "call reset_all_variables() of the interpreter before each sequence of its own"
        yield Finding(NOTE, (), target.runtimes, happens, remedy)


def _no_kernel(operator: Operator, subgraph: Subgraph, lacking: tuple[str, ...]) -> Finding:
    most = max(runtimes.newest(name, operator.name) for name in lacking)
    has = f"this operator up to version {most}" if most else "no such operator"
    happens = f"refuses the file (Didn't find op for builtin opcode): it has {has}"
    first = runtimes.first_with(operator.name, operator.version)
    newer = f"use {first} or later" if first else "no runtime that is known has it"
    alike = [other for other in subgraph.operators if other.name == operator.name]
    if any(_per_channel(other, subgraph) for other in alike):  # they share one version
        remedy = _PER_TENSOR
    elif _dtype(operator, subgraph) == "int16":
        remedy = 'write form = "int8"'
    else:
        remedy = "replace the layer by others; a convolution, ReLU, pooling or Add will do"
    return Finding(FAILS, (), lacking, happens, f"{remedy}; or {newer}")


def _nonsense(operator: Operator, subgraph: Subgraph) -> Iterator[tuple[str, str, str]]:
    """Yield which of `runtimes.WRONG` an operator is, why, and what to do."""
    fed = _dtype(operator, subgraph)
    if operator.name == "FULLY_CONNECTED" and fed in ("int8", "int16"):
        if _per_channel(operator, subgraph):
            happens = "a scale for each output, of which its kernel takes the first for all"
            yield "int8 dense", happens, _PER_TENSOR
        kinds = [subgraph.tensors[index].dtype for index in operator.inputs if index >= 0]
        if fed == "int16" and "int64" in kinds:
            happens = "a bias of 64 bits, which its kernel takes for one of 32"
            yield "int16 dense", happens, 'write form = "int8", or use another version'
    if "LSTM" in operator.name and fed == "int8":
        happens = "its int8 LSTM is off by as much as the answers vary"
        remedy = 'use tflite-runtime 2.12 or later, or write form = "dynamic" or "float16"'
        remedy += "; a convert stage of this target leaves it in float where it knows the layer"
        yield _LSTM, happens, remedy


def _custom(operator: Operator, target: Target) -> Iterator[Finding]:
    if operator.name in CUSTOM or (operator.name == EDGE_TPU and target.edge_tpu):
        return
    happens = f"stops with: Encountered unresolved custom op: {operator.name}"
    remedy = "replace the layer by others of Keras's own"
    if operator.name == EDGE_TPU:
        remedy = "copy the file that edgetpu_compiler was given"
    elif operator.name.startswith("Flex"):
        happens = f"stops: {operator.name} is TensorFlow's own, and no runtime for boards has it"
    yield Finding(FAILS, (), target.runtimes, happens, remedy)


def _file(known: Facts, target: Target) -> Iterator[Finding]:
    """Yield what the file as a whole meets."""
    yield from _ends(known, target)
    yield from _speed(known, target)
    need = _need(known, target)
    if target.memory_mib and need > target.memory_mib * memory.MIB:
        happens = (
            f"needs about {need / memory.MIB:.0f} MiB, and a process can have {target.memory_mib}:"
            " the system will end it"
        )
        yield Finding(FAILS, (), (), happens, "make the network or its input smaller")
    if target.note:
        yield Finding(NOTE, (), (), target.note, target.install)
    bare = [name for name in target.runtimes if not RUNTIMES[name].machines]
    if bare:
        happens = "PyPI has no wheel of it"
        yield Finding(NOTE, (), tuple(bare), happens, "build it from TensorFlow's source")


def _need(known: Facts, target: Target) -> int:
    """Return what a process needs on that of the target's runtimes that needs most."""
    int8 = any(tensor.dtype == "int8" for tensor in known.inputs)
    kinds = {RUNTIMES[name].int8_fast or not int8 for name in target.runtimes}
    return max(memory.process_bytes(known, xnnpack=fast) for fast in kinds)


def _ends(known: Facts, target: Target) -> Iterator[Finding]:
    if stages := staging.exits(known):
        happens = (
            f"has {len(stages)} exits ({_few([stage.name for stage in stages])}); infer.py leaves"
            " at the first that is sure, other programs run the whole network, the first graph"
        )
        remedy = "in a program of your own: interpreter.get_signature_runner(NAME), one by one"
        yield Finding(NOTE, (), target.runtimes, happens, remedy)
    elif len(known.signatures) > 1:
        called = ", ".join(signature.name for signature in known.signatures)
        happens = f"has {len(known.signatures)} signatures ({called}); infer.py runs the first"
        remedy = "in a program of your own: interpreter.get_signature_runner(NAME)"
        yield Finding(NOTE, (), target.runtimes, happens, remedy)
    batches = {t.shape[0]: t.name for t in known.inputs if t.shape and t.shape[0] != 1}
    for batch, name in batches.items():
        happens = f"takes {batch} inputs at once ({name}), and infer.py feeds one"
        yield Finding(FAILS, (), (), happens, "convert with a fixed batch of 1, as tfedge does")
    open_ended = [tensor.name for tensor in known.inputs if tensor.dynamic]
    if open_ended and not target.edge_tpu:  # whose compiler refuses it: see `_edge_tpu`
        happens = f"has axes of any length ({open_ended[0]}); the runtime takes each as 1"
        yield Finding(NOTE, (), (), happens, "convert with a fixed batch of 1, as tfedge does")


def _speed(known: Facts, target: Target) -> Iterator[Finding]:
    kinds = {
        subgraph.tensors[index].dtype
        for subgraph in known.subgraphs
        for operator in subgraph.operators
        for index in operator.outputs
    }
    slow = tuple(name for name in target.runtimes if not RUNTIMES[name].int8_fast)
    if "int8" in kinds and slow and not target.edge_tpu:
        happens = (
            "has no XNNPACK for int8: several times as long (MobileNetV2 0.35 at 96x96 took 3.4 ms"
            " instead of 0.36 on x86-64)"
        )
        yield Finding(SLOW, (), slow, happens, "use ai-edge-litert where it has a wheel")
    if "int16" in kinds:
        happens = "runs activations of 16 bits without XNNPACK: many times as long"
        yield Finding(SLOW, (), target.runtimes, happens, 'write form = "int8" where it will do')
    floats = list(known.float_tensors)
    if floats and {tensor.dtype for tensor in (*known.inputs, *known.outputs)} == {"int8"}:
        happens = f"takes and gives int8 and computes in float inside ({_few(floats)})"
        remedy = 'leave out fallback = "float" if speed matters more'
        yield Finding(NOTE, (), target.runtimes, happens, remedy)


def _edge_tpu(of: Mapping) -> list[Finding]:
    """Return what the Edge TPU's compiler will say; the operators one by one are in `of`."""
    from tfedge.boards.edgetpu import REFUSED
    from tfedge.boards.edgetpu_rules import MAPPED

    findings = [
        Finding(FAILS, (), (), f"edgetpu_compiler refuses it: {why}", "") for why in of.refused
    ]
    for one in of.operators:
        if one.status not in (MAPPED, REFUSED):
            place = f"{one.name} v{one.version} {one.output}"
            why = f"stays on the CPU: {one.status}" + (f" ({one.why})" if one.why else "")
            findings.append(Finding(SLOW, (place,), (), why, ""))
    if not of.mapped and not of.refused:
        findings.append(Finding(FAILS, (), (), "nothing of it runs on the Edge TPU", ""))
    return _merged(findings)


def _merged(findings: list[Finding]) -> list[Finding]:
    """Make one finding of those that differ in their operators only."""
    places: dict[Finding, list[str]] = defaultdict(list)
    for one in findings:
        places[replace(one, operators=())] += one.operators
    return [replace(one, operators=tuple(dict.fromkeys(of))) for one, of in places.items()]


def _place(operator: Operator, own: tuple[str, ...], subgraph: Subgraph) -> str:
    made = subgraph.tensors[operator.outputs[0]].name if operator.outputs else ""
    of = f"layer {own[0]!r}" if own else made
    return f"{operator.name} v{operator.version} of {of}" if of else operator.name


def _per_channel(operator: Operator, subgraph: Subgraph) -> bool:
    weights = [subgraph.tensors[index] for index in operator.inputs[1:2] if index >= 0]
    return operator.name == "FULLY_CONNECTED" and any(tensor.axis is not None for tensor in weights)


def _dtype(operator: Operator, subgraph: Subgraph) -> str:
    """Return the type of what an operator is fed."""
    fed: list[Tensor] = [subgraph.tensors[index] for index in operator.inputs[:1] if index >= 0]
    return fed[0].dtype if fed else ""


def _few(words: list[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more
