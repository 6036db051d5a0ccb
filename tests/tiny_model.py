"""Make a small int8 .tflite in a millisecond, card and all, without TensorFlow and without tfedge.

The tests read what tfedge writes with this file's models, and what this file writes with tfedge:
two roads to the same bytes on purpose.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

OUTPUT_SCALE, OUTPUT_ZERO = 0.05, 3


def tiny_model(
    shape: tuple[int, ...] = (4, 4, 3),
    classes: int = 3,
    input_scale: float = 1 / 255,
    input_zero: int = -128,
    dense_version: int = 4,
) -> bytes:
    """Return a flatbuffer: int8 [1, *shape] -> reshape -> dense, per tensor -> int8 [1, classes].

    The output's scale and zero point are `OUTPUT_SCALE` and `OUTPUT_ZERO`.
    """
    size = int(np.prod(shape))
    random = np.random.default_rng(size * 1000 + classes)
    weights = random.integers(-127, 128, (classes, size), dtype=np.int8)
    bias = random.integers(-1000, 1000, classes, dtype=np.int32)
    weight_scale = 2 / (127 * np.sqrt(size) * max(abs(input_scale) * 255, 1e-9))

    int8, int32 = schema.TensorType.INT8, schema.TensorType.INT32
    fed, none = (input_scale, input_zero), None
    buffers = [schema.BufferT()]  # number 0 is the empty one by the format's rule
    graph = schema.SubGraphT()
    graph.name, graph.inputs, graph.outputs = "main", [0], [5]
    graph.tensors = [
        _tensor(buffers, "image", int8, (1, *shape), none, fed),
        _tensor(buffers, "dims", int32, (2,), np.int32([1, size]), none),
        _tensor(buffers, "flat", int8, (1, size), none, fed),
        _tensor(buffers, "weights", int8, (classes, size), weights, (weight_scale, 0)),
        _tensor(buffers, "bias", int32, (classes,), bias, (input_scale * weight_scale, 0)),
        _tensor(buffers, "logits", int8, (1, classes), none, (OUTPUT_SCALE, OUTPUT_ZERO)),
    ]
    reshape, dense = schema.ReshapeOptionsT(), schema.FullyConnectedOptionsT()
    reshape.newShape = [1, size]
    graph.operators = [
        _operator(0, reshape, schema.BuiltinOptions.ReshapeOptions, [0, 1], [2]),
        _operator(1, dense, schema.BuiltinOptions.FullyConnectedOptions, [2, 3, 4], [5]),
    ]

    model = schema.ModelT()
    model.version, model.description = 3, "tiny"
    model.subgraphs, model.buffers = [graph], buffers
    model.operatorCodes = [
        _code(schema.BuiltinOperator.RESHAPE, version=1),
        _code(schema.BuiltinOperator.FULLY_CONNECTED, version=dense_version),
    ]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def card_for(flatbuffer: bytes, shape: tuple[int, ...] = (4, 4, 3), classes: int = 3) -> dict:
    """Return a whole card for `tiny_model`: images where `shape` has 3 axes, else arrays.

    Pixels are divided by 255; arrays are taken as they are.
    """
    image = len(shape) == 3
    channels = shape[-1]
    entry: dict[str, Any] = {"kind": "image" if image else "array", "shape": list(shape)}
    entry["mean"] = [0] * channels
    entry["std"] = [255 if image else 1] * channels
    if image:
        entry.update(resize="bilinear", fit="stretch")
    return {
        "format": 1,
        "labels": ["cat", "dog", "eel", "fox", "gnu"][:classes],
        "input": entry,
        "output": {"kind": "logits", "probabilities": "softmax"},
        "golden": {"count": 0, "tensors": []},
        "made_by": {"tfedge": "0.1.0", "pipeline": "tiny", "stage": "int8", "key": "0" * 64},
        "measured": {},
        "flatbuffer": {"bytes": len(flatbuffer), "sha256": hashlib.sha256(flatbuffer).hexdigest()},
    }


def with_card(flatbuffer: bytes, card: dict, files: dict[str, bytes] | None = None) -> bytes:
    """Return `flatbuffer` with a zip behind it that holds card.json, labels.txt and `files`."""
    labels = "".join(f"{label}\n" for label in card.get("labels", ()))
    entries = {"card.json": json.dumps(card).encode(), "labels.txt": labels.encode()}
    out = io.BytesIO()
    out.write(flatbuffer)
    with zipfile.ZipFile(out, "a") as archive:
        for name, content in {**entries, **(files or {})}.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return out.getvalue()


def golden_file(inputs: np.ndarray, outputs: np.ndarray, **more: np.ndarray) -> bytes:
    """Return golden.npz: `inputs` uint8 or float32 [n, *shape], `outputs` int8 [n, classes].

    `more` is ``exits``, int8 [exits, n, classes], if anything.
    """
    out = io.BytesIO()
    np.savez(out, inputs=inputs, outputs=outputs, **more)
    return out.getvalue()


def _code(builtin: int, version: int) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode, made.version = builtin, version
    made.deprecatedBuiltinCode = min(builtin, 127)
    return made


def _tensor(
    buffers: list[Any],
    name: str,
    kind: int,
    dims: tuple[int, ...],
    data: np.ndarray | None,
    scale: tuple[float, int] | None,
) -> Any:
    made = schema.TensorT()
    made.name, made.type, made.shape, made.buffer = name, kind, list(dims), 0
    if data is not None:
        made.buffer = len(buffers)
        buffers.append(schema.BufferT())
        buffers[-1].data = np.frombuffer(data.tobytes(), np.uint8)
    if scale:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [float(scale[0])], [scale[1]]
    return made


def _operator(code: int, options: Any, kind: int, inputs: list[int], outputs: list[int]) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, inputs, outputs
    made.builtinOptions, made.builtinOptionsType = options, kind
    return made
