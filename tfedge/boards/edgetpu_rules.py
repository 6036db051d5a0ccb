"""What the Edge TPU's compiler takes of each operator, as a table of rules.

Sources, by the short names of the comments below:

- *table*: "Supported operations" of coral.ai/docs/edgetpu/models-intro, for compiler 16.0; a copy
  of most of it is at developer.axis.com (ARTPEC-7, supported ops).
- *#N*: issue N of github.com/google-coral/edgetpu, where users show the compiler's logs.
- *pairs*: models before and after the compiler in github.com/google-coral/test_data.

The compiler is not open: what no source says is marked as an estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ai_edge_litert import schema_py_generated as schema

from tfedge.tflite.graph import Operator, Subgraph, Tensor

MAPPED = "Mapped to Edge TPU"
NOT_SUPPORTED = "Operation not supported"
VERSION = "Operation version not supported"
DATA_TYPE = "Operation is working on an unsupported data type"
LIMITATION = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
LATER = "More than one subgraph is not supported"

NEWEST_OPERATOR = schema.BuiltinOperator.CONV_3D_TRANSPOSE
"""The last that TensorFlow 2.6 knew; the compiler's file reader is about as old (July 2021)."""

_NEWEST = {
    "ADD": 4,
    "ARG_MAX": 3,
    "ARG_MIN": 3,
    "AVERAGE_POOL_2D": 3,
    "BATCH_MATMUL": 4,
    "CAST": 4,
    "CONCATENATION": 3,
    "CONV_2D": 5,  # 6 is refused, #631
    "DEPTHWISE_CONV_2D": 6,
    "DEPTH_TO_SPACE": 2,
    "DEQUANTIZE": 5,
    "DIV": 2,
    "FULLY_CONNECTED": 9,
    "GATHER": 5,
    "GATHER_ND": 3,
    "L2_NORMALIZATION": 2,
    "LEAKY_RELU": 2,
    "LOGISTIC": 3,
    "LOG_SOFTMAX": 2,
    "LSTM": 4,
    "MAXIMUM": 4,
    "MAX_POOL_2D": 3,
    "MEAN": 3,
    "MINIMUM": 4,
    "MIRROR_PAD": 2,
    "MUL": 6,
    "PACK": 3,
    "PAD": 4,
    "PADV2": 4,
    "QUANTIZE": 2,  # 3 is refused, #879
    "REDUCE_MAX": 3,
    "REDUCE_MIN": 3,
    "RELU": 3,
    "RELU6": 3,
    "RESIZE_BILINEAR": 4,
    "RESIZE_NEAREST_NEIGHBOR": 4,
    "REVERSE_V2": 3,
    "RSQRT": 2,
    "SLICE": 5,
    "SOFTMAX": 3,
    "SPACE_TO_DEPTH": 2,
    "SPLIT": 4,
    "SPLIT_V": 2,
    "SQUARED_DIFFERENCE": 2,
    "SQUEEZE": 2,
    "STRIDED_SLICE": 6,
    "SUB": 5,
    "SUM": 2,
    "TANH": 3,
    "TILE": 3,
    "TOPK_V2": 2,
    "TRANSPOSE": 5,
    "TRANSPOSE_CONV": 3,  # 4 is refused, #845
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 3,
    "UNPACK": 4,
}
"""Newest version that the compiler reads; 1 where it is not listed (EXP 2: libedgetpu issue 71).

From TensorFlow's register.cc of mid-2021 to 2022, made stricter where users show a refusal; an int8
network needs none of the versions about which the two could differ.
"""

SOFTMAX_MOST = 16_000  # table
RESIZE_FACTOR_MOST = 4  # estimate: 2 is mapped (#512's yolov5), 16 and 33 are not (pairs)
RESIZE_SIDE_MOST = 255  # estimate: 128 is mapped, 256 and 512 are not (#31, #187)
MEAN_PIXELS_MOST = 16_384  # estimate: 64 x 128 is mapped, 256 x 128 is not (#461)
_MEAN_CHANNELS = 4  # table: a mean over channels needs a multiple of it
_INNER = 3

_EIGHT_BITS = ("int8", "uint8")
_CONSTANTS = (*_EIGHT_BITS, "int32", "int64", "bool")  # biases, axes and masks among them
_FUSED = {
    value: name
    for name, value in vars(schema.ActivationFunctionType).items()
    if isinstance(value, int)
}
_FUSABLE = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")


@dataclass(frozen=True)
class Step:
    """An operator with its tensors; an absent input is left out of `inputs`."""

    operator: Operator
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def given(self) -> tuple[Tensor, ...]:
        """The inputs that are worked out when the model runs."""
        return tuple(tensor for tensor in self.inputs if not tensor.constant)

    def fixed(self, name: str) -> tuple[int, ...]:
        """Return the numbers in the last input, which is axes or paddings, or raise LookupError."""
        if not self.inputs[-1].values:
            raise LookupError(f"its {name} are worked out when the model runs")
        return self.inputs[-1].values


def steps(subgraph: Subgraph) -> Iterator[Step]:
    """Yield the operators in the order in which they run."""
    for operator in subgraph.operators:
        yield Step(
            operator,
            tuple(subgraph.tensors[index] for index in operator.inputs if index >= 0),
            tuple(subgraph.tensors[index] for index in operator.outputs),
        )


def verdict(step: Step) -> tuple[str, str]:
    """Return the status that the compiler gives an operator by itself, and why.

    Why is empty for one that it maps.
    """
    name = step.operator.name
    odd = _odd_type(step)
    if name == "QUANTIZE" and odd.startswith("float"):
        return LIMITATION, "it quantises a float input; that stays on the CPU"
    if odd:
        return DATA_TYPE, f"it works on {odd}; the Edge TPU calculates in int8 and uint8 only"
    if name not in RULES:
        return NOT_SUPPORTED, f"the Edge TPU has no {name}"
    for tensor in (*step.given, *step.outputs):
        if any(size > 1 for size in tensor.shape[:-_INNER]):
            return RANK, f"{list(tensor.shape)} has more than 3 axes longer than 1; use batch 1"
    why = _fused(step) or RULES[name](step)
    return (LIMITATION, why) if why else (MAPPED, "")


def too_new(operator: Operator) -> bool:
    """Say whether the compiler stops at this operator because it is newer than itself."""
    if operator.custom:
        return False
    number = getattr(schema.BuiltinOperator, operator.name)
    return number > NEWEST_OPERATOR or operator.version > _NEWEST.get(operator.name, 1)


def newest(operator: Operator) -> int:
    """Return the newest version of an operator that the compiler reads, 0 for none."""
    number = getattr(schema.BuiltinOperator, operator.name)
    return 0 if number > NEWEST_OPERATOR else _NEWEST.get(operator.name, 1)


def _odd_type(step: Step) -> str:
    """Name the type of a tensor that the Edge TPU does not take; empty for none.

    An LSTM keeps its cell in int16 between its own steps.
    """
    own = ("int16",) if "LSTM" in step.operator.name else ()
    ends = [end.dtype for end in (*step.given, *step.outputs) if end.dtype not in _EIGHT_BITS]
    held = [end.dtype for end in step.inputs if end.constant and end.dtype not in _CONSTANTS]
    return next((dtype for dtype in (*ends, *held) if dtype not in own), "")


def _fused(step: Step) -> str:
    name = _FUSED.get(step.operator.options.get("fusedActivationFunction", 0), "an unknown one")
    return "" if "LSTM" in step.operator.name or name in _FUSABLE else f"{name} is fused into it"


def _free(_: Step) -> str:
    return ""


def _no_activation(step: Step) -> str:
    fused = step.operator.options.get("fusedActivationFunction", 0)
    return f"an activation, {_FUSED[fused]}, is fused into it" if fused else ""


def _concatenation(step: Step) -> str:
    constants = [tensor for tensor in step.inputs if tensor.constant]
    if constants and len(step.inputs) != 2:  # noqa: PLR2004 - table: exactly 2
        return f"a constant is joined to {len(step.inputs) - 1} others; it takes one"
    if any(tensor.zeros != tensor.elements for tensor in constants):
        return "the constant that it joins is not all zeros"
    return _no_activation(step)


def _dilation(step: Step) -> str:
    options = step.operator.options
    x, y = options.get("dilationWFactor", 1), options.get("dilationHFactor", 1)
    return "" if x == y else f"its dilation is {x} in x and {y} in y; they must be equal"


def _constant_kernel(step: Step) -> str:
    kernel = step.inputs[1]
    return "" if kernel.constant else f"its weights, {kernel.name}, are not constant"


def _convolution(step: Step) -> str:
    return _constant_kernel(step) or _dilation(step)


def _dense(step: Step) -> str:
    if step.operator.options.get("weightsFormat", 0):
        return "its weights are shuffled; the default format is needed"
    (output,) = step.outputs
    if any(size > 1 for size in output.shape[:-1]):
        return f"its output is {list(output.shape)}; all but the last axis must be 1"
    return _constant_kernel(step)


def _reduced(step: Step) -> tuple[int, ...]:
    rank = len(step.inputs[0].shape)
    return tuple(axis % rank for axis in step.fixed("axes"))


def _not_batch(step: Step) -> str:
    return "it works along the batch" if 0 in _reduced(step) else ""


def _mean(step: Step) -> str:
    shape, axes = step.inputs[0].shape, _reduced(step)
    last = len(shape) - 1
    if last in axes and shape[-1] % _MEAN_CHANNELS:
        return f"a mean over channels needs a multiple of {_MEAN_CHANNELS}, here are {shape[-1]}"
    area = 1
    for axis in set(axes) - {0, last}:
        area *= shape[axis]
    if area > MEAN_PIXELS_MOST:
        return f"the mean of {area:,} pixels; up to about {MEAN_PIXELS_MOST:,} were seen mapped"
    return _not_batch(step)


def _pack(step: Step) -> str:
    rank = len(step.outputs[0].shape)
    return "it packs along the batch" if step.operator.options["axis"] % rank == 0 else ""


def _pad(step: Step) -> str:
    return "it pads the batch" if any(step.fixed("paddings")[:2]) else ""


def _prelu(step: Step) -> str:
    alpha = step.inputs[1]
    if any(size > 1 for size in alpha.shape[:-1]):
        return f"its alpha is {list(alpha.shape)}; use one a channel: PReLU(shared_axes=[1, 2])"
    return _constant_kernel(step)


def _resize(step: Step) -> str:
    (_, height, width, _), (_, new_height, new_width, _) = (
        step.inputs[0].shape,
        step.outputs[0].shape,
    )
    factor, side = max(new_height / height, new_width / width), max(new_height, new_width)
    if factor > RESIZE_FACTOR_MOST:
        return f"it enlarges {factor:g} times; up to about {RESIZE_FACTOR_MOST} are mapped"
    if side > RESIZE_SIDE_MOST:
        return f"it makes {side} pixels a side; up to about {RESIZE_SIDE_MOST} are mapped"
    return ""


def _softmax(step: Step) -> str:
    shape = step.outputs[0].shape
    if any(size > 1 for size in shape[:-1]):
        return f"its output is {list(shape)}; all but the last axis must be 1"
    return "" if shape[-1] <= SOFTMAX_MOST else f"{shape[-1]:,} values, of at most {SOFTMAX_MOST:,}"


def _split(step: Step) -> str:
    axis, value = step.inputs
    if not axis.values:
        return "its axis is worked out when the model runs"
    return "it splits the batch" if axis.values[0] % len(value.shape) == 0 else ""


def _strided_slice(step: Step) -> str:
    if set(step.fixed("strides")) != {1}:
        return f"its strides are {list(step.fixed('strides'))}; all must be 1"
    masks = [name for name in ("ellipsisMask", "newAxisMask") if step.operator.options.get(name)]
    return f"it has {' and '.join(masks)}" if masks else ""


def _or_unknown(rule: Callable[[Step], str]) -> Callable[[Step], str]:
    """Turn what is missing to decide into a reason of its own."""

    def checked(step: Step) -> str:
        try:
            return rule(step)
        except LookupError as unknown:
            return str(unknown)

    return checked


RULES: dict[str, Callable[[Step], str]] = {
    # Each says why an operator of 8 bits and up to 3 axes is not mapped, by the table.
    "ADD": _free,
    "AVERAGE_POOL_2D": _no_activation,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "EXPAND_DIMS": _free,
    "FULLY_CONNECTED": _dense,
    "L2_NORMALIZATION": _free,
    "LOGISTIC": _free,
    "LSTM": _free,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _free,  # pairs: an LSTM for MNIST is mapped whole
    "MAXIMUM": _free,
    "MAX_POOL_2D": _no_activation,
    "MEAN": _or_unknown(_mean),
    "MINIMUM": _free,
    "MUL": _free,
    "PACK": _pack,
    "PAD": _or_unknown(_pad),
    "PRELU": _prelu,
    "QUANTIZE": _free,  # of 8 bits to 8 bits; that of floats is told apart in `verdict`
    "REDUCE_MAX": _or_unknown(_not_batch),
    "REDUCE_MIN": _or_unknown(_not_batch),
    "RELU": _free,
    "RELU6": _free,
    "RELU_N1_TO_1": _free,
    "RESHAPE": _free,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "RSQRT": _free,
    "SLICE": _free,
    "SOFTMAX": _softmax,
    "SPACE_TO_DEPTH": _free,
    "SPLIT": _split,  # SPLIT_V is not in the table
    "SQUEEZE": _free,
    "STRIDED_SLICE": _or_unknown(_strided_slice),
    "SUB": _free,
    "SQUARED_DIFFERENCE": _free,
    "SUM": _or_unknown(_not_batch),
    "TANH": _free,
    "TRANSPOSE": _free,  # 16.0 has it, though large ones were refused (#433)
    "TRANSPOSE_CONV": _constant_kernel,  # its kernel is input 1 too
}
