"""What a graph costs: parameters, multiply-accumulates, weights that are zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from tfedge.tflite.graph import Operator, Subgraph, Tensor

Shape = tuple[int, ...]

# The operand that an operator multiplies its input with, and the one that it adds.
_KERNEL = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "BATCH_MATMUL": 1,
}
_BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}

# Constants of other types than these are shapes, axes and paddings, unless they are a bias.
_LEARNED = frozenset(
    ("float64", "float32", "float16", "bfloat16", "int16", "int8", "uint8", "int4")
)

_MACS: dict[str, Callable[[list[Shape], Shape], int]] = {
    # Kernel [out, height, width, in]; with groups its last axis is one group's channels already.
    "CONV_2D": lambda inputs, output: prod(output) * prod(inputs[1][1:]),
    # Kernel [1, height, width, out].
    "DEPTHWISE_CONV_2D": lambda inputs, output: prod(output) * prod(inputs[1][1:3]),
    # Kernel [out, in].
    "FULLY_CONNECTED": lambda inputs, output: prod(output) * inputs[1][-1],
    # Kernel [out, height, width, in]: each of the input's values goes into this many outputs.
    "TRANSPOSE_CONV": lambda inputs, _: prod(inputs[2]) * prod(inputs[1][:3]),
    # [.., rows, inner] or its transpose; the output is [.., rows, columns].
    "BATCH_MATMUL": lambda inputs, output: prod(output) * (prod(inputs[0][-2:]) // output[-2]),
}


@dataclass(frozen=True)
class Weight:
    """A constant that an operator multiplies its input with.

    Attributes:
      operator: The first operator that reads it.
      zeros: Elements that stand for 0, which in int8 is the zero point; None where they are packed
        in a way that is not read here (int4, sparse).
    """

    name: str
    operator: str
    shape: Shape
    elements: int
    zeros: int | None


def macs(operator: Operator, subgraph: Subgraph) -> int:
    """Count an operator's multiply-accumulates.

    Convolution, depthwise and transposed convolution, fully connected and batch matmul count;
    everything else (pooling, additions, activations, LSTM cells) is 0.  Products with padding
    count as if it were there, as is the custom.
    """
    if operator.name not in _MACS:
        return 0
    inputs = [subgraph.tensors[index].shape if index >= 0 else () for index in operator.inputs]
    return _MACS[operator.name](inputs, subgraph.tensors[operator.outputs[0]].shape)


def parameters(subgraphs: tuple[Subgraph, ...]) -> int:
    """Count the elements of all learned constants.

    Learned is a constant operand of any operator (kernels, and the factors and addends of
    multiplications, additions, PReLU) unless it is int32, int64 or boolean: those are shapes, axes
    and paddings.  The bias of a convolution or fully connected layer counts in any type.  A content
    that is stored once counts once: the converter merges equal constants, such as two biases that
    are still all zero, and then this is below what Keras counts.
    """
    found: dict[int, int] = {}
    for subgraph in subgraphs:
        for operator in subgraph.operators:
            for operand, tensor in _constants(operator, subgraph):
                if tensor.dtype in _LEARNED or operand == _BIAS.get(operator.name):
                    found[tensor.buffer] = tensor.elements
    return sum(found.values())


def weights(subgraphs: tuple[Subgraph, ...]) -> tuple[Weight, ...]:
    """List the kernels, each stored content once, in the order in which they are first used.

    Biases, and the constants of additions and multiplications, are not among them.  A float16
    kernel that is widened as the model starts is listed as it is stored.
    """
    found: dict[int, Weight] = {}
    for subgraph in subgraphs:
        for operator, tensor in _kernels(subgraph):
            if tensor.constant and tensor.buffer not in found:
                found[tensor.buffer] = Weight(
                    tensor.name, operator, tensor.shape, tensor.elements, tensor.zeros
                )
    return tuple(found.values())


def _constants(operator: Operator, subgraph: Subgraph) -> Iterator[tuple[int, Tensor]]:
    for operand, index in enumerate(operator.inputs):
        if index >= 0 and subgraph.tensors[index].constant:
            yield operand, subgraph.tensors[index]


def kernel_operand(operator: Operator) -> int | None:
    """Return the place of what an operator multiplies its input with; None if it is none such."""
    return _KERNEL.get(operator.name)


def _kernels(subgraph: Subgraph) -> Iterator[tuple[str, Tensor]]:
    widened = {
        operator.outputs[0]: operator.inputs[0]
        for operator in subgraph.operators
        if operator.name == "DEQUANTIZE"
    }
    for operator in subgraph.operators:
        if operator.name in _KERNEL:
            index = operator.inputs[_KERNEL[operator.name]]
            yield operator.name, subgraph.tensors[widened.get(index, index)]
