"""The schema's tables as plain values: tensors, operators, subgraphs, signatures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_T = TypeVar("_T")

_VALUES_MOST = 32
"""Elements that a constant may have to be read as numbers: axes, paddings and shapes have fewer."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a subgraph.

    Attributes:
      dtype: As in the schema, in lower case: ``int8``, ``float32``.
      scales: The quantisation's scale, one a channel along `axis`; empty for a float tensor.
      zero_points: As many as `scales`.
      axis: What the scales belong to; None with one scale for all.
      buffer: The file's number of its content; tensors may share one.
      stored: Bytes of its content; 0 for a tensor that is worked out when the model runs.
      zeros: Elements that stand for 0, where the content is plain numbers; else None.
      distinct: How many different numbers an int8 constant holds, in the channel of `axis` that has
        most; None for other types, and where they are packed.
      values: What a short constant of int32 or int64 holds, such as axes, paddings and shapes.
      dynamic: One of its axes has another length at every call; `shape` has a 1 or -1 there.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None
    buffer: int
    stored: int
    zeros: int | None
    distinct: int | None
    values: tuple[int, ...] = ()
    dynamic: bool = False

    @property
    def constant(self) -> bool:
        return self.stored > 0

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
      inputs: Numbers of its subgraph's tensors; -1 is an absent one.
      outputs: As `inputs`.
      options: A built-in's settings by the schema's names, such as ``strideW``, with the schema's
        numbers for enumerations.
    """

    name: str
    version: int
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Subgraph:
    """A graph, its operators in the order in which they run."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True)
class Signature:
    """A named way to call one subgraph: its inputs and outputs by the names that callers use."""

    name: str
    subgraph: int
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class Graph:
    """All of a model but its bytes.

    Attributes:
      buffers: Each buffer's bytes.
      metadata: The numbers of the buffers that hold metadata.
    """

    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]
    buffers: tuple[int, ...]
    metadata: tuple[int, ...]


def read(model: schema.Model) -> Graph:
    """Read every table; raises what `container.decoding` expects where one is damaged."""
    buffers = _each(model.Buffers, model.BuffersLength())
    if any(buffer.Offset() > 1 for buffer in buffers):  # 0 and 1 say that it is inside
        raise ValueError("its weights lie behind the flatbuffer")
    contents = [_content(buffer) for buffer in buffers]
    codes = [_code(code) for code in _each(model.OperatorCodes, model.OperatorCodesLength())]
    subgraphs = tuple(
        _subgraph(subgraph, codes, contents)
        for subgraph in _each(model.Subgraphs, model.SubgraphsLength())
    )
    if not subgraphs:
        raise ValueError("it has no graph")
    entries = _each(model.Metadata, model.MetadataLength())
    return Graph(
        subgraphs,
        tuple(
            _signature(signature, subgraphs)
            for signature in _each(model.SignatureDefs, model.SignatureDefsLength())
        ),
        tuple(content.size for content in contents),
        tuple(range(len(contents))[entry.Buffer()] for entry in entries),
    )


def _each(item: Callable[[int], _T], count: int) -> list[_T]:
    return [item(number) for number in range(count)]


def _content(buffer: schema.Buffer) -> np.ndarray:
    return np.zeros(0, np.uint8) if buffer.DataIsNone() else buffer.DataAsNumpy()


@cache
def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


def _code(code: schema.OperatorCode) -> tuple[str, int, bool]:
    # Numbers past 126 do not fit the older field, which then says 127 (schema.fbs, OperatorCode).
    number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
    if number == schema.BuiltinOperator.CUSTOM:
        return _text(code.CustomCode()), code.Version(), True
    return _names(schema.BuiltinOperator)[number], code.Version(), False


def _subgraph(
    subgraph: schema.SubGraph, codes: list[tuple[str, int, bool]], contents: list[np.ndarray]
) -> Subgraph:
    tensors = tuple(
        _tensor(tensor, contents) for tensor in _each(subgraph.Tensors, subgraph.TensorsLength())
    )

    def indices(of: Any) -> tuple[int, ...]:
        # A vector of no elements reads as the number 0.
        numbers = tuple(int(number) for number in np.atleast_1d(of)) if np.ndim(of) else ()
        if any(not -1 <= number < len(tensors) for number in numbers):
            raise IndexError(f"tensor {max(numbers)} of {len(tensors)}")
        return numbers

    operators = tuple(
        Operator(
            *codes[int(operator.OpcodeIndex())],
            indices(operator.InputsAsNumpy()),
            indices(operator.OutputsAsNumpy()),
            _options(operator),
        )
        for operator in _each(subgraph.Operators, subgraph.OperatorsLength())
    )
    ends = indices(subgraph.InputsAsNumpy()), indices(subgraph.OutputsAsNumpy())
    return Subgraph(_text(subgraph.Name()), *ends, tensors, operators)


def _options(operator: schema.Operator) -> dict[str, Any]:
    table = operator.BuiltinOptions()
    made = schema.BuiltinOptionsCreator(operator.BuiltinOptionsType(), table) if table else None
    if made is None:
        return {}
    return {
        name: tuple(value.tolist()) if isinstance(value, np.ndarray) else value
        for name, value in vars(made).items()
    }


def _tensor(tensor: schema.Tensor, contents: list[np.ndarray]) -> Tensor:
    dtype = _names(schema.TensorType)[tensor.Type()].lower()
    shape = tuple(tensor.Shape(axis) for axis in range(tensor.ShapeLength()))
    scales, zero_points, axis = _quantisation(tensor.Quantization())
    content = contents[tensor.Buffer()]
    plain = tensor.Sparsity() is None
    return Tensor(
        _text(tensor.Name()),
        dtype,
        shape,
        scales,
        zero_points,
        axis,
        tensor.Buffer(),
        content.size,
        _zeros(content, dtype, shape, zero_points, axis) if plain else None,
        _distinct(content, shape, axis) if plain and dtype == "int8" else None,
        _values(content, dtype) if plain else (),
        -1 in (*shape, *np.atleast_1d(tensor.ShapeSignatureAsNumpy())),
    )


def _values(content: np.ndarray, dtype: str) -> tuple[int, ...]:
    if dtype not in ("int32", "int64") or content.size > _VALUES_MOST * _NUMBERS[dtype].itemsize:
        return ()
    return tuple(content.view(_NUMBERS[dtype]).tolist())


def _quantisation(
    of: schema.QuantizationParameters | None,
) -> tuple[tuple[float, ...], tuple[int, ...], int | None]:
    if of is None or not of.ScaleLength():
        return (), (), None
    scales = tuple(of.ScaleAsNumpy().tolist())
    zero_points = tuple(of.ZeroPointAsNumpy().tolist()) if of.ZeroPointLength() else ()
    zero_points += (0,) * (len(scales) - len(zero_points))
    return scales, zero_points, of.QuantizedDimension() if len(scales) > 1 else None


def _zeros(
    content: np.ndarray,
    dtype: str,
    shape: tuple[int, ...],
    zero_points: tuple[int, ...],
    axis: int | None,
) -> int | None:
    """Count the elements of a constant that stand for 0; int8's 0 is its zero point."""
    if not content.size or dtype not in _NUMBERS:
        return None
    values = content.view(_NUMBERS[dtype]).reshape(shape)
    if axis is None or len(set(zero_points)) == 1:
        return int(np.count_nonzero(values == (zero_points[0] if zero_points else 0)))
    along = [-1 if number == axis else 1 for number in range(len(shape))]
    return int(np.count_nonzero(values == np.array(zero_points).reshape(along)))


def _distinct(content: np.ndarray, shape: tuple[int, ...], axis: int | None) -> int | None:
    if not content.size:
        return None
    values = content.view(np.uint8).reshape(shape)
    channels = 1 if axis is None else shape[axis]
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0)
    seen = np.zeros((channels, 256), bool)
    seen[np.arange(channels)[:, None], rows.reshape(channels, -1)] = True
    return int(seen.sum(axis=1).max())


_NUMBERS = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64")
}


def _signature(signature: schema.SignatureDef, subgraphs: tuple[Subgraph, ...]) -> Signature:
    tensors = subgraphs[signature.SubgraphIndex()].tensors

    def named(item: Callable[[int], schema.TensorMap], count: int) -> dict[str, Tensor]:
        return {_text(entry.Name()): tensors[entry.TensorIndex()] for entry in _each(item, count)}

    return Signature(
        _text(signature.SignatureKey()),
        signature.SubgraphIndex(),
        named(signature.Inputs, signature.InputsLength()),
        named(signature.Outputs, signature.OutputsLength()),
    )


def _text(raw: bytes | None) -> str:
    return raw.decode() if raw else ""
