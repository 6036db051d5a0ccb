import numpy as np
import pytest
from tiny_conv import G, Op, T, model_of

from tfedge.tflite import names
from tfedge.tflite.comparison import flow_of

LAYERS = ("input_1", "conv", "bn", "relu", "conv_1", "conv_1_relu", "head/dense", "out")


@pytest.mark.parametrize(
    ("tensor", "layers"),
    [
        ("net/conv/Conv2D", ("conv",)),
        ("net/conv_1/Conv2D1", ("conv_1",)),
        ("net/conv/Conv2D:0", ("conv",)),
        ("net/relu/Relu;net/bn/FusedBatchNormV3;net/conv/Conv2D", ("conv", "bn", "relu")),
        ("net/conv_1_relu/Relu6;net/conv_1/Conv2D2", ("conv_1", "conv_1_relu")),
        ("net/quant_conv/LastValueQuant/FakeQuantWithMinMaxVarsPerChannel1", ("conv",)),
        (
            "net/quant_relu/MovingAvgQuantize/FakeQuantWithMinMaxVars;;net/quant_relu/"
            "MovingAvgQuantize/FakeQuantWithMinMaxVars/ReadVariableOp_1",
            ("relu",),
        ),
        ("net/head/dense/MatMul", ("head/dense",)),
        ("net/out_1/MatMul", ("out",)),  # the second call of a shared layer
        ("conv/Conv2D", ("conv",)),  # in a network without a name of its own
        ("conv/out/MatMul", ("out",)),  # in a network that is called as a layer is
        ("StatefulPartitionedCall:0", ()),
        ("serving_default_inputs:0", ()),
        ("arith.constant1", ()),
        ("tfl.quantize", ()),
        ("tfl.pseudo_qconst4", ()),
        ("", ()),
    ],
)
def test_a_tensor_is_known_by_its_layers_in_the_order_of_the_network(tensor, layers):
    assert names.layers_of(tensor, LAYERS) == layers
    assert names.layer_of(tensor, LAYERS) == (layers[-1] if layers else None)


def test_a_name_of_quantization_aware_training_is_found_under_that_name_first():
    assert names.layer_of("net/quant_conv/Conv2D", ("conv", "quant_conv")) == "quant_conv"
    assert names.layer_of("net/conv/Conv2D", ("quant_conv",)) == "quant_conv"


def graph_of(*steps, output):
    """Return a graph of operators in a row: (operator, its constant's name, its result's name)."""
    tensors, operators = [T("serving_default_inputs:0", "float32", (1, 4))], []
    for operator, constant, made in steps:
        given = len(tensors) - 1
        tensors.append(T(constant, "float32", (1,), np.zeros(1, np.float32) if constant else None))
        tensors.append(T(made, "float32", (1, 4)))
        operators.append(Op(operator, (given, len(tensors) - 2), (len(tensors) - 1,)))
    made = [tensor.name for tensor in tensors].index(output)
    graph = G("main", tuple(tensors), tuple(operators), (0,), (made,))
    return flow_of(model_of(graph), "x").subgraph


def test_an_operator_is_known_by_its_result_or_else_its_constant_or_else_its_place():
    known = [("in", "InputLayer"), ("pad", "ZeroPadding2D"), ("conv", "Conv2D"), ("fc", "Dense"),
             ("act", "Activation")]  # fmt: skip
    found = graph_of(
        ("QUANTIZE", "", "tfl.quantize"),
        ("CONV_2D", "arith.constant", "net/pad/Pad;net/conv/Conv2D"),
        ("FULLY_CONNECTED", "net/fc/MatMul", "made.up"),
        ("DEQUANTIZE", "", "made.up_again"),
        ("LOGISTIC", "arith.constant", "StatefulPartitionedCall:0"),
        output="StatefulPartitionedCall:0",
    )
    assert names.of_operators(found, known) == (
        ("in",),
        ("conv", "pad"),  # what has the weights stands first
        ("fc",),
        ("fc",),
        ("act",),
    )


def test_a_tensor_without_a_name_belongs_to_what_makes_or_reads_it():
    found = graph_of(
        ("FULLY_CONNECTED", "net/fc/MatMul", "made.up"),
        ("CONV_2D", "arith.constant", "net/conv/Conv2D"),
        output="net/conv/Conv2D",
    )
    known = [("fc", "Dense"), ("conv", "Conv2D")]
    assert names.of_tensors(found, known) == (
        ("fc",), ("fc",), ("fc",), ("conv",), ("conv",),
    )  # fmt: skip


def test_without_a_network_the_file_tells_its_layers():
    found = graph_of(
        ("CONV_2D", "arith.constant", "net/quant_relu/Relu;net/quant_conv/Conv2D"),
        ("FULLY_CONNECTED", "net/fc/MatMul1", "StatefulPartitionedCall:0"),
        output="StatefulPartitionedCall:0",
    )
    assert names.guessed(found) == (("conv", ""), ("relu", ""), ("fc", ""))


def test_a_message_names_layer_and_class():
    assert names.described("swish", [("swish", "Activation")]) == "layer 'swish' (Activation)"
    assert names.described("swish", [("swish", "")]) == "layer 'swish'"
