from __future__ import annotations

import json

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tiny_conv import G, Op, T, conv_model, model_of

from tfedge.boards import edgetpu
from tfedge.boards.edgetpu_rules import (
    DATA_TYPE,
    LATER,
    LIMITATION,
    MAPPED,
    NOT_SUPPORTED,
    RANK,
    VERSION,
)
from tfedge.errors import UserError

S = ((0.1,), (0,))


def image(name, *shape, dtype="int8"):
    return T(name, dtype, shape, None, *(S if dtype != "float32" else ((), ())))


def numbers(name, *values):
    return T(name, "int32", (len(values),), np.int32(values))


def weights(name, *shape, dtype="int8", scales=S[0]):
    axis_zeros = (0,) * len(scales)
    return T(name, dtype, shape, np.ones(shape, np.dtype(dtype)), scales, axis_zeros)


def of(operators, *tensors, inputs=(0,)):
    last = operators[-1].outputs
    return edgetpu.mapping(model_of(G("main", tensors, tuple(operators), inputs, last)), "m")


def one(name, inputs, output, options=None, version=1):
    """The single operator's fate: `inputs` then `output` are its tensors."""
    tensors = (*inputs, output)
    op = Op(name, tuple(range(len(inputs))), (len(inputs),), version, options)
    (mapped,) = of([op], *tensors).operators
    return mapped


def statuses(found):
    return [(op.name, op.status) for op in found.operators]


def test_a_convolution_and_a_dense_layer_in_8_bits_are_mapped():
    found = edgetpu.mapping(conv_model(), "m")
    assert statuses(found) == [
        ("CONV_2D", MAPPED),
        ("RESHAPE", MAPPED),
        ("FULLY_CONNECTED", MAPPED),
    ]
    assert (found.mapped, found.total, found.refused, found.whole) == (3, 3, (), True)
    assert [op.output for op in found.operators] == ["features", "flat", "logits"]
    # conv: 24 weights and 2 biases, dense: 24 and 3.
    assert found.parameter_bytes == 24 + 2 * 4 + 24 + 3 * 4
    assert found.cached == "cached on the Edge TPU"


# What keeps each operator off the Edge TPU; the last column is a part of the reason.
FUSED = schema.Pool2DOptionsT(fusedActivationFunction=schema.ActivationFunctionType.RELU)
DILATED = schema.Conv2DOptionsT(dilationWFactor=2, dilationHFactor=1)
SHUFFLED = schema.FullyConnectedOptionsT(weightsFormat=1)
TANH = schema.AddOptionsT(fusedActivationFunction=schema.ActivationFunctionType.TANH)
ELLIPSIS = schema.StridedSliceOptionsT(ellipsisMask=1)
PICTURE = image("x", 1, 8, 8, 4)
LIMITS = {
    "an activation fused into an average": (
        *("AVERAGE_POOL_2D", [PICTURE], image("y", 1, 4, 4, 4), FUSED),
        "an activation, RELU, is fused",
    ),
    "an activation fused into a maximum": (
        *("MAX_POOL_2D", [PICTURE], image("y", 1, 4, 4, 4), FUSED),
        "an activation, RELU, is fused",
    ),
    "a tanh fused into an addition": (
        *("ADD", [PICTURE, image("z", 1, 8, 8, 4)], image("y", 1, 8, 8, 4), TANH),
        "TANH is fused into it",
    ),
    "a dilation in one direction": (
        *("CONV_2D", [PICTURE, weights("k", 2, 3, 3, 4)], image("y", 1, 4, 4, 2), DILATED),
        "dilation is 2 in x and 1 in y",
    ),
    "weights that are worked out": (
        *("CONV_2D", [PICTURE, image("k", 1, 3, 3, 4)], image("y", 1, 6, 6, 1), None),
        "weights, k, are not constant",
    ),
    "shuffled weights": (
        *("FULLY_CONNECTED", [image("x", 1, 4), weights("k", 2, 4)], image("y", 1, 2), SHUFFLED),
        "weights are shuffled",
    ),
    "a batch for a dense layer": (
        *("FULLY_CONNECTED", [image("x", 3, 4), weights("k", 2, 4)], image("y", 3, 2), None),
        "its output is [3, 2]",
    ),
    "three inputs and a constant to be joined": (
        "CONCATENATION",
        [PICTURE, image("z", 1, 8, 8, 4), T("c", "int8", (1, 8, 8, 1), np.zeros(64, np.int8), *S)],
        *(image("y", 1, 8, 8, 9), None, "a constant is joined to 2 others"),
    ),
    "a constant that is not zero to be joined": (
        *("CONCATENATION", [PICTURE, weights("c", 1, 8, 8, 1)], image("y", 1, 8, 8, 5), None),
        "not all zeros",
    ),
    "a mean over the batch": (
        *("MEAN", [PICTURE, numbers("axes", 0, 1)], image("y", 8, 4), None),
        "along the batch",
    ),
    "a mean over channels that are no multiple of 4": (
        *("MEAN", [image("x", 1, 8, 8, 6), numbers("axes", -1)], image("y", 1, 8, 8), None),
        "needs a multiple of 4, here are 6",
    ),
    "a mean over a large picture": (
        *("MEAN", [image("x", 1, 256, 128, 3), numbers("axes", 1, 2)], image("y", 1, 3), None),
        "the mean of 32,768 pixels",
    ),
    "a maximum over the batch": (
        *("REDUCE_MAX", [PICTURE, numbers("axes", 0)], image("y", 1, 8, 8, 4), None),
        "along the batch",
    ),
    "packing along the batch": (
        *("PACK", [image("x", 4), image("z", 4)], image("y", 2, 4), schema.PackOptionsT(axis=0)),
        "packs along the batch",
    ),
    "padding of the batch": (
        *("PAD", [PICTURE, numbers("by", 0, 1, 0, 0, 0, 0, 0, 0)], image("y", 1, 8, 8, 4), None),
        "pads the batch",
    ),
    "an alpha for each pixel": (
        *("PRELU", [PICTURE, weights("alpha", 8, 8, 4)], image("y", 1, 8, 8, 4), None),
        "shared_axes=[1, 2]",
    ),
    "a resize by 33": (
        *("RESIZE_BILINEAR", [image("x", 1, 1, 1, 256), numbers("size", 33, 33)]),
        *(image("y", 1, 33, 33, 256), None, "enlarges 33 times"),
    ),
    "a resize to a large picture": (
        *("RESIZE_NEAREST_NEIGHBOR", [image("x", 1, 128, 128, 8), numbers("size", 256, 256)]),
        *(image("y", 1, 256, 256, 8), None, "makes 256 pixels a side"),
    ),
    "a softmax for each pixel": (
        *("SOFTMAX", [PICTURE], image("y", 1, 8, 8, 4), None),
        "all but the last axis must be 1",
    ),
    "a softmax of too many": (
        *("SOFTMAX", [image("x", 1, 16_001)], image("y", 1, 16_001), None),
        "16,001 values, of at most 16000",
    ),
    "splitting the batch": (
        *("SPLIT", [numbers("axis", 0), PICTURE], image("y", 1, 8, 8, 4), None),
        "splits the batch",
    ),
    "a slice of every second": (
        "STRIDED_SLICE",
        [PICTURE, numbers("b", 0, 0, 0, 0), numbers("e", 1, 8, 8, 4), numbers("s", 1, 2, 2, 1)],
        *(image("y", 1, 4, 4, 4), None, "strides are [1, 2, 2, 1]"),
    ),
    "a slice with an ellipsis": (
        *("STRIDED_SLICE", [PICTURE, numbers("b", 0), numbers("e", 1), numbers("s", 1)]),
        *(image("y", 1, 8, 8, 4), ELLIPSIS, "it has ellipsisMask"),
    ),
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_documented_limit_keeps_an_operator_off(case):
    name, inputs, output, options, why = LIMITS[case]
    found = one(name, inputs, output, options)
    assert found.status == LIMITATION
    assert why in found.why.replace("16,000", "16000")


ALLOWED = {
    "ReLU fused into a convolution": (
        *("CONV_2D", [PICTURE, weights("k", 2, 3, 3, 4)], image("y", 1, 6, 6, 2)),
        schema.Conv2DOptionsT(fusedActivationFunction=1, dilationWFactor=2, dilationHFactor=2),
    ),
    "a mean over pixels": (*("MEAN", [PICTURE, numbers("axes", 1, 2)], image("y", 1, 4), None),),
    "a mean over 4 channels": (
        *("MEAN", [PICTURE, numbers("axes", 3)], image("y", 1, 8, 8, 1), None),
    ),
    "padding of pixels and channels": (
        *("PAD", [PICTURE, numbers("by", 0, 0, 1, 1, 1, 1, 0, 4)], image("y", 1, 10, 10, 8), None),
    ),
    "zeros joined to one input": (
        "CONCATENATION",
        [PICTURE, T("c", "int8", (1, 8, 8, 1), np.zeros(64, np.int8), *S)],
        *(image("y", 1, 8, 8, 5), None),
    ),
    "an enlargement by 2": (
        *("RESIZE_BILINEAR", [PICTURE, numbers("size", 16, 16)], image("y", 1, 16, 16, 4), None),
    ),
    "an alpha for each channel": (
        *("PRELU", [PICTURE, weights("alpha", 1, 1, 4)], image("y", 1, 8, 8, 4), None),
    ),
    "a split of channels": (
        *("SPLIT", [numbers("axis", 3), PICTURE], image("y", 1, 8, 8, 2), None),
    ),
    "one scale to another": ("QUANTIZE", [PICTURE], image("y", 1, 8, 8, 4, dtype="uint8"), None),
    "a softmax of logits": ("SOFTMAX", [image("x", 1, 10)], image("y", 1, 10), None),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_keeps_to_the_limits_is_mapped(case):
    found = one(*ALLOWED[case])
    assert (found.status, found.why) == (MAPPED, "")


@pytest.mark.parametrize("name", ["HARD_SWISH", "ELU", "LEAKY_RELU", "BATCH_MATMUL", "GATHER"])
def test_an_operator_that_is_not_in_the_table_is_not_supported(name):
    assert one(name, [PICTURE], image("y", 1, 8, 8, 4)).status == NOT_SUPPORTED


def test_other_types_than_8_bits_are_not_calculated_with():
    found = one("ARG_MAX", [image("x", 1, 10)], T("y", "int64", (1,)))
    assert (found.status, "it works on int64" in found.why) == (DATA_TYPE, True)
    assert one("ADD", [image("x", 1, 4, dtype="int16")] * 2, image("y", 1, 4)).status == DATA_TYPE
    four_bits = T("k", "int4", (2, 4), np.uint8([0x21, 0x43, 0x65, 0x07]), *S)
    dense = one("FULLY_CONNECTED", [image("x", 1, 4), four_bits], image("y", 1, 2))
    assert "int4" in dense.why


def test_more_than_three_axes_or_a_batch_are_of_unsupported_rank():
    found = one("RELU", [image("x", 4, 8, 8, 3)], image("y", 4, 8, 8, 3))
    assert found.status == RANK
    assert "use batch 1" in found.why


def test_an_own_operator_is_called_custom_as_in_the_log():
    boxes = T("y", "float32", (1, 10, 4))
    found = one("TFLite_Detection_PostProcess", [PICTURE], boxes)
    assert (found.name, found.status) == ("CUSTOM", DATA_TYPE)


def chain(*names, start="int8", end="int8"):
    """Operators that each take what the one before made; the ends may be floats."""
    dtypes = [start, *("int8",) * (len(names) - 1), end]
    tensors = [image(f"t{n}", 1, 8, 8, 4, dtype=dtype) for n, dtype in enumerate(dtypes)]
    return of([Op(name, (n,), (n + 1,)) for n, name in enumerate(names)], *tensors)


def test_everything_after_the_first_that_is_not_mapped_stays_on_the_cpu():
    found = chain("RELU", "HARD_SWISH", "RELU6", "LOGISTIC")
    assert [op.status for op in found.operators] == [MAPPED, NOT_SUPPORTED, LATER, LATER]
    assert found.operators[3].why == "it comes after HARD_SWISH t2, which stays on the CPU"
    assert (found.mapped, found.whole) == (1, False)


def test_the_quantize_of_a_float_input_may_come_first():
    found = chain("QUANTIZE", "RELU", "DEQUANTIZE", start="float32", end="float32")
    assert [op.status for op in found.operators] == [LIMITATION, MAPPED, DATA_TYPE]
    assert found.refused == ()


def test_a_branch_that_does_not_hang_on_an_unmapped_operator_is_mapped_still():
    # x -> relu a -> hard-swish b; x -> relu6 c; b + c
    tensors = [image(name, 1, 8, 8, 4) for name in "xabcy"]
    operators = [
        Op("RELU", (0,), (1,)),
        Op("HARD_SWISH", (1,), (2,)),
        Op("RELU6", (0,), (3,)),
        Op("ADD", (2, 3), (4,)),
    ]
    found = of(operators, *tensors)
    assert [op.status for op in found.operators] == [MAPPED, NOT_SUPPORTED, MAPPED, LATER]


@pytest.mark.parametrize(
    ("name", "version", "most"),
    [("CONV_2D", 6, 5), ("TRANSPOSE_CONV", 4, 3), ("QUANTIZE", 3, 2), ("FULLY_CONNECTED", 12, 9)],
)
def test_an_operator_newer_than_the_compiler_stops_it(name, version, most):
    tensors = PICTURE, weights("k", 4, 1, 1, 4), image("y", 1, 8, 8, 4)
    found = of([Op(name, (0, 1, 0), (2,), version)], *tensors)
    assert (
        f"builtin opcode '{name}' version '{version}' (it reads up to version {most})"
        in (found.refused[0])
    )
    assert (found.operators[0].status, found.mapped) == (VERSION, 0)
    older = of([Op(name, (0, 1, 0), (2,), most)], *tensors)
    assert older.refused == ()


def test_an_operator_that_the_compiler_never_heard_of_stops_it():
    found = of([Op("GELU", (0,), (1,))], PICTURE, image("y", 1, 8, 8, 4))
    assert "'GELU' version '1' (it reads none)" in found.refused[0]


def test_a_float_model_is_not_quantized():
    found = chain("RELU", start="float32", end="float32")
    assert found.refused == ("Model not quantized; convert it to full int8",)
    assert found.mapped == 0
    assert "the compiler refuses this file: Model not quantized" in edgetpu.describe(found)


def test_two_graphs_in_a_file_are_refused_by_the_names_of_their_signatures():
    relu = (Op("RELU", (0,), (1,)),)
    graphs = [G(n, (PICTURE, image("y", 1, 8, 8, 4)), relu, (0,), (1,)) for n in ("one", "two")]
    found = edgetpu.mapping(model_of(*graphs), "m")
    assert "it holds 2 graphs (one, two)" in found.refused[0]
    assert statuses(found) == [("RELU", edgetpu.REFUSED)]


def test_a_dynamic_batch_is_refused():
    model = schema.ModelT.InitFromPackedBuf(conv_model())
    model.subgraphs[0].tensors[0].shapeSignature = [-1, 4, 4, 3]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    found = edgetpu.mapping(bytes(builder.Output()), "m")
    assert found.refused == (
        "it has dynamic-sized tensors (image); convert with a fixed batch of 1",
    )


def test_a_compiled_file_is_not_compiled_again():
    found = of([Op("edgetpu-custom-op", (0,), (1,))], PICTURE, image("y", 1, 10))
    assert found.refused == ("it is compiled already; give the file that it was made from",)


def dense_of(rows, columns):
    return of(
        [Op("FULLY_CONNECTED", (0, 1), (2,))],
        image("x", 1, columns),
        weights("k", rows, columns),
        image("y", 1, rows),
    )


@pytest.mark.parametrize(
    ("mebibytes", "cached"),
    [
        (6, "cached on the Edge TPU"),
        (7, "probably cached on the Edge TPU"),
        (9, "about 2.1 MiB streamed every inference"),  # 9 less the 6.87 of the smallest cache seen
    ],
)
def test_parameters_that_the_edge_tpu_cannot_hold_are_streamed(mebibytes, cached):
    found = dense_of(mebibytes * 1024, 1024)
    assert (found.parameter_bytes, found.cached) == (mebibytes << 20, cached)


def test_parameters_of_what_stays_on_the_cpu_take_no_room():
    found = of(
        [Op("HARD_SWISH", (0,), (3,)), Op("FULLY_CONNECTED", (3, 1), (2,))],
        *(image("x", 1, 4), weights("k", 2, 4), image("y", 1, 2), image("h", 1, 4)),
    )
    # The swish comes before anything that is mapped, so the dense layer may still be.
    assert found.parameter_bytes == 2 * 4
    found = of(
        [Op("RELU", (0,), (4,)), Op("HARD_SWISH", (4,), (3,)), Op("FULLY_CONNECTED", (3, 1), (2,))],
        *(image("x", 1, 4), weights("k", 2, 4), image("y", 1, 2), image("h", 1, 4)),
        image("r", 1, 4),
    )
    assert found.parameter_bytes == 0


def test_a_network_too_small_to_gain_is_warned_of_as_an_estimate():
    (warning,) = dense_of(10, 100).warnings
    assert warning.startswith("1,000 MACs are few: below about 1,000,000")
    assert "an estimate" in warning
    assert dense_of(1000, 1000).warnings == ()


def test_the_share_of_macs_left_on_the_cpu_is_told():
    k = weights("k", 1000, 1000)
    found = of(
        [
            *(Op("FULLY_CONNECTED", (0, 1), (2,)), Op("ELU", (2,), (3,))),
            Op("FULLY_CONNECTED", (3, 1), (4,)),
        ],
        *(image("x", 1, 1000), k, *(image(name, 1, 1000) for name in "aby")),
    )
    assert found.warnings == ("50 % of the MACs stay on the CPU",)


def test_a_dense_layer_with_a_scale_for_each_channel_is_warned_of():
    k = weights("k", 2, 4, scales=(0.1, 0.2))
    found = of([Op("FULLY_CONNECTED", (0, 1), (2,))], image("x", 1, 4), k, image("y", 1, 2))
    assert any("y has a scale for each channel of a dense layer" in w for w in found.warnings)


def test_text_and_json_say_the_same():
    found = chain("RELU", "HARD_SWISH", "RELU6")
    text, plain = edgetpu.describe(found), edgetpu.as_json(found)
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["mapped"], plain["total"]) == (1, 3)
    assert "1 of 3 operators are mapped to the Edge TPU (predicted)" in text
    for operator in plain["operators"]:
        assert operator["status"] in text
        assert operator["why"] in text


def test_damage_is_the_users_error_and_no_traceback():
    blob, random = conv_model(), np.random.default_rng(1)
    refused = 0
    for place in random.integers(0, len(blob), 300):
        damaged = bytearray(blob)
        damaged[place] ^= int(random.integers(1, 256))
        try:
            assert edgetpu.mapping(bytes(damaged), "m").total >= 0
        except UserError:
            refused += 1
    assert 0 < refused < 300


@pytest.fixture(scope="module")
def int8():
    """Convert a network as `tfedge` does; its inputs are random."""
    import tf_keras as keras

    from tfedge.tflite.conversion import to_int8

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)

    def convert(model):
        samples = random.uniform(0, 1, (16, *model.input_shape[1:])).astype(np.float32)
        return edgetpu.mapping(to_int8(model, samples, (0.0, 1.0)), "m")

    return convert


@pytest.fixture(scope="module")
def layers():
    import tf_keras as keras

    return keras.layers


def network(layers, shape, *chain):
    import tf_keras as keras

    x = given = keras.Input(shape)
    for layer in chain:
        x = layer(x)
    return keras.Model(given, x)


@pytest.mark.slow
def test_a_mobilenet_is_mapped_whole(int8, layers):
    import tf_keras as keras

    found = int8(keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10))
    assert found.whole, edgetpu.describe(found)
    assert {op.name for op in found.operators} >= {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "SOFTMAX"}
    assert (found.refused, found.warnings) == ((), ())


@pytest.mark.slow
def test_a_large_enlargement_and_all_behind_it_stay_on_the_cpu(int8, layers):
    # As in DeepLab: 1x1 to 33x33, and what follows.
    found = int8(
        network(
            layers,
            (33, 33, 3),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.UpSampling2D(33, interpolation="bilinear"),
            layers.Conv2D(4, 1),
        )
    )
    names = dict(statuses(found)[:-1])
    assert names["CONV_2D"] == MAPPED
    assert names["RESIZE_BILINEAR"] == LIMITATION
    assert found.operators[-1].status == LATER


@pytest.mark.slow
def test_hard_swish_is_not_mapped(int8, layers):
    import tensorflow as tf

    def swish(x):
        return x * tf.nn.relu6(x + 3) / 6

    found = int8(
        network(
            layers,
            (8, 8, 3),
            *(layers.Conv2D(8, 3), layers.Lambda(swish), layers.Conv2D(8, 3)),
        )
    )
    assert statuses(found) == [
        ("CONV_2D", MAPPED),
        ("HARD_SWISH", NOT_SUPPORTED),
        ("CONV_2D", LATER),
    ]


@pytest.mark.slow
def test_an_lstm_in_8_bits_is_mapped(int8, layers):
    found = int8(network(layers, (28, 28), layers.LSTM(16, unroll=False), layers.Dense(10)))
    names = dict(statuses(found))
    assert names["UNIDIRECTIONAL_SEQUENCE_LSTM"] == MAPPED, edgetpu.describe(found)
    assert names["FULLY_CONNECTED"] == MAPPED


@pytest.mark.slow
def test_a_float_network_is_refused_as_not_quantized(layers):
    from tfedge.tflite.conversion import to_float

    model = network(layers, (8, 8, 3), layers.Conv2D(8, 3))
    assert "Model not quantized" in edgetpu.mapping(to_float(model), "m").refused[0]


@pytest.mark.slow
def test_a_network_converted_with_a_free_batch_is_refused(layers):
    import tensorflow as tf

    model = network(layers, (8, 8, 3), layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(4))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    random = np.random.default_rng(0)
    converter.representative_dataset = lambda: (
        [random.uniform(0, 1, (1, 8, 8, 3)).astype(np.float32)] for _ in range(8)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    found = edgetpu.mapping(bytes(converter.convert()), "m")
    assert any("dynamic-sized tensors" in reason for reason in found.refused)
