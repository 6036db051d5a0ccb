"""Keep a few layers out of int8: two files of one network made into one.

`mixed` takes the operators of some layers from a file in int16 or float and all others from the
int8 file, and puts QUANTIZE or DEQUANTIZE where a value goes from one to the other.  `fewest` looks
for as few layers as bring the accuracy that is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfedge.errors import UserError
from tfedge.tflite import names
from tfedge.tflite.comparison import flow_of
from tfedge.tflite.container import split
from tfedge.tflite.flow import Flow
from tfedge.tflite.names import Layers
from tfedge.tflite.running import packed, unpacked

_REMEDY = 'train with use = "qat", or raise max_drop'
_INT8, _INT16, _FLOAT = (getattr(schema.TensorType, name) for name in ("INT8", "INT16", "FLOAT32"))
_VERSION = "min_runtime_version"


@dataclass(frozen=True)
class Twins:
    """One network in two files.

    Attributes:
      int8: A full-int8 .tflite without a card.
      finer: The same network in int16 with int8 weights, or in float32.
      layers: The network's, see `names.of_network`.
      outside: Those that are out of int8 in every mixture.
    """

    int8: bytes
    finer: bytes
    layers: Layers
    outside: tuple[str, ...] = ()

    @cached_property
    def flows(self) -> tuple[Flow, Flow]:
        return flow_of(self.int8, "the int8 file"), flow_of(self.finer, "the finer file")

    @cached_property
    def owners(self) -> dict[int, str]:
        """The layer that each step of the int8 file belongs to, by the step's number."""
        flow = self.flows[0]
        fused = names.of_operators(flow.subgraph, self.layers)
        return {step: fused[step][0] for step in flow.steps if fused[step]}

    def with_readers(self, layer: str) -> tuple[str, ...]:
        """Name a layer and those that read what it makes, up to where its channels are mixed.

        What a layer answers stays fine only for readers that are out of int8 with it.
        """
        flow = self.flows[0]
        own = [step for step, owner in self.owners.items() if owner == layer]
        way = [other for step in own for other in flow.until_mixed(step)[0]]
        return tuple(dict.fromkeys(self.owners[s] for s in (*own, *way) if s in self.owners))


@dataclass(frozen=True)
class Kept:
    """What `fewest` found.

    Attributes:
      flatbuffer: The mixed model.
      layers: Those that were taken out of int8, in that order.
      accuracy: Of the mixed model, as it was measured.
      extra_bytes: What it is larger than the int8 model.
      measured: How many models were measured.
    """

    flatbuffer: bytes
    layers: tuple[str, ...]
    accuracy: float
    extra_bytes: int
    measured: int


def mixed(twins: Twins, kept: Collection[str]) -> bytes:
    """Return a .tflite with the layers `kept` as in the finer file and all others in int8.

    Input and output, signature and metadata are the int8 file's.  A layer that was fused into
    another goes with it.

    Raises:
      UserError: The two files do not hold the same operators in the same order.
    """
    kept = (*twins.outside, *kept)
    known = set(twins.owners.values())
    if strange := [layer for layer in kept if layer not in known]:
        raise UserError("fallback", f"no operator of the file is layer {strange[0]!r}")
    pairs = _aligned(*twins.flows)
    return _Weaving(twins).woven(
        {step: pairs[step] for step, owner in twins.owners.items() if owner in set(kept)}, pairs
    )


def fewest(
    twins: Twins,
    candidates: Sequence[str],
    measure: Callable[[bytes], float],
    wanted: float,
    *,
    tried: int = 6,
    rounds: int = 4,
) -> Kept:
    """Take layers out of int8, one after another, until the accuracy is what is wanted.

    Greedy: a round measures each of the first few candidates together with the layers that read it
    (`Twins.with_readers`), on top of what is out already, and takes the one that gains most; of
    those that are good enough, the one that costs the fewest bytes.  Where none gains, the first is
    taken: two layers may be at fault at once.  What is enough is then gone through backwards, for
    layers that can return to int8.

    Args:
      candidates: Layers, the worst first, as `comparison.compare` ranks them; those that no
        operator belongs to are passed over.
      measure: Returns the accuracy of a model, 0 to 1, on tune data.
      wanted: Least accuracy, 0 to 1.
      tried: Candidates of a round.
      rounds: After so many it ends, whatever was reached.  So at most ``1 + tried * (rounds + 1)``
        models are measured.

    Returns:
      The best that was found; whether its accuracy is enough is for the caller to see.
    """
    count = 0

    def trial(layers: tuple[str, ...]) -> Kept:
        nonlocal count
        count += 1
        model = mixed(twins, layers) if layers or twins.outside else twins.int8
        return Kept(model, layers, measure(model), len(model) - len(twins.int8), count)

    best = trial(())
    owners = set(twins.owners.values())
    for _ in range(rounds):
        left = [
            name for name in candidates if name in owners.difference(twins.outside, best.layers)
        ]
        if best.accuracy >= wanted or not left:
            break
        readers = [twins.with_readers(layer) for layer in left[:tried]]
        trials = [trial(tuple(dict.fromkeys((*best.layers, *more)))) for more in readers]
        enough = [one for one in trials if one.accuracy >= wanted]
        best = max(trials, key=lambda one: one.accuracy)
        best = min(enough, key=lambda one: one.extra_bytes, default=best)
    for layer in best.layers[::-1][:tried] if best.accuracy >= wanted else ():
        fewer = trial(tuple(name for name in best.layers if name != layer))
        if fewer.accuracy >= wanted:
            best = fewer
    return replace(best, measured=count)


def _aligned(int8: Flow, finer: Flow) -> dict[int, int]:
    """Pair all steps of two files one by one, or refuse."""
    kinds = [[flow.operator(step).name for step in flow.steps] for flow in (int8, finer)]
    if kinds[0] != kinds[1]:
        place = next(
            (i for i, (a, b) in enumerate(zip(*kinds, strict=False)) if a != b),
            min(map(len, kinds)),
        )
        words = [names_[place] if place < len(names_) else "nothing" for names_ in kinds]
        problem = f"operator {place} is {words[0]} in int8 and {words[1]} in the finer form"
        raise UserError("fallback", f"the converter made other operators: {problem}", _REMEDY)
    return dict(zip(int8.steps, finer.steps, strict=True))


@dataclass
class _Weaving:
    """A model that grows from the operators of two files; 0 is the int8 one, 1 the finer."""

    twins: Twins
    made: dict[tuple[int, int], int] = field(default_factory=dict)
    native: dict[int, tuple[int, int]] = field(default_factory=dict)
    buffers: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.flows = self.twins.flows
        self.models = [unpacked(split(b)[0]) for b in (self.twins.int8, self.twins.finer)]
        if any(len(model.subgraphs) > 1 for model in self.models):
            problem = "a network with loops or branches in it cannot be mixed"
            raise UserError("fallback", problem, _REMEDY)
        self.graphs = [model.subgraphs[0] for model in self.models]
        self.out: Any = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[])
        self.sub: Any = schema.SubGraphT(tensors=[], operators=[], name=self.graphs[0].name)

    def woven(self, kept: dict[int, int], pairs: dict[int, int]) -> bytes:
        """Return the model with the steps `kept` of the finer file in place of the int8 ones."""
        same = self._same_values(pairs)
        for index in self.graphs[0].inputs:
            self.native[index] = (0, self._tensor(0, index))
        for step in self.flows[0].steps:
            file, number = (1, kept[step]) if step in kept else (0, step)
            operator = self.graphs[file].operators[number]
            inputs = [self._operand(file, index, same) for index in operator.inputs]
            outputs = [self._tensor(file, index) for index in operator.outputs]
            for value, own in zip(self.graphs[0].operators[step].outputs, outputs, strict=True):
                self.native[value] = (file, own)
            self._append(operator, self.models[file].operatorCodes[operator.opcodeIndex],
                         (inputs, outputs))  # fmt: skip
        self.sub.inputs = [self._tensor(0, index) for index in self.graphs[0].inputs]
        self.sub.outputs = [self._operand(0, index, same) for index in self.graphs[0].outputs]
        self._rest()
        return packed(self.out)

    def _same_values(self, pairs: dict[int, int]) -> dict[tuple[int, int], int]:
        """Map every value that depends on the input, (file, root), to its root in the int8 file."""
        ends = (flow.values(-1) for flow in self.flows)
        lists = [tuple(ends)]
        lists += [
            (self.flows[0].values(ours), self.flows[1].values(theirs))
            for ours, theirs in pairs.items()
        ]
        same: dict[tuple[int, int], int] = {}
        for ours, theirs in lists:
            for own, other in zip(ours, theirs, strict=True):
                same |= {(0, own): own, (1, other): own}
        return same

    def _operand(self, file: int, index: int, same: dict[tuple[int, int], int]) -> int:
        """Return a tensor of the new graph that holds what an operator of `file` reads."""
        if index < 0:
            return -1
        flow = self.flows[file]
        root = flow.roots[index]
        value = same.get((file, root))
        if value is None or root not in flow.makers:
            return self._constant(file, index, root)
        source = self.native[value][1]
        if (file, index) in self.made:
            return self.made[file, index]
        wanted = self.graphs[file].tensors[index]
        if _like(self.sub.tensors[source], wanted):
            return source
        target = self._tensor(file, index)
        self._seam(source, target)
        return target

    def _constant(self, file: int, index: int, root: int) -> int:
        """Return a constant, which the file may hold in another type than it is read in."""
        tensors = self.graphs[file].tensors
        if root == index or (file, index) in self.made:
            return self._tensor(file, index)
        if _like(tensors[root], tensors[index]):
            return self._tensor(file, root)
        self._seam(self._tensor(file, root), self._tensor(file, index))
        return self._tensor(file, index)

    def _tensor(self, file: int, index: int) -> int:
        if (file, index) not in self.made:
            tensor = self.graphs[file].tensors[index]
            key = (file, tensor.buffer)
            if key not in self.buffers and self._content(file, tensor.buffer) is not None:
                self.buffers[key] = len(self.out.buffers)
                self.out.buffers.append(self.models[file].buffers[tensor.buffer])
            tensor.buffer = self.buffers.get(key, 0)
            self.made[file, index] = len(self.sub.tensors)
            self.sub.tensors.append(tensor)
        return self.made[file, index]

    def _content(self, file: int, buffer: int) -> Any:
        data = self.models[file].buffers[buffer].data
        return data if data is not None and len(data) else None

    def _seam(self, source: int, target: int) -> None:
        """Add the operator that writes a value in another type or with another scale."""
        kinds = {self.sub.tensors[i].type for i in (source, target)}
        to_float = self.sub.tensors[target].type == _FLOAT
        number = schema.BuiltinOperator.DEQUANTIZE if to_float else schema.BuiltinOperator.QUANTIZE
        # As op_version.cc of TensorFlow has them.
        version = (3 if _INT16 in kinds else 2) if to_float else (2 if _INT16 in kinds else 1)
        code = schema.OperatorCodeT(number, builtinCode=number, version=version)
        options = schema.DequantizeOptionsT() if to_float else schema.QuantizeOptionsT()
        kind = "DequantizeOptions" if to_float else "QuantizeOptions"
        operator = schema.OperatorT(
            builtinOptions=options, builtinOptionsType=getattr(schema.BuiltinOptions, kind)
        )
        self._append(operator, code, ([source], [target]))

    def _append(self, operator: Any, code: Any, ends: tuple[list[int], list[int]]) -> None:
        alike = [
            place for place, other in enumerate(self.out.operatorCodes) if vars(other) == vars(code)
        ]
        if not alike:
            self.out.operatorCodes.append(code)
        operator.opcodeIndex = alike[0] if alike else len(self.out.operatorCodes) - 1
        operator.inputs, operator.outputs = ends
        self.sub.operators.append(operator)

    def _rest(self) -> None:
        """Take description, metadata and signatures over from the int8 file."""
        old = self.models[0]
        self.out.subgraphs, self.out.description = [self.sub], old.description
        newest = max((_runtime(model) for model in self.models), key=_as_numbers)
        self.out.metadata = []
        for entry in old.metadata or []:
            data = old.buffers[entry.buffer].data
            if entry.name.decode() == _VERSION:
                data = np.frombuffer(newest.encode().ljust(16, b"\0"), np.uint8)
            self.out.buffers.append(schema.BufferT(data=data))
            place = len(self.out.buffers) - 1
            self.out.metadata.append(schema.MetadataT(name=entry.name, buffer=place))
        self.out.signatureDefs = old.signatureDefs
        ends = dict(zip(self.graphs[0].outputs, self.sub.outputs, strict=True))
        ends |= dict(zip(self.graphs[0].inputs, self.sub.inputs, strict=True))
        for signature in old.signatureDefs or []:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = ends[entry.tensorIndex]


def _like(source: Any, wanted: Any) -> bool:
    """Whether two tensors write numbers in the same way."""
    if source.type != wanted.type:
        return False
    if source.type == _FLOAT:
        return True

    def scale(tensor: Any) -> tuple[list[float], list[int]]:
        of = tensor.quantization
        return np.asarray(of.scale).tolist(), np.asarray(of.zeroPoint).tolist()

    return scale(source) == scale(wanted)


def _runtime(model: Any) -> str:
    for entry in model.metadata or []:
        if entry.name.decode() == _VERSION:
            return bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode()
    return "0"


def _as_numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]
