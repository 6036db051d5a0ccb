import numpy as np
import pytest

from tfedge.data.grid import on_grid
from tfedge.errors import UserError
from tfedge.tflite.facts import facts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def c():
    from tfedge.tflite import calibration

    return calibration


@pytest.fixture(scope="module")
def keras():
    from tfedge.networks.backend import keras

    return keras


def inputs(low=0.0, count=32):
    return np.random.default_rng(0).uniform(low, 1, (count, 8, 8, 2)).astype(np.float32)


@pytest.fixture
def model(keras):
    """A network whose operators share scales in all ways that there are."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    given = keras.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(given)
    y = layers.DepthwiseConv2D(3, padding="same", name="deep")(x)
    x = layers.Concatenate(name="join")([layers.Add(name="sum")([x, y]), y])
    x = layers.Reshape((4, 64))(layers.MaxPooling2D()(x))
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Reshape((4, 4, 16))(x))
    return keras.Model(given, layers.Dense(4, name="answer")(x), name="net")


def tensors(flatbuffer):
    from tfedge.tflite.running import unpacked

    return unpacked(flatbuffer).subgraphs[0].tensors


def by_the_converter(c, model, samples, limits, sixteen=False):
    """Convert in one go, as TensorFlow's guide does; the first sample reaches to the limits."""
    import tensorflow as tf

    from tfedge.progress import quietly

    samples = samples.copy()
    samples[0].reshape(-1)[[0, -1]] = limits
    converter = c.converter_of(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    sets, kind = tf.lite.OpsSet, tf.int16 if sixteen else tf.int8
    converter.target_spec.supported_ops = [
        sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        if sixteen
        else sets.TFLITE_BUILTINS_INT8
    ]
    converter.inference_input_type = converter.inference_output_type = kind
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    with quietly():
        return samples, bytes(converter.convert())


def same_graph(one, two):
    from tfedge.tflite.running import unpacked

    one, two = unpacked(one), unpacked(two)
    assert [list(o.inputs) for o in one.subgraphs[0].operators] == [
        list(o.inputs) for o in two.subgraphs[0].operators
    ]
    for a, b in zip(one.subgraphs[0].tensors, two.subgraphs[0].tensors, strict=True):
        assert (a.name, a.type, list(a.shape)) == (b.name, b.type, list(b.shape))
        assert np.array_equal(one.buffers[a.buffer].data, two.buffers[b.buffer].data)
        if a.quantization is not None and a.quantization.scale is not None:
            assert np.array_equal(a.quantization.scale, b.quantization.scale)
            assert np.array_equal(a.quantization.zeroPoint, b.quantization.zeroPoint)
    return True


@pytest.mark.parametrize(
    ("limits", "scale", "zeros"),
    [
        ((0, 1), 1 / 255, {-128}),
        ((-1, 0), 1 / 255, {127}),
        ((-1, 1), 1 / 127, {-1, 0}),
        ((-128, 127), 1, {0}),
        ((-2.5, 2), 2 / 113, {14}),  # 142 steps below 0 and 113 above; 2.5 / 142 is less
        ((-0.001, 1), 1 / 254, {-127}),  # a whole step, for however little below 0
        ((0.2, 1), 1 / 255, {-128}),  # 0 itself is always covered
    ],
)
def test_a_range_is_widened_until_zero_is_on_the_grid(c, limits, scale, zeros):
    low, high = on_grid(*limits)
    found = (high - low) / 255
    assert found == pytest.approx(scale, rel=1e-9)
    assert round(-128 - low / found) in zeros
    assert low / found == pytest.approx(round(low / found), abs=1e-6)
    assert low <= limits[0] + 1e-12
    assert high >= limits[1] - 1e-12


def test_a_range_of_nothing_is_refused(c):
    with pytest.raises(ValueError, match="must hold more than 0"):
        on_grid(0.0, 0.0)


def test_the_file_has_the_ranges_that_the_network_shows(c, keras, model):
    x = inputs()
    file = c.calibrated(model, x, (-0.5, 2.0))
    for name in ("first", "deep", "sum", "join", "mean"):
        seen = keras.Model(model.input, model.get_layer(name).output)(x).numpy()
        found = [t for t in tensors(file) if t.name.decode().startswith(f"net/{name}")]
        given = next(q for t in found if (q := t.quantization) and q.min is not None)
        assert given.min[0] == pytest.approx(seen.min(), abs=1e-5)
        assert given.max[0] == pytest.approx(seen.max(), abs=1e-5)
    given = tensors(file)[0].quantization
    assert (given.min[0], given.max[0]) == (-0.5, 2.0)


@pytest.mark.parametrize("form", ["int8", "int16x8"])
def test_a_float_network_becomes_what_the_converter_makes_of_it(c, model, form):
    samples, expected = by_the_converter(c, model, inputs(), (0, 1), sixteen=form == "int16x8")
    found = c.quantised(c.calibrated(model, samples, (0, 1)), form)
    assert same_graph(found, expected)


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-1.0, 1.0)])
def test_a_quantization_aware_network_becomes_what_the_converter_makes_of_it(c, model, limits):
    from tfedge.training.quantization import quantization_aware

    aware = quantization_aware(model, inputs(limits[0]), limits, ["deep"])
    samples, expected = by_the_converter(c, aware, inputs(limits[0]), limits)
    assert same_graph(c.quantised(c.calibrated(aware, samples, limits)), expected)


def test_named_operators_stay_float_and_all_others_are_int8(c, model):
    file = c.calibrated(model, inputs(), (0, 1))
    (deep,) = [t.name.decode() for t in tensors(file) if "net/deep/depthwise1" in t.name.decode()]
    found = facts(c.quantised(file, float_layers=[deep]), "x").subgraphs[0]
    kinds = {
        operator.name: {found.tensors[i].dtype for i in operator.outputs}
        for operator in found.operators
    }
    assert kinds.pop("DEPTHWISE_CONV_2D") == {"float32"}
    assert kinds.pop("DEQUANTIZE") == {"float32"}
    assert set.union(*kinds.values()) == {"int8"}
    assert found.tensors[found.inputs[0]].dtype == "int8"


def test_what_cannot_be_kept_in_float_is_refused(c, model):
    file = c.calibrated(model, inputs(), (0, 1))
    with pytest.raises(UserError, match=r"'net/sum/ad'\n  did you mean 'net/sum/add'"):
        c.quantised(file, float_layers=["net/sum/ad"])
    with pytest.raises(UserError, match="int16x8 has no layers in float, got net/sum/add"):
        c.quantised(file, "int16x8", ["net/sum/add"])
    with pytest.raises(ValueError, match="expected one of int8, int16x8, got 'int4'"):
        c.quantised(file, "int4")


@pytest.mark.parametrize(("form", "steps"), [("int8", 255), ("int16x8", 2 * 32767)])
def test_a_range_that_was_changed_in_the_file_is_taken(c, model, form, steps):
    from tfedge.tflite.running import packed, unpacked

    file = unpacked(c.calibrated(model, inputs(), (0, 1)))
    (index,) = file.subgraphs[0].outputs
    given = file.subgraphs[0].tensors[index].quantization
    given.min, given.max = [-8.0], [8.0]
    (answer,) = facts(c.quantised(packed(file), form), "x").outputs
    assert answer.scales == (pytest.approx(16 / steps, rel=1e-4),)


def test_a_loop_is_refused_by_name_and_an_lstm_is_none(c, keras):
    layers, x = keras.layers, inputs()[:, :6, :3, 0]

    def around(layer):
        given = keras.Input((6, 3))
        return keras.Model(given, layers.Dense(2)(layer(given)), name="net")

    with pytest.raises(
        UserError, match=r"'net': holds a loop.*: again\n  build the layer with unr"
    ):
        c.calibrated(around(layers.GRU(4, name="again")), x, (0, 1))
    for layer in (layers.GRU(4, unroll=True), layers.LSTM(4)):
        found = facts(c.quantised(c.calibrated(around(layer), x, (0, 1))), "x").subgraphs[0]
        used = {i for operator in found.operators for i in (*operator.inputs, *operator.outputs)}
        assert "float32" not in {found.tensors[i].dtype for i in used - {-1}}
