import numpy as np
import pytest

from tfedge.errors import UserError
from tfedge.tflite import comparison, names
from tfedge.tflite.comparison import LIMIT_DB, compare, decibels

pytestmark = pytest.mark.slow

SPREAD = 1000.0


def random_inputs(shape, count=48):
    return np.random.default_rng(1).random((count, *shape), np.float32)


def depthwise_net(factors=None):
    """Conv, depthwise, 1x1 conv, pooling, dense; the depthwise layer's channels times `factors`."""
    from tfedge.networks.backend import keras

    layers = keras.layers
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    x = images = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.ZeroPadding2D(name="pad")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.ReLU(name="depthwise_relu")(x)
    x = layers.Conv2D(24, 1, activation="relu", name="pointwise")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(images, layers.Dense(4, name="logits")(x), name="net")
    if factors is not None:
        factors = np.float32(factors)
        kernel, bias = model.get_layer("depthwise").get_weights()
        model.get_layer("depthwise").set_weights([kernel * factors[:, None], bias * factors])
        kernel, bias = model.get_layer("pointwise").get_weights()
        model.get_layer("pointwise").set_weights([kernel / factors[:, None], bias])
    return model


def both(model, inputs, form="int8"):
    from tfedge.tflite.conversion import convert, to_float

    return to_float(model), convert(model, form, inputs, (0.0, 1.0))


def by_name(found):
    return {layer.layer: layer for layer in found.layers}


@pytest.fixture(scope="module")
def plain():
    model, inputs = depthwise_net(), random_inputs((8, 8, 3))
    return (*both(model, inputs), inputs, names.of_network(model))


def test_a_ratio_is_what_its_formula_says_and_ends_where_float_does():
    assert decibels(100.0, 1.0) == pytest.approx(20.0)
    assert decibels(1.0, 1.0) == 0.0
    assert decibels(1.0, 0.0) == decibels(0.0, 0.0) == LIMIT_DB
    assert decibels(0.0, 1.0) == decibels(1.0, 1e300) == -LIMIT_DB


@pytest.mark.parametrize("form", ["int8", "int16x8"])
@pytest.mark.parametrize("spread", ["geometric", "even", "two sizes"])
def test_a_layer_whose_channels_differ_a_thousandfold_is_named_first(form, spread):
    factors = {
        "geometric": np.geomspace(1, SPREAD, 16),
        "even": np.linspace(1, SPREAD, 16),
        "two sizes": np.where(np.arange(16) % 2, SPREAD, 1.0),
    }[spread]
    inputs = random_inputs((8, 8, 3))
    model = depthwise_net(np.random.default_rng(0).permutation(factors))
    exact, coarse = both(model, inputs, form)
    worst, second, *_ = compare(exact, coarse, inputs[:16], names.of_network(model)).layers
    assert (worst.layer, worst.kind) == ("depthwise", "DepthwiseConv2D")
    assert worst.own_db < 15.0 < second.own_db - 10.0
    if form == "int8":
        assert worst.lost > 0


def test_where_channels_are_alike_no_layer_stands_out(plain):
    exact, coarse, inputs, layers = plain
    found = compare(exact, coarse, inputs[:16], layers)
    assert found.left_out == 0
    assert found.count == 16
    assert min(layer.own_db for layer in found.layers) > 25.0


def test_every_layer_has_its_keras_name_and_what_was_fused_with_it(plain):
    exact, coarse, inputs, layers = plain
    found = by_name(compare(exact, coarse, inputs[:4], layers))
    assert {"stem", "depthwise", "pointwise", "pool", "mean", "logits"} <= set(found)
    assert found["depthwise"].fused[0] == "depthwise"
    assert "depthwise_relu" in found["depthwise"].fused
    assert found["stem"].order < found["depthwise"].order < found["logits"].order
    assert found["pool"].kind == "MaxPooling2D"


def test_without_a_network_names_come_from_the_file(plain):
    exact, coarse, inputs, _ = plain
    found = by_name(compare(exact, coarse, inputs[:4]))
    assert {"stem", "depthwise", "pointwise", "pool", "mean", "logits"} <= set(found)
    assert found["depthwise"].kind == "DEPTHWISE_CONV_2D"


def test_pooling_hands_on_what_it_got_and_adds_nothing(plain):
    exact, coarse, inputs, layers = plain
    pool = by_name(compare(exact, coarse, inputs[:8], layers))["pool"]
    assert pool.own_db == LIMIT_DB
    assert pool.arrived_db < 60.0
    assert pool.weights_db is None


def tensors_of(flatbuffer, inputs, wanted):
    """Return one tensor for each input, dequantised, as the interpreter has it."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    run = Interpreter(
        model_content=flatbuffer,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    run.allocate_tensors()
    (given,) = run.get_input_details()
    (detail,) = [d for d in run.get_tensor_details() if wanted(d)]
    rows = []
    for x in inputs:
        scale, zero = given["quantization"]
        x = np.clip(np.round(x / scale) + zero, -128, 127).astype(np.int8) if scale else x
        run.set_tensor(given["index"], x[None])
        run.invoke()
        raw = run.get_tensor(detail["index"]).astype(np.float64)
        scales, zeros = (detail["quantization_parameters"][k] for k in ("scales", "zero_points"))
        along = [-1 if len(scales) > 1 and axis == 0 else 1 for axis in range(raw.ndim)]
        rows.append((raw - zeros.reshape(along)) * scales.reshape(along) if len(scales) else raw)
    return np.stack(rows)


@pytest.mark.parametrize(
    ("wanted", "figure"),
    [
        (lambda d: d["name"].startswith("net/pointwise/Relu") and d["shape"][-1] == 24, "arrived"),
        (lambda d: tuple(d["shape"]) == (24, 1, 1, 16), "weights"),
    ],
)
def test_ratios_are_those_of_the_tensors_in_the_two_files(plain, wanted, figure):
    exact, coarse, inputs, layers = plain
    f, q = (tensors_of(file, inputs[:8], wanted) for file in (exact, coarse))
    expected = 10 * np.log10((f**2).sum() / ((f - q) ** 2).sum())
    found = by_name(compare(exact, coarse, inputs[:8], layers))["pointwise"]
    got = found.arrived_db if figure == "arrived" else found.weights_db
    assert got == pytest.approx(expected, abs=0.01)


def dense_net():
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    given = keras.Input((12,))
    return keras.Model(given, keras.layers.Dense(5, use_bias=False, name="fc")(given), name="net")


def test_what_a_layer_damages_alone_is_its_rounded_weights_and_its_rounded_answer():
    model = dense_net()
    x = np.float32(np.random.default_rng(2).integers(0, 2, (40, 12)))  # on the grid, all as large
    exact, coarse = both(model, x)
    found = by_name(compare(exact, coarse, x[:20], names.of_network(model)))["fc"]

    kernel = model.get_layer("fc").get_weights()[0]
    step = np.abs(kernel).max() / 127  # one scale for all of a dense layer
    rounded = np.round(kernel / step) * step
    y = x @ kernel
    low, high = min(y.min(), 0), max(y.max(), 0)
    grid = (high - low) / 255
    zero = np.round(-128 - low / grid)
    steps = np.clip(np.round((x[:20] @ rounded) / grid) + zero, -128, 127)
    noise = ((steps - zero) * grid - y[:20]) ** 2
    assert found.own_db == pytest.approx(10 * np.log10((y[:20] ** 2).sum() / noise.sum()), abs=0.1)
    signal = (kernel**2).sum() / ((kernel - rounded) ** 2).sum()
    assert found.weights_db == pytest.approx(10 * np.log10(signal), abs=0.01)


def test_a_network_trained_for_int8_is_paired_with_its_float_twin_and_named_alike():
    from tfedge.tflite.conversion import to_float, to_int8
    from tfedge.training.quantization import float_twin, quantization_aware

    model, inputs = depthwise_net(), random_inputs((8, 8, 3))
    aware = quantization_aware(model, inputs, (0.0, 1.0))
    coarse = to_int8(aware, inputs, (0.0, 1.0))
    for exact in (to_float(float_twin(aware, model)), to_float(aware)):
        found = compare(exact, coarse, inputs[:8], names.of_network(aware))
        assert found.left_out == 0
        assert {"stem", "depthwise", "pointwise", "logits"} <= set(by_name(found))
        assert by_name(found)["depthwise"].kind == "DepthwiseConv2D"
        assert min(layer.arrived_db for layer in found.layers) > 15.0


def test_a_residual_network_is_followed_through_its_additions():
    from models.resnet import resnet8
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model, inputs = resnet8((16, 16, 3), 4, width=4), random_inputs((16, 16, 3), 12)
    exact, coarse = both(model, inputs)
    found = compare(exact, coarse, inputs, names.of_network(model))
    assert found.left_out == 0
    assert by_name(found)["add"].fused == ("add", "re_lu_2")
    assert all(layer.own_db > 15.0 for layer in found.layers)


def test_files_that_were_swapped_or_do_not_belong_together_are_refused(plain):
    exact, coarse, inputs, _ = plain
    with pytest.raises(UserError, match=r"is quantised in .*\n.*before it was quantised"):
        compare(coarse, exact, inputs[:1])
    other = both(dense_net(), random_inputs((12,)))[1]
    with pytest.raises(UserError, match="made of one network"):
        compare(exact, other, inputs[:1])


def test_progress_is_told_and_the_worst_comes_first(plain):
    exact, coarse, inputs, layers = plain
    told = []
    found = compare(exact, coarse, inputs[:3], layers, told.append)
    assert told == [1, 2, 3]
    ratios = [layer.own_db for layer in found.layers]
    assert ratios == sorted(ratios)
    assert comparison.flow_of(exact, "x").steps
