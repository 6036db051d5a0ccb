"""A float .tflite that knows its activations' ranges, and what the quantiser makes of it.

The converter does this in one go.  Taken apart, the ranges can be looked at and bettered in between
(`ranges`), and the quantiser, which takes a second where the converter takes a minute, can be run
again with other ranges or with some operators left in float.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.python.optimize.calibrator import Calibrator

from tfedge.data.grid import on_grid
from tfedge.errors import UserError, did_you_mean
from tfedge.networks.backend import keras
from tfedge.progress import quietly
from tfedge.tflite import curves, names
from tfedge.tflite.running import packed, unpacked

QUANTISED = ("int8", "int16x8")
"""What `quantised` makes: the type of the activations, and of the weights where it is another."""

_ATTEMPTS = 20
_STOPPED = re.compile(r'loc\("([^"]*)".*\): error: (.*)')


def calibrated(model: keras.Model, samples: np.ndarray, limits: tuple[float, float]) -> bytes:
    """Convert `model` in float32 and record in the file what range each activation has.

    Args:
      model: Float or quantization-aware; what a quantization-aware model has learned of ranges is
        in the file as int8 already.
      samples: Float32 [count, ...], normalised as in training, of every class.
      limits: Least and largest value that a normalised input can have: the input's range, whatever
        the samples show, unless quantization-aware training has fixed it.

    Returns:
      A .tflite's bytes.  Its tensors have a least and a largest value, not yet a scale.
    """
    step = _step(model)
    _refuse_loops(model, step)
    converter = converter_of(model, step)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter._experimental_calibrate_only = True
    with quietly():
        file = unpacked(bytes(converter.convert()))
    graph = file.subgraphs[0]
    if not _quantises_its_input(file):
        given = graph.tensors[graph.inputs[0]].quantization
        given.min, given.max = ([float(limit)] for limit in limits)
    return packed(file)


def quantised(calibrated: bytes, form: str = "int8", float_layers: Sequence[str] = ()) -> bytes:
    """Quantise a file by the ranges that it has, its input and output as well.

    A dense layer has one scale for all its weights: with one a channel, runtimes before 2.10 answer
    nonsense.  The input's range is put on the grid, see `on_grid`.

    Args:
      calibrated: From `calibrated`; ranges may have been changed.
      form: ``int8``, or ``int16x8``: activations int16, weights int8, biases int64.
      float_layers: Operators to keep in float, with the quantiser's conversions around them, by the
        name of the tensor that they make.  For ``int8`` alone.

    Returns:
      The .tflite file's bytes.
    """
    file = unpacked(calibrated)
    graph = file.subgraphs[0]
    _check(file, form, float_layers)
    if form == "int16x8":
        return _in_int16(calibrated)
    if not _quantises_its_input(file):
        given = graph.tensors[graph.inputs[0]].quantization
        low, high = on_grid(float(given.min[0]), float(given.max[0]))
        given.min, given.max = [low], [high]
    _forget_ranges_of_scaled(file)
    stand_ins = curves.with_stand_ins(file)
    made = _in_int8(packed(file), float_layers)
    # Of an operator with several results (SPLIT) the quantiser leaves one in float, or leaves none,
    # as chance will have it: it goes through its graph in the order of memory addresses.
    if not float_layers and any(len(operator.outputs) > 1 for operator in graph.operators):
        for _ in range(_ATTEMPTS):
            if not _holds(unpacked(made), schema.BuiltinOperator.DEQUANTIZE):
                break
            made = _in_int8(packed(file), ())
    if stand_ins:
        file = unpacked(made)
        curves.without_stand_ins(file)
        made = packed(file)
    return made


def converter_of(model: keras.Model, step: Any = None) -> tf.lite.TFLiteConverter:
    """Return TensorFlow's converter for `model`, with its outputs named ``logits``.

    Args:
      step: The model's function for a batch of 1, if it is there already.
    """
    module = tf.Module()
    # Not the model: the converter saves what it is given, and saving traces each layer's call anew,
    # which takes minutes for a network of hundreds of layers.
    module.weights = list(model.variables)
    return tf.lite.TFLiteConverter.from_concrete_functions([step or _step(model)], module)


def _step(model: keras.Model) -> Any:
    # A fixed batch of 1: the Edge TPU compiler refuses dynamic shapes.
    inputs = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="inputs")
    answer = tf.function(lambda inputs: {"logits": model(inputs, training=False)})
    return answer.get_concrete_function(inputs)


def _refuse_loops(model: keras.Model, step: Any) -> None:
    """Refuse a network that is a loop in the file, over which TensorFlow's calibrator crashes.

    Of loops in Keras the converter turns an LSTM's into one operator, and no other.
    """
    operations = step.graph.as_graph_def()
    nodes = [*operations.node, *(n for f in operations.library.function for n in f.node_def)]
    if not any("While" in node.op for node in nodes):
        return
    converter = converter_of(model, step)
    with quietly():
        file = unpacked(bytes(converter.convert()))
    if _holds(file, schema.BuiltinOperator.WHILE):
        kinds = (keras.layers.RNN, keras.layers.Bidirectional)
        names = [layer.name for layer in model.layers if isinstance(layer, kinds)]
        problem = f"holds a loop, which TensorFlow cannot calibrate: {', '.join(names)}"
        fix = "build the layer with unroll=True, take an LSTM, or convert to dynamic or float16"
        raise UserError(f"network {model.name!r}", problem, fix)


def _check(file: schema.ModelT, form: str, float_layers: Sequence[str]) -> None:
    if form not in QUANTISED:
        raise ValueError(f"expected one of {', '.join(QUANTISED)}, got {form!r}")
    graph = file.subgraphs[0]
    if form == "int16x8" and float_layers:
        problem = f"{form} has no layers in float, got {', '.join(float_layers)}"
        raise UserError("float_layers", problem, "leave some in float in int8, or all in int16x8")
    if form == "int16x8" and any(t.type == schema.TensorType.INT8 for t in graph.tensors):
        problem = "quantization-aware training has fixed its ranges for int8"
        raise UserError(form, problem, "convert the network as it was before that training")
    made = {graph.tensors[index].name.decode() for op in graph.operators for index in op.outputs}
    for name in float_layers:
        if name not in made:
            raise UserError("float_layers", f"no operator makes {name!r}", did_you_mean(name, made))


def _quantises_its_input(file: schema.ModelT) -> bool:
    """Whether the network's own fake quantisation has become the first operator."""
    graph = file.subgraphs[0]
    return any(
        file.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.QUANTIZE
        for operator in graph.operators
        if graph.inputs[0] in operator.inputs
    )


def _forget_ranges_of_scaled(file: schema.ModelT) -> None:
    """Take the measured ranges off values to which training in 8 bits has given a scale.

    Where the two differ at an operator that writes on the scale that it reads, such as a
    concatenation, TensorFlow's quantiser stops.
    """
    seams = {
        schema.BuiltinOperator.QUANTIZE: "inputs",
        schema.BuiltinOperator.DEQUANTIZE: "outputs",
    }
    for graph in file.subgraphs:
        for operator in graph.operators or ():
            end = seams.get(file.operatorCodes[operator.opcodeIndex].builtinCode)
            for index in getattr(operator, end) if end else ():
                tensor = graph.tensors[index]
                if tensor.type == schema.TensorType.FLOAT32:
                    tensor.quantization = None


def _holds(file: schema.ModelT, operator: int) -> bool:
    return any(code.builtinCode == operator for code in file.operatorCodes)


def _in_int8(calibrated: bytes, float_layers: Sequence[str]) -> bytes:
    heard: list[str] = []
    try:
        with quietly(heard):
            return bytes(
                mlir_quantize(
                    calibrated,
                    input_data_type=tf.int8,
                    output_data_type=tf.int8,
                    denylisted_nodes=list(float_layers),
                    disable_per_channel_for_dense_layers=True,
                )
            )
    except RuntimeError as error:  # its own text is empty: what is wrong is on stderr
        raise _refused("int8", "".join(heard) or str(error)) from error


def _refused(form: str, said: str) -> UserError:
    """Name the layers at which TensorFlow's quantiser stopped, and say why."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    place, why = next(
        (found.groups() for line in lines if (found := _STOPPED.search(line))),
        ("", lines[-1] if lines else "it does not say why"),
    )
    at = ", ".join(f"layer {name!r}" for name in names.guessed_of(place)) or "the network"
    problem = f"TensorFlow's quantiser stopped at {at}: {why.split(': !quant')[0][:300]}"
    fix = (
        "replace the first of them by a ReLU or another layer that has an int8 kernel; or keep it"
        " out of training in 8 bits, leave = [...] in the qat stage"
        if form == "int8"
        else 'write form = "int8", or replace the layer by a convolution, ReLU, pooling or Add'
    )
    return UserError(form, problem, fix)


def _in_int16(calibrated: bytes) -> bytes:
    # MLIR's quantiser writes zero points other than 0, which no int16 kernel takes.  The older one
    # keeps the file's ranges where it is not fed samples of its own.
    int16, int64 = np.dtype(np.int16).num, np.dtype(np.int64).num
    allow_float, per_tensor, dense_per_tensor = False, False, True
    heard: list[str] = []
    try:
        with quietly(heard):
            quantiser = Calibrator(calibrated)._calibrator
            quantiser.Prepare()
            return bytes(
                quantiser.QuantizeModel(
                    int16, int16, allow_float, int16, int64, per_tensor, dense_per_tensor
                )
            )
    except RuntimeError as error:
        raise _refused("int16x8", str(error) or "".join(heard)) from error
