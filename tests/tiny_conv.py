"""Make .tflite files of any few operators, without TensorFlow and without tfedge.

`conv_model` runs; what `model_of` makes of other operators is well formed, but they have none of
their options, so that it can only be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


@dataclass(frozen=True)
class T:
    """A tensor to write; `data` makes it a constant, tensors with the same object share it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Any = None
    scales: tuple[float, ...] = ()
    zeros: tuple[int, ...] = ()
    axis: int = 0


@dataclass(frozen=True)
class Op:
    """An operator to write: a built-in's name, or else a custom one's."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    version: int = 1
    options: Any = None


@dataclass(frozen=True)
class G:
    """A subgraph to write, and the signature that calls it."""

    name: str
    tensors: tuple[T, ...]
    operators: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    signature: bool = True


def model_of(*graphs: G) -> bytes:
    """Return a flatbuffer of `graphs`; signatures name their ends after the tensors."""
    model = schema.ModelT(version=3, description="by hand", operatorCodes=[], metadata=[])
    model.buffers, held = [schema.BufferT()], {}
    codes: dict[tuple[str, int], int] = {}
    for graph in graphs:
        for tensor in graph.tensors:
            if tensor.data is not None and id(tensor.data) not in held:
                held[id(tensor.data)] = len(model.buffers)
                content = np.frombuffer(np.asarray(tensor.data).tobytes(), np.uint8)
                model.buffers.append(schema.BufferT(data=content))
        for op in graph.operators:
            if (op.name, op.version) not in codes:
                codes[op.name, op.version] = len(codes)
                model.operatorCodes.append(_code(op))
    model.subgraphs = [_graph(graph, held, codes) for graph in graphs]
    named = [(index, graph) for index, graph in enumerate(graphs) if graph.signature]
    model.signatureDefs = [_signature(index, graph) for index, graph in named]
    model.metadata = [schema.MetadataT(name="min_runtime_version", buffer=len(model.buffers))]
    model.buffers.append(schema.BufferT(data=np.frombuffer(b"1.14.0".ljust(16, b"\0"), np.uint8)))
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


# Two channels, 2x2 pixels, 3 colours: 24 numbers of which 5 are zero.
CONV = np.int8([[[[1, 2, 0], [3, 0, 4]], [[5, 6, 7], [8, 9, 0]]]] * 2)
CONV[1, 0, 1, 1], CONV[1, 1, 1, 2] = 11, 12
CONV[0, 0, 0, 0] = 0
# 3 classes of 2x2x2 features: 24 numbers of which 8 are zero.
DENSE = np.int8([[1, -2, 3, -4, 5, -6, 7, -8], [0] * 8, [9, 8, 7, 6, 5, 4, 3, 2]])


def conv_model() -> bytes:
    """Return int8 [1, 4, 4, 3] -> conv 2x2, step 2, 2 channels -> reshape -> dense -> [1, 3].

    The convolution has a scale for each channel, the dense layer one for all.
    """
    step = schema.Conv2DOptionsT(padding=schema.Padding.VALID, strideW=2, strideH=2)
    step.dilationWFactor = step.dilationHFactor = 1
    pixels = ((1 / 255,), (-128,))
    half, twice = 0.5 / 255, 2 / 255
    graph = G(
        "main",
        (
            T("image", "int8", (1, 4, 4, 3), None, *pixels),
            T("conv/kernel", "int8", (2, 2, 2, 3), CONV, (0.5, 2.0), (0, 0)),
            T("conv/bias", "int32", (2,), np.int32([100, -100]), (half, twice), (0, 0)),
            T("features", "int8", (1, 2, 2, 2), None, (0.4,), (-10,)),
            T("dims", "int32", (2,), np.int32([1, 8])),
            T("flat", "int8", (1, 8), None, (0.4,), (-10,)),
            T("dense/kernel", "int8", (3, 8), DENSE, (0.25,), (0,)),
            T("dense/bias", "int32", (3,), np.int32([1, 2, 3]), (0.1,), (0,)),
            T("logits", "int8", (1, 3), None, (2.0,), (3,)),
        ),
        (
            Op("CONV_2D", (0, 1, 2), (3,), 3, step),
            Op("RESHAPE", (3, 4), (5,), 1, schema.ReshapeOptionsT(newShape=[1, 8])),
            Op("FULLY_CONNECTED", (5, 6, 7), (8,), 4, schema.FullyConnectedOptionsT()),
        ),
        (0,),
        (8,),
    )
    return model_of(graph)


def _code(op: Op) -> Any:
    number = getattr(schema.BuiltinOperator, op.name, schema.BuiltinOperator.CUSTOM)
    made = schema.OperatorCodeT(builtinCode=number, version=op.version)
    made.deprecatedBuiltinCode = min(number, 127)
    if number == schema.BuiltinOperator.CUSTOM:
        made.customCode = op.name
    return made


def _graph(graph: G, held: dict[int, int], codes: dict[tuple[str, int], int]) -> Any:
    made = schema.SubGraphT(name=graph.name, inputs=list(graph.inputs), outputs=list(graph.outputs))
    made.tensors = [_tensor(tensor, held) for tensor in graph.tensors]
    made.operators = []
    for op in graph.operators:
        written = schema.OperatorT(opcodeIndex=codes[op.name, op.version])
        written.inputs, written.outputs = list(op.inputs), list(op.outputs)
        if op.options is not None:
            written.builtinOptions = op.options
            kind = type(op.options).__name__.removesuffix("T")
            written.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        made.operators.append(written)
    return made


def _tensor(tensor: T, held: dict[int, int]) -> Any:
    made = schema.TensorT(name=tensor.name, shape=list(tensor.shape))
    made.type = getattr(schema.TensorType, tensor.dtype.upper())
    made.buffer = 0 if tensor.data is None else held[id(tensor.data)]
    if tensor.scales:
        made.quantization = schema.QuantizationParametersT(
            scale=list(tensor.scales), zeroPoint=list(tensor.zeros), quantizedDimension=tensor.axis
        )
    return made


def _signature(index: int, graph: G) -> Any:
    def ends(numbers: tuple[int, ...]) -> list[Any]:
        return [
            schema.TensorMapT(name=graph.tensors[number].name, tensorIndex=number)
            for number in numbers
        ]

    made = schema.SignatureDefT(signatureKey=graph.name, subgraphIndex=index)
    made.inputs, made.outputs = ends(graph.inputs), ends(graph.outputs)
    return made
