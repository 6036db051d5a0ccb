"""Biases that make up for the mean of the rounding errors.

Rounding a layer's weights moves the mean of what it answers, each channel by its own amount, and so
does all that was rounded before it.  A mean can be taken out through the bias, which costs nothing
when the network runs (Nagel et al. 2019, section 4.2, https://arxiv.org/abs/1906.04721; measured on
data, as in Nagel et al. 2021, section 3.2, https://arxiv.org/abs/2106.08295).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from tfedge.errors import UserError
from tfedge.tflite.running import Run, packed, unpacked

_WEIGHTED = (
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
)
_BIAS = 2  # the operand's place, in all three
_TYPES: dict[int, Any] = {
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}
_LEAST_OPEN = 0.1  # with less, the mean says little of what a bias would do

_Reals = npt.NDArray[np.float64]


def with_corrected_biases(quantised: bytes, float32: bytes, samples: np.ndarray) -> bytes:
    """Move a quantised file's biases to where its layers' means are those of the float file.

    This goes layer by layer in the order of execution, so that each makes up for what is left of
    the errors before it.  Means are of what a layer answers, after the activation that is part of
    it: where that cuts off a share of a channel's values, the bias has to move further by as much,
    as it moves only the others.  A channel keeps its old bias if the new one does not lower the
    channel's mean squared error.  A dense layer whose biases are all 0 has none in the file, and is
    left out.

    Args:
      quantised: int8 or int16x8; layers that were kept in float are left as they are.
      float32: The file that it was made of (`calibration.calibrated`), or `conversion.to_float` of
        the same network.
      samples: Float32 [count, ...], normalised, such as those of the calibration.

    Returns:
      The quantised file, all but its biases as it was.

    Raises:
      UserError: The layers with weights of the two files do not belong together.
    """
    file, reference = unpacked(quantised), unpacked(float32)
    _check_pairs(file, reference)
    layers = [
        _layer(file, operator, int(twin.outputs[0]))
        for operator, twin in zip(_weighted(file), _weighted(reference), strict=True)
    ]
    blob = bytearray(_with_own_biases(quantised, file))
    truth = Run(float32)

    def measured(place: int) -> list[_Difference]:
        # The layer behind as well: if this one is settled then, its turn starts with that.
        return _differences(truth, Run(bytes(blob)), layers[place : place + 2], samples)

    found = None
    for place, operator in enumerate(_weighted(unpacked(bytes(blob)))):
        bias = _bias(blob, operator)
        if bias is None:
            found = None
        else:
            found = _settle(bias, found or measured(place)[0], partial(measured, place))
    return bytes(blob)


@dataclass(frozen=True)
class _Layer:
    """An operator with weights: what it makes in either file, and its activation's bounds there."""

    output: int
    twin: int
    least: float
    most: float


@dataclass(frozen=True)
class _Difference:
    """Float less quantised answer of a layer, each float64 [channels].

    Attributes:
      open: Share of values that are not at an end of the range, so that a bias moves them.
    """

    mean: _Reals
    square: _Reals
    open: _Reals


@dataclass(frozen=True)
class _Bias:
    """A layer's biases as integers: a view into the file that is changed in place."""

    steps: npt.NDArray[Any]
    scales: _Reals


def _settle(
    bias: _Bias, found: _Difference, measured: Callable[[], list[_Difference]]
) -> _Difference | None:
    """Correct one layer's biases where that helps.

    Args:
      found: The layer's difference before.
      measured: Measures the layer and the one behind it, as they are when it is called.

    Returns:
      The difference of the layer behind, if it is known.
    """
    old = bias.steps.copy()
    limit = np.iinfo(old.dtype)
    moves = np.rint(found.mean / np.maximum(found.open, _LEAST_OPEN) / bias.scales)
    bias.steps[:] = np.clip(old + moves, limit.min, limit.max).astype(old.dtype)
    after, *behind = measured()
    helps = after.square < found.square
    bias.steps[:] = np.where(helps, bias.steps, old)
    return behind[0] if behind and helps.all() else None


def _differences(
    truth: Run, run: Run, layers: list[_Layer], samples: np.ndarray
) -> list[_Difference]:
    sums: list[list[_Reals]] = [[] for _ in layers]
    for sample in samples:
        truth.feed(sample)
        run.feed(sample)
        for layer, rows in zip(layers, sums, strict=True):
            raw = run.raw(layer.output)
            error = truth.value(layer.twin).astype(np.float64) - run.value(layer.output)
            moving = (raw > layer.least) & (raw < layer.most)
            channels = [part.reshape(-1, raw.shape[-1]) for part in (error, error**2, moving)]
            rows.append(np.stack([part.mean(axis=0) for part in channels]))
    return [_Difference(*np.mean(rows, axis=0)) for rows in sums]


def _weighted(file: schema.ModelT) -> list[schema.OperatorT]:
    return [
        operator
        for operator in file.subgraphs[0].operators
        if file.operatorCodes[operator.opcodeIndex].builtinCode in _WEIGHTED
    ]


def _check_pairs(file: schema.ModelT, reference: schema.ModelT) -> None:
    kinds = [
        [
            (
                of.operatorCodes[operator.opcodeIndex].builtinCode,
                *of.subgraphs[0].tensors[operator.outputs[0]].shape,
            )
            for operator in _weighted(of)
        ]
        for of in (file, reference)
    ]
    if kinds[0] != kinds[1]:
        problem = (
            f"the quantised file has {len(kinds[0])} layers with weights, the float file"
            f" {len(kinds[1])}, and their kinds or sizes do not agree"
        )
        fix = "give the float file that the quantised one was made of"
        raise UserError("bias correction", problem, fix)


def _layer(file: schema.ModelT, operator: schema.OperatorT, twin: int) -> _Layer:
    """Find the raw values at which the activation inside an operator, or its range, cuts off."""
    output = int(operator.outputs[0])
    tensor = file.subgraphs[0].tensors[output]
    if tensor.type not in _TYPES:
        return _Layer(output, twin, -np.inf, np.inf)
    limit, kinds = np.iinfo(_TYPES[tensor.type]), schema.ActivationFunctionType
    scale, zero = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    low, high = {
        kinds.NONE: (-np.inf, np.inf),
        kinds.RELU: (0.0, np.inf),
        kinds.RELU6: (0.0, 6.0),
        kinds.RELU_N1_TO_1: (-1.0, 1.0),
    }[operator.builtinOptions.fusedActivationFunction]
    least, most = (np.rint(real / scale) + zero for real in (low, high))
    return _Layer(output, twin, max(least, limit.min), min(most, limit.max))


def _bias(blob: bytearray, operator: schema.OperatorT) -> _Bias | None:
    """Look at an operator's biases inside the file; None if it has none or has them in float."""
    if len(operator.inputs) <= _BIAS or operator.inputs[_BIAS] < 0:
        return None
    model = schema.Model.GetRootAs(blob, 0)
    tensor = model.Subgraphs(0).Tensors(int(operator.inputs[_BIAS]))
    content = model.Buffers(tensor.Buffer())
    if tensor.Type() not in _TYPES or content.DataIsNone():
        return None
    scales = np.asarray(tensor.Quantization().ScaleAsNumpy(), np.float64)
    return _Bias(content.DataAsNumpy().view(_TYPES[tensor.Type()]), scales)


def _with_own_biases(quantised: bytes, file: schema.ModelT) -> bytes:
    """Return the file with no bias in use twice, neither as a tensor nor as a buffer."""
    graph, changed = file.subgraphs[0], False
    readers = np.bincount(
        [i for operator in graph.operators for i in operator.inputs if i >= 0],
        minlength=len(graph.tensors),
    )
    holders = np.bincount([tensor.buffer for sub in file.subgraphs for tensor in sub.tensors])
    for operator in _weighted(file):
        index = int(operator.inputs[_BIAS]) if len(operator.inputs) > _BIAS else -1
        if index < 0 or (readers[index] == 1 and holders[graph.tensors[index].buffer] == 1):
            continue
        own = copy.copy(graph.tensors[index])
        file.buffers.append(schema.BufferT(data=file.buffers[own.buffer].data.copy()))
        own.buffer = len(file.buffers) - 1
        graph.tensors.append(own)
        operator.inputs = [*operator.inputs[:_BIAS], len(graph.tensors) - 1]
        changed = True
    if not changed:
        return quantised
    return packed(file)
