"""Run a .tflite, or one operator of it, on this machine and look at any tensor."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfedge.progress import quietly
from tfedge.tflite.graph import Subgraph, Tensor

WITH_STATE = ("LSTM", "RNN", "SVDF", "WHILE", "IF", "CALL", "VAR", "RESOURCE", "RANDOM")
"""Parts of the names of operators that are more than a function of their operands."""


class Run:
    """A .tflite that keeps all its tensors.

    The kernels are TFLite's own: XNNPACK and other delegates swallow the tensors inside.
    """

    def __init__(self, flatbuffer: bytes) -> None:
        with quietly():
            self._interpreter = Interpreter(
                model_content=flatbuffer,
                num_threads=1,
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._interpreter.allocate_tensors()
        (self._given,) = self._interpreter.get_input_details()
        self._details = {d["index"]: d for d in self._interpreter.get_tensor_details()}

    def feed(self, x: np.ndarray) -> None:
        """Run on one normalised input, float32 without the batch."""
        self._interpreter.reset_all_variables()  # an LSTM would go on from the last input
        self._interpreter.set_tensor(self._given["index"], quantised(x[None], self._given))
        self._interpreter.invoke()

    def raw(self, tensor: int) -> np.ndarray:
        """Return a tensor as it is, after `feed`."""
        return np.asarray(self._interpreter.get_tensor(tensor))

    def value(self, tensor: int) -> np.ndarray:
        """Return a tensor as float32, dequantised if it is quantised."""
        detail = self._details[tensor]["quantization_parameters"]
        raw, scales = self.raw(tensor), detail["scales"]
        if not len(scales):
            return raw.astype(np.float32)
        along = [1] * raw.ndim
        if len(scales) > 1:
            along[detail["quantized_dimension"]] = -1
        zeros = np.asarray(detail["zero_points"], np.float64).reshape(along)
        real = (raw.astype(np.float64) - zeros) * np.asarray(scales, np.float64).reshape(along)
        return real.astype(np.float32)


def answers(
    flatbuffer: bytes, inputs: np.ndarray, tell: Callable[[int], None] = lambda _: None
) -> np.ndarray:
    """Return what a .tflite answers, float32 [count, classes], with the runtime's fastest kernels.

    Args:
      inputs: Float32 [count, ...], normalised.
      tell: Called with how many are done, now and then.
    """
    with quietly():
        interpreter = Interpreter(model_content=flatbuffer, num_threads=1)
        interpreter.allocate_tensors()
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = found["quantization"]
    rows = []
    for number, x in enumerate(inputs):
        interpreter.reset_all_variables()
        interpreter.set_tensor(given["index"], quantised(x[None], given))
        interpreter.invoke()
        raw = interpreter.get_tensor(found["index"])[0].astype(np.float32)
        rows.append((raw - np.float32(zero)) * np.float32(scale or 1))
        if not number % 100:
            tell(number)
    return np.stack(rows)


def time_ratio(new: bytes, old: bytes, x: np.ndarray, rounds: int = 200) -> float:
    """Return how many times as long `new` takes as `old` on this machine, one thread each.

    The two take turns, so that whatever else the machine does slows both; the ratio is that of
    their median times.

    Args:
      x: One input, float32, normalised.
    """
    calls = [_call(file, x) for file in (new, old)]
    times = np.empty((rounds, 2))
    for row in times:
        for number, call in enumerate(calls):
            began = time.perf_counter()
            call()
            row[number] = time.perf_counter() - began
    medians = np.median(times[rounds // 10 :], axis=0)
    return round(float(medians[0] / medians[1]), 3)


def _call(flatbuffer: bytes, x: np.ndarray) -> Callable[[], None]:
    """Return what runs a .tflite on `x` once more."""
    with quietly():
        interpreter = Interpreter(model_content=flatbuffer, num_threads=1)
        interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    interpreter.set_tensor(given["index"], quantised(x[None], given))
    invoke: Callable[[], None] = interpreter.invoke
    return invoke


def quantised(x: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """Return float32 `x` as the tensor of an interpreter's `detail` holds it."""
    scale, zero = detail["quantization"]
    if not scale:
        return x.astype(detail["dtype"])
    bounds = np.iinfo(detail["dtype"])
    steps = np.round(x / np.float32(scale)) + zero
    return np.clip(steps, bounds.min, bounds.max).astype(detail["dtype"])


def rounded(x: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Return what is left of float `x` once it was written into `tensor`; all of it in float."""
    if not tensor.scales or not tensor.dtype.startswith("int"):
        return x
    bounds, zero = np.iinfo(tensor.dtype), tensor.zero_points[0]
    steps = np.clip(np.round(x / tensor.scales[0]) + zero, bounds.min, bounds.max)
    return ((steps - zero) * tensor.scales[0]).astype(np.float32)


class Alone:
    """One float operator as a function of all its float operands, constants among them.

    Args:
      model: The file's tables; nothing of them is changed.
      number: The operator's in the first subgraph.
      operands: A value for each operand, for its shape; those that are not float are kept.
    """

    def __init__(
        self, model: schema.ModelT, number: int, operands: Sequence[np.ndarray | None]
    ) -> None:
        self._places = [
            place
            for place, value in enumerate(operands)
            if value is not None and value.dtype == np.float32
        ]
        with quietly():
            self._interpreter = Interpreter(
                model_content=_alone(model, number, operands),
                num_threads=1,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._interpreter.allocate_tensors()
        self._inputs = [d["index"] for d in self._interpreter.get_input_details()]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]

    def __call__(self, operands: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """Return what the operator makes of `operands`, of which only the float ones count."""
        for place, tensor in zip(self._places, self._inputs, strict=True):
            self._interpreter.set_tensor(tensor, operands[place])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def can_run_alone(subgraph: Subgraph, number: int) -> bool:
    """Whether an operator is a function of its operands, with a result in float."""
    operator = subgraph.operators[number]
    made = [subgraph.tensors[index] for index in operator.outputs]
    whole = not operator.custom and not any(word in operator.name for word in WITH_STATE)
    return whole and bool(made) and all(tensor.dtype == "float32" for tensor in made)


def packed(model: schema.ModelT) -> bytes:
    """Return the flatbuffer of a model's tables."""
    model.buffers = [_Aligned(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _Aligned(schema.BufferT):
    """A buffer at a multiple of 16 bytes, as the schema asks and the generated class forgets."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802
        content = b"" if self.data is None else bytes(self.data)
        builder.StartVector(1, len(content), 16)
        builder.head -= len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        data = builder.EndVector()
        schema.BufferStart(builder)
        if content:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def unpacked(flatbuffer: bytes) -> schema.ModelT:
    """Return a model's tables, to be changed."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer, 0))


def _alone(model: schema.ModelT, number: int, operands: Sequence[np.ndarray | None]) -> bytes:
    """Write a file of one operator, its float operands as inputs and the others as constants."""
    graph = model.subgraphs[0]
    operator = graph.operators[number]
    alone = schema.ModelT(version=3, buffers=[schema.BufferT()])
    alone.operatorCodes = [model.operatorCodes[operator.opcodeIndex]]
    sub = schema.SubGraphT(tensors=[], inputs=[], outputs=[])
    places = []

    def add(shape: Sequence[int], kind: int, buffer: int = 0) -> int:
        sub.tensors.append(schema.TensorT(name="x", type=kind, shape=list(shape), buffer=buffer))
        return len(sub.tensors) - 1

    for index, value in zip(operator.inputs, operands, strict=True):
        if value is None:
            places.append(-1)
        elif value.dtype == np.float32:
            places.append(add(value.shape, schema.TensorType.FLOAT32))
            sub.inputs.append(places[-1])
        else:
            content = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
            alone.buffers.append(schema.BufferT(data=content))
            places.append(add(value.shape, graph.tensors[index].type, len(alone.buffers) - 1))
    made = [graph.tensors[index] for index in operator.outputs]
    sub.outputs = [add([] if of.shape is None else of.shape, of.type) for of in made]
    own = copy.copy(operator)
    own.opcodeIndex, own.inputs, own.outputs, own.intermediates = 0, places, sub.outputs, []
    sub.operators = [own]
    alone.subgraphs = [sub]
    return packed(alone)
