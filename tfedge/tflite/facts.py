"""What is in a .tflite file, whoever made it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from tfedge.tflite import counts, graph
from tfedge.tflite.container import decoding, root, split
from tfedge.tflite.counts import Weight
from tfedge.tflite.graph import Operator, Signature, Subgraph, Tensor

EXIT = "exit_"
"""How the signatures of stages begin, see `staging`; their number follows."""


@dataclass(frozen=True)
class Sizes:
    """A file's bytes by part; they add up to the file.

    Attributes:
      weights: What tensors hold: kernels, biases, shapes and axes.
      structure: The rest of the flatbuffer: names, shapes, scales, padding, the data of custom
        operators (for the Edge TPU, that is nearly everything).
      metadata: TFLite's metadata inside the flatbuffer.
      card: The zip archive behind the flatbuffer.
    """

    weights: int
    structure: int
    metadata: int
    card: int

    @property
    def total(self) -> int:
        return self.weights + self.structure + self.metadata + self.card


@dataclass(frozen=True)
class Facts:
    """What is in a .tflite file.

    Attributes:
      signatures: In the file's order; a file from the Edge TPU's compiler has none.
      subgraphs: The first is what runs when no signature is named.
      macs: Multiply-accumulates of all subgraphs together, each once; see `counts.macs`.  Of a
        file of stages (`staging`), those of the whole network: the stages are it once more.
      parameters: Learned numbers; see `counts.parameters`.
      weights: What the MACs multiply with; see `counts.weights`.
    """

    signatures: tuple[Signature, ...]
    subgraphs: tuple[Subgraph, ...]
    sizes: Sizes
    macs: int
    parameters: int
    weights: tuple[Weight, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The first subgraph's inputs, in the interpreter's order."""
        return tuple(self.subgraphs[0].tensors[index] for index in self.subgraphs[0].inputs)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The first subgraph's outputs, in the interpreter's order."""
        return tuple(self.subgraphs[0].tensors[index] for index in self.subgraphs[0].outputs)

    @property
    def operators(self) -> dict[tuple[str, int], int]:
        """How often each operator, by name and version, occurs; the most frequent first."""
        found = Counter((operator.name, operator.version) for operator in self._all_operators())
        return dict(found.most_common())

    @property
    def custom_operators(self) -> tuple[str, ...]:
        """Names of operators that no plain runtime has; TensorFlow's own start with ``Flex``."""
        return tuple(dict.fromkeys(op.name for op in self._all_operators() if op.custom))

    @property
    def flex_operators(self) -> tuple[str, ...]:
        """Those of `custom_operators` that only a runtime with all of TensorFlow in it has."""
        return tuple(name for name in self.custom_operators if name.startswith("Flex"))

    @property
    def float_tensors(self) -> tuple[str, ...]:
        """Names of all tensors in floating point; in a full-int8 model there is none.

        One that no operator reads or makes is none: an LSTM's notes on its own inner scales.
        """
        return tuple(
            subgraph.tensors[index].name
            for subgraph in self.subgraphs
            for index in sorted(used(subgraph))
            if "float" in subgraph.tensors[index].dtype
        )

    @property
    def zero_weights(self) -> float | None:
        """Share of `weights` that is 0, from 0 to 1; None where no weight can be counted."""
        counted = [weight for weight in self.weights if weight.zeros is not None]
        elements = sum(weight.elements for weight in counted)
        return sum(weight.zeros or 0 for weight in counted) / elements if elements else None

    def _all_operators(self) -> list[Operator]:
        return [operator for subgraph in self.subgraphs for operator in subgraph.operators]


def facts(blob: bytes, where: object) -> Facts:
    """Read a .tflite file, with or without a card.

    Args:
      where: What an error calls the file.

    Raises:
      UserError: The file is none of TFLite's, is cut off or is damaged.
    """
    flatbuffer, archive = split(blob)
    with decoding(where):
        read = graph.read(root(flatbuffer, where))
        stages = {of.subgraph for of in read.signatures if of.name.startswith(EXIT)} - {0}
        own = [of for number, of in enumerate(read.subgraphs) if number not in stages]
        return Facts(
            signatures=read.signatures,
            subgraphs=read.subgraphs,
            sizes=_sizes(read, len(flatbuffer), len(archive)),
            macs=sum(counts.macs(operator, graph) for graph in own for operator in graph.operators),
            parameters=counts.parameters(read.subgraphs),
            weights=counts.weights(read.subgraphs),
        )


def summary(of: Facts) -> dict[str, Any]:
    """Return the facts as JSON takes them; a share that cannot be counted is absent."""
    zeros = {} if of.zero_weights is None else {"zero_weights": of.zero_weights}
    return {
        "bytes": {**asdict(of.sizes), "total": of.sizes.total},
        "parameters": of.parameters,
        "macs": of.macs,
        **zeros,
        "signatures": [
            {
                "name": signature.name,
                "subgraph": signature.subgraph,
                "inputs": {name: _tensor(end) for name, end in signature.inputs.items()},
                "outputs": {name: _tensor(end) for name, end in signature.outputs.items()},
            }
            for signature in of.signatures
        ],
        "operators": [
            {"name": name, "version": version, "count": count}
            for (name, version), count in of.operators.items()
        ],
        "custom_operators": list(of.custom_operators),
        "float_tensors": list(of.float_tensors),
        "weights": [
            _present({**asdict(weight), "shape": list(weight.shape)}) for weight in of.weights
        ],
        "subgraphs": [_subgraph(subgraph) for subgraph in of.subgraphs],
    }


def used(of: Subgraph) -> set[int]:
    """Return the numbers of all tensors that are an end of the graph or of an operator."""
    ends = [of.inputs, of.outputs, *(end for op in of.operators for end in (op.inputs, op.outputs))]
    return {index for end in ends for index in end if index >= 0}


def _sizes(read: graph.Graph, flatbuffer: int, archive: int) -> Sizes:
    metadata = set(read.metadata)
    held = {tensor.buffer for subgraph in read.subgraphs for tensor in subgraph.tensors} - metadata
    weights = sum(read.buffers[number] for number in held)
    described = sum(read.buffers[number] for number in metadata)
    if weights + described > flatbuffer:
        raise ValueError("its parts are larger than the whole")
    return Sizes(weights, flatbuffer - weights - described, described, archive)


def _subgraph(of: Subgraph) -> dict[str, Any]:
    return {
        "name": of.name,
        "inputs": list(of.inputs),
        "outputs": list(of.outputs),
        "operators": [
            {
                "name": operator.name,
                "version": operator.version,
                "output": of.tensors[operator.outputs[0]].name if operator.outputs else "",
                "macs": counts.macs(operator, of),
            }
            for operator in of.operators
        ],
        "tensors": [_tensor(tensor) for tensor in of.tensors],
    }


def _tensor(of: Tensor) -> dict[str, Any]:
    plain = {"name": of.name, "dtype": of.dtype, "shape": list(of.shape), "constant": of.constant}
    if not of.scales:
        return plain
    quantised = {"scales": list(of.scales), "zero_points": list(of.zero_points), "axis": of.axis}
    return {**plain, **_present(quantised)}


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
