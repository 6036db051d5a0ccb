from __future__ import annotations

import json
import subprocess
import sys
import time

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tiny_conv import G, Op, T, conv_model, model_of
from tiny_model import card_for, tiny_model, with_card

from tfedge.errors import UserError
from tfedge.tflite.facts import Facts, facts, summary

# conv_model's: the output is 2x2 pixels of 2 channels, the kernel 2x2 pixels of 3 colours.
CONV_MACS = (2 * 2 * 2) * (2 * 2 * 3)
DENSE_MACS = 3 * 8  # each class looks at all 2*2*2 features


def one_operator(op: Op, *tensors: T) -> Facts:
    return facts(model_of(G("main", tensors, (op,), op.inputs[:1], op.outputs)), "hand.tflite")


def test_macs_of_a_small_network_are_those_worked_out_by_hand():
    assert facts(conv_model(), "m").macs == CONV_MACS + DENSE_MACS


def test_parameters_are_kernels_and_biases_and_not_the_shape_of_a_reshape():
    kernels_and_biases = (2 * 2 * 2 * 3 + 2) + (3 * 8 + 3)
    assert facts(conv_model(), "m").parameters == kernels_and_biases
    # tiny_model: 4*4*3 inputs to 5 classes.
    assert facts(tiny_model(classes=5), "m").parameters == 4 * 4 * 3 * 5 + 5


def test_zero_weights_are_counted_in_each_kernel_and_in_all():
    found = facts(conv_model(), "m")
    assert [(w.name, w.operator, w.elements, w.zeros) for w in found.weights] == [
        ("conv/kernel", "CONV_2D", 2 * 2 * 2 * 3, 5),
        ("dense/kernel", "FULLY_CONNECTED", 3 * 8, 8),  # one class of 8 has no weights
    ]
    assert found.zero_weights == (5 + 8) / (24 + 24)


def test_a_zero_is_the_zero_point_of_its_channel():
    kernel = np.uint8([[128, 0, 128], [7, 128, 128]])
    dense = Op("FULLY_CONNECTED", (0, 1, -1), (2,))
    ends = T("x", "uint8", (1, 3)), T("y", "uint8", (1, 2))

    def zeros(scales: tuple[float, ...], points: tuple[int, ...], axis: int = 0) -> int | None:
        made = T("w", "uint8", (2, 3), kernel, scales, points, axis)
        return one_operator(dense, ends[0], made, ends[1]).weights[0].zeros

    assert zeros((0.1,), (128,)) == 4
    assert zeros((0.1, 0.2), (128, 7)) == 2 + 1
    assert zeros((0.1, 0.2, 0.3), (7, 0, 128), axis=1) == 1 + 1 + 2


def test_a_depthwise_kernel_multiplies_each_channel_with_its_own_window():
    found = one_operator(
        Op("DEPTHWISE_CONV_2D", (0, 1, 2), (3,)),
        T("x", "int8", (1, 8, 6, 4)),
        T("k", "int8", (1, 3, 5, 4), np.ones((1, 3, 5, 4), np.int8), (0.1,), (0,)),
        T("b", "int32", (4,), np.ones(4, np.int32)),
        T("y", "int8", (1, 4, 3, 4)),
    )
    assert found.macs == (4 * 3 * 4) * (3 * 5)
    assert found.parameters == 3 * 5 * 4 + 4


def test_a_transposed_convolution_spreads_each_input_over_a_window():
    found = one_operator(
        Op("TRANSPOSE_CONV", (0, 1, 2, 3), (4,)),
        T("dims", "int32", (4,), np.int32([1, 8, 8, 2])),
        T("k", "int8", (2, 3, 3, 5), np.ones((2, 3, 3, 5), np.int8), (0.1,), (0,)),
        T("x", "int8", (1, 4, 4, 5)),
        T("b", "int32", (2,), np.ones(2, np.int32)),
        T("y", "int8", (1, 8, 8, 2)),
    )
    assert found.macs == (4 * 4 * 5) * (3 * 3 * 2)
    assert found.parameters == 2 * 3 * 3 * 5 + 2


@pytest.mark.parametrize("left", [(2, 3, 4), (2, 4, 3)], ids=["as it is", "transposed"])
def test_a_batch_matmul_multiplies_rows_with_columns(left):
    # Two products of 3x4 with 4x5.
    found = one_operator(
        Op("BATCH_MATMUL", (0, 1), (2,)),
        T("a", "int8", left),
        T("b", "int8", (2, 4, 5)),
        T("y", "int8", (2, 3, 5)),
    )
    assert found.macs == 2 * (3 * 5) * 4
    assert found.weights == ()
    assert found.zero_weights is None
    assert "zero_weights" not in summary(found)


def test_additions_poolings_and_activations_are_no_macs_but_their_constants_are_parameters():
    found = one_operator(
        Op("MUL", (0, 1), (2,)),
        T("x", "int8", (1, 4, 4, 3)),
        T("factor", "int8", (3,), np.int8([1, 2, 3]), (0.1,), (0,)),
        T("y", "int8", (1, 4, 4, 3)),
    )
    assert (found.macs, found.parameters, found.weights) == (0, 3, ())


def test_a_content_that_two_tensors_share_counts_once():
    bias = np.zeros(2, np.int32)
    kernels = np.ones((2, 2), np.int8), np.ones((2, 2), np.int8)
    layers = [
        T("x", "int8", (1, 2)),
        T("k0", "int8", (2, 2), kernels[0]),
        T("b0", "int32", (2,), bias),
        T("h", "int8", (1, 2)),
        T("k1", "int8", (2, 2), kernels[1]),
        T("b1", "int32", (2,), bias),
        T("y", "int8", (1, 2)),
    ]
    dense = (
        Op("FULLY_CONNECTED", (0, 1, 2), (3,)),
        Op("FULLY_CONNECTED", (3, 4, 5), (6,)),
    )
    found = facts(model_of(G("main", tuple(layers), dense, (0,), (6,))), "m")
    assert found.parameters == 4 + 4 + 2
    assert found.macs == 4 + 4


def test_a_float16_kernel_is_found_behind_the_operator_that_widens_it():
    graph = G(
        "main",
        (
            T("x", "float32", (1, 2)),
            T("half", "float16", (3, 2), np.float16([[0, 1], [2, 0], [0, 3]])),
            T("wide", "float32", (3, 2)),
            T("y", "float32", (1, 3)),
        ),
        (Op("DEQUANTIZE", (1,), (2,), 3), Op("FULLY_CONNECTED", (0, 2, -1), (3,))),
        (0,),
        (3,),
    )
    found = facts(model_of(graph), "m")
    assert [(w.name, w.zeros) for w in found.weights] == [("half", 3)]
    assert (found.parameters, found.macs) == (6, 6)


def test_packed_int4_weights_are_parameters_whose_zeros_are_not_counted():
    found = one_operator(
        Op("FULLY_CONNECTED", (0, 1, -1), (2,), 10),
        T("x", "int8", (1, 4)),
        T("k", "int4", (2, 4), np.uint8([0x21, 0x43, 0x65, 0x07]), (0.1,), (0,)),
        T("y", "int8", (1, 2)),
    )
    assert (found.parameters, found.weights[0].zeros, found.zero_weights) == (8, None, None)


def test_every_float_tensor_is_named_and_a_full_int8_model_has_none():
    assert facts(conv_model(), "m").float_tensors == ()
    found = one_operator(
        Op("QUANTIZE", (0,), (1,)), T("image", "float32", (1, 2)), T("q", "int8", (1, 2))
    )
    assert found.float_tensors == ("image",)


def test_operators_without_a_plain_runtime_are_named():
    graph = G(
        "main",
        (T("x", "float32", (1, 2)), T("h", "float32", (1, 2)), T("y", "float32", (1, 2))),
        (Op("FlexErf", (0,), (1,)), Op("edgetpu-custom-op", (1,), (2,))),
        (0,),
        (2,),
        signature=False,
    )
    found = facts(model_of(graph), "m")
    assert found.custom_operators == ("FlexErf", "edgetpu-custom-op")
    assert found.flex_operators == ("FlexErf",)
    assert found.signatures == ()


def test_operators_are_counted_by_name_and_version():
    assert facts(conv_model(), "m").operators == {
        ("CONV_2D", 3): 1,
        ("RESHAPE", 1): 1,
        ("FULLY_CONNECTED", 4): 1,
    }


def test_an_operator_newer_than_the_old_field_for_its_number_is_named():
    # GELU is number 150; the field that older readers look at can only say 127.
    found = one_operator(Op("GELU", (0,), (1,)), T("x", "int8", (1, 2)), T("y", "int8", (1, 2)))
    assert found.operators == {("GELU", 1): 1}


def test_signatures_and_their_tensors_are_those_of_each_subgraph():
    relu = Op("RELU", (0,), (1,))
    exits = [
        G(
            f"exit_{n}",
            (T(f"x{n}", "int8", (1, n)), T(f"y{n}", "int8", (1, n))),
            (relu,),
            (0,),
            (1,),
        )
        for n in (1, 2)
    ]
    found = facts(model_of(*exits), "m")
    assert [(s.name, s.subgraph) for s in found.signatures] == [("exit_1", 0), ("exit_2", 1)]
    assert found.signatures[1].inputs["x2"].shape == (1, 2)
    assert found.signatures[1].outputs["y2"].name == "y2"
    assert len(found.subgraphs) == 2
    assert [tensor.name for tensor in found.inputs + found.outputs] == ["x1", "y1"]


def test_scales_and_zero_points_are_those_that_were_written():
    tensors = {tensor.name: tensor for tensor in facts(conv_model(), "m").subgraphs[0].tensors}
    kernel, image = tensors["conv/kernel"], tensors["image"]
    assert (kernel.scales, kernel.zero_points, kernel.axis) == ((0.5, 2.0), (0, 0), 0)
    assert image.scales == pytest.approx((1 / 255,))
    assert (image.zero_points, image.axis, image.constant) == ((-128,), None, False)
    assert tensors["dims"].constant
    assert tensors["dims"].scales == ()


@pytest.mark.parametrize("card", [False, True], ids=["bare", "with a card"])
def test_the_parts_add_up_to_the_file(card):
    flatbuffer = conv_model()
    blob = with_card(flatbuffer, card_for(flatbuffer)) if card else flatbuffer
    sizes = facts(blob, "m").sizes
    assert sizes.total == len(blob)
    assert sizes.card == len(blob) - len(flatbuffer)
    assert sizes.weights == (24 + 2 * 4) + 2 * 4 + (24 + 3 * 4)  # conv, dims, dense
    assert sizes.metadata == 16  # min_runtime_version


def test_the_summary_survives_json():
    made = summary(facts(conv_model(), "m"))
    assert json.loads(json.dumps(made)) == made
    assert made["bytes"]["total"] == len(conv_model())
    assert made["subgraphs"][0]["operators"][0] == {
        "name": "CONV_2D",
        "version": 3,
        "output": "features",
        "macs": CONV_MACS,
    }


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "not a .tflite file"),
        (b"GIF89a and so on", "not a .tflite file: expected b'TFL3' at byte 4, got b'9a a'"),
        (b"\x10\0\0\0TFL3", "cut off or damaged"),
        (model_of(), "it has no graph"),
    ],
    ids=["empty", "a picture", "only a start", "no graph"],
)
def test_a_file_that_is_no_model_is_refused_by_name(blob, message):
    with pytest.raises(UserError, match=f"m.tflite: .*{message}"):
        facts(blob, "m.tflite")


def test_wherever_a_file_is_cut_off_it_is_refused():
    blob = conv_model()
    for length in range(0, len(blob), 5):
        with pytest.raises(UserError):
            facts(blob[:length], "m")


def test_no_flipped_byte_makes_another_error_than_a_users():
    blob, random = conv_model(), np.random.default_rng(0)
    refused = 0
    for place in random.integers(0, len(blob), 400):
        damaged = bytearray(blob)
        damaged[place] ^= int(random.integers(1, 256))
        try:
            assert facts(bytes(damaged), "m").sizes.total == len(blob)
        except UserError:
            refused += 1
    assert 0 < refused < 400


def test_a_model_that_keeps_its_weights_behind_the_flatbuffer_is_refused():
    model = schema.ModelT.InitFromPackedBuf(conv_model())
    model.buffers[1] = schema.BufferT(offset=4096, size=24)
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(UserError, match="its weights lie behind the flatbuffer"):
        facts(bytes(builder.Output()), "m")


def test_three_megabytes_are_read_in_the_blink_of_an_eye():
    kernels = [np.ones((128, 1, 1, 256), np.int8) for _ in range(96)]
    channel = tuple(np.full(128, 0.1).tolist()), (0,) * 128
    tensors = [T("x", "int8", (1, 4, 4, 256))]
    operators = []
    for number, kernel in enumerate(kernels):
        tensors += [
            T(f"k{number}", "int8", kernel.shape, kernel, *channel),
            T(f"y{number}", "int8", (1, 4, 4, 128)),
        ]
        operators.append(Op("CONV_2D", (0, 2 * number + 1, -1), (2 * number + 2,), 3))
    blob = model_of(G("main", tuple(tensors), tuple(operators), (0,), (2,)))
    assert len(blob) > 3_000_000

    started = time.process_time()
    found = facts(blob, "m")
    assert time.process_time() - started < 0.3
    assert found.macs == 96 * (4 * 4 * 128) * 256


def test_nothing_of_tensorflow_is_imported():
    modules = "card", "metadata", "facts", "inspection"
    code = "import sys; " + "".join(f"import tfedge.tflite.{module}; " for module in modules)
    code += "print([name for name in sys.modules if name.partition('.')[0] == 'tensorflow'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_converted_network_has_the_parameters_that_keras_counts_and_the_macs_of_its_layers():
    import tensorflow as tf
    import tf_keras as keras

    keras.utils.set_random_seed(0)
    # Biases must differ: the converter stores equal constants once.
    layer = {"bias_initializer": "random_normal", "activation": "relu"}
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(8, 3, strides=2, padding="same", **layer),
            keras.layers.DepthwiseConv2D(3, padding="valid", **layer),
            keras.layers.Conv2D(12, 1, **layer),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, bias_initializer="random_normal"),
        ]
    )
    spec = tf.TensorSpec((1, 16, 16, 3), tf.float32)
    step = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([step], model)
    found = facts(bytes(converter.convert()), "m")

    assert found.parameters == model.count_params()
    assert found.macs == (
        (8 * 8 * 8) * (3 * 3 * 3)  # 16x16 halved
        + (6 * 6 * 8) * (3 * 3)  # "valid" loses a pixel at each edge
        + (6 * 6 * 12) * 8
        + 10 * 12
    )
    assert found.sizes.weights >= 4 * found.parameters
    assert len(found.float_tensors) > 0
    assert found.zero_weights == 0
