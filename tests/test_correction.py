import numpy as np
import pytest

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def f():
    from tfedge.tflite import correction

    return correction


@pytest.fixture(scope="module")
def c():
    from tfedge.tflite import calibration

    return calibration


@pytest.fixture(scope="module")
def keras():
    from tfedge.networks.backend import keras

    return keras


def files(c, model, x):
    file = c.calibrated(model, x, (0.0, 1.0))
    return c.quantised(file), file


def inputs(shape=(8, 8, 4), count=48):
    return np.random.default_rng(0).uniform(0, 1, (count, *shape)).astype(np.float32)


def biases(flatbuffer):
    """Read each weighted operator's biases, scales, and the numbers of its tensor and buffer."""
    from tfedge.tflite.running import unpacked

    file = unpacked(flatbuffer)
    graph, found = file.subgraphs[0], []
    for operator in graph.operators:
        if len(operator.inputs) > 2 and graph.tensors[operator.inputs[2]].type == 2:
            tensor = graph.tensors[operator.inputs[2]]
            values = np.frombuffer(bytes(file.buffers[tensor.buffer].data), np.int32)
            found.append((values, tensor.quantization.scale, operator.inputs[2], tensor.buffer))
    return found


def errors(c, quantised, float32, x, kinds=("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")):
    """Measure each weighted layer's mean squared error and mean error, both [channels]."""
    from tfedge.tflite.facts import facts
    from tfedge.tflite.running import Run

    runs = Run(quantised), Run(float32)
    ends = [
        [o.outputs[0] for o in facts(blob, "x").subgraphs[0].operators if o.name in kinds]
        for blob in (quantised, float32)
    ]
    rows = []
    for item in x:
        for run in runs:
            run.feed(item)
        gaps = [runs[1].value(b) - runs[0].value(a) for a, b in zip(*ends, strict=True)]
        gaps = [gap.reshape(-1, gap.shape[-1]) for gap in gaps]
        rows.append([np.stack([(gap**2).mean(0), gap.mean(0)]) for gap in gaps])
    return [np.mean(column, axis=0) for column in zip(*rows, strict=True)]


def slanted(keras, activation=None):
    """Weights that are all rounded down by 0.4 of a step, but for the largest: 127 steps of 1/127.

    So each channel is too small by (its inputs' sum) * 0.4 / 127.
    """
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(3)
    kernel = (random.integers(-60, 60, (1, 1, 64, 8)) + 0.4) / 127
    kernel[0, 0, 0] = 1.0
    given = keras.Input((4, 4, 64))
    layer = keras.layers.Conv2D(8, 1, activation=activation, bias_initializer="ones")
    model = keras.Model(given, keras.layers.GlobalAveragePooling2D()(layer(given)))
    layer.set_weights([kernel, layer.get_weights()[1]])
    return model, kernel


def test_a_bias_makes_up_for_the_mean_of_what_rounding_took(f, c, keras):
    model, _ = slanted(keras)
    x = inputs((4, 4, 64))
    int8, file = files(c, model, x)
    mended = f.with_corrected_biases(int8, file, x)
    ((old, scales, *_),), ((new, *_),) = biases(int8), biases(mended)
    expected = x[..., 1:].sum(-1).mean() * 0.4 / 127
    # The int8 answer's own rounding, of a step of 0.04, leaves some of its mean.
    assert (new - old) * scales == pytest.approx(np.full(8, expected), rel=0.1)
    (before,), (after,) = errors(c, int8, file, x), errors(c, mended, file, x)
    assert (np.abs(after[1]) < 0.1 * np.abs(before[1])).all()
    assert (after[0] < before[0]).all()


def test_behind_a_relu_the_bias_moves_by_what_was_lost_before_it(f, c, keras):
    model, _ = slanted(keras, "relu")
    x = inputs((4, 4, 64))
    int8, file = files(c, model, x)
    mended = f.with_corrected_biases(int8, file, x)
    ((old, scales, *_),), ((new, *_),) = biases(int8), biases(mended)
    open_share = (model.layers[1](x).numpy() > 0).mean(axis=(0, 1, 2))
    assert open_share.min() < 0.6  # else the activation would not matter here
    moved = ((new - old) * scales)[open_share > 0.2]
    assert moved == pytest.approx(np.full(len(moved), x[..., 1:].sum(-1).mean() * 0.4 / 127), 0.25)


def deep(keras, *, twice=False):
    keras.utils.set_random_seed(1)
    layers = keras.layers
    x = given = keras.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, activation="relu", bias_initializer="random_normal")(x)
    wide = layers.DepthwiseConv2D(3, padding="same", name="wide", bias_initializer="ones")
    x = wide(wide(x)) if twice else wide(x)
    x = layers.ReLU(6.0)(layers.Conv2D(8, 1, bias_initializer="random_normal")(x))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(given, layers.Dense(5, bias_initializer="random_normal")(x))
    if not twice:
        kernel, bias = wide.get_weights()
        wide.set_weights([kernel * np.geomspace(1, 1000, 6)[:, None].astype(np.float32), bias])
    return model


def test_no_layer_of_a_deep_network_is_worse_and_nothing_but_biases_changes(f, c, keras):
    x = inputs()
    int8, file = files(c, deep(keras), x)
    mended = f.with_corrected_biases(int8, file, x)
    before, after = errors(c, int8, file, x), errors(c, mended, file, x)
    assert len(before) == 4
    assert after[0][0].sum() < before[0][0].sum()
    assert after[-1][0].sum() < before[-1][0].sum()
    assert len(mended) == len(int8)
    changed = np.flatnonzero(np.frombuffer(int8, np.uint8) != np.frombuffer(mended, np.uint8))
    places = [int8.index(values.tobytes()) for values, *_ in biases(int8)]
    sizes = [values.nbytes for values, *_ in biases(int8)]
    inside = [
        any(start <= at < start + size for start, size in zip(places, sizes, strict=True))
        for at in changed
    ]
    assert inside
    assert all(inside)


def test_a_channel_whose_error_would_grow_keeps_its_bias(f, c, keras):
    """Corrected for other inputs than it is given, a network may get worse; on its own, never."""
    x = inputs(count=6)
    int8, file = files(c, deep(keras), x)
    mended = f.with_corrected_biases(int8, file, x)
    # The first layer's error depends on no other layer's correction.
    first, then = errors(c, int8, file, x)[0][0], errors(c, mended, file, x)[0][0]
    assert (then <= first).all()
    again = f.with_corrected_biases(mended, file, x)
    once_more = errors(c, again, file, x)[0][0]
    assert (once_more <= then).all()


def test_biases_that_are_shared_get_apart(f, c, keras):
    from tfedge.tflite.running import answers, packed, unpacked

    x = inputs()
    int8, file = files(c, deep(keras, twice=True), x)
    shared = unpacked(int8)
    graph = shared.subgraphs[0]
    pair = [
        operator
        for operator in graph.operators
        if shared.operatorCodes[operator.opcodeIndex].builtinCode == 4  # DEPTHWISE_CONV_2D
    ]
    assert len(pair) == 2
    pair[1].inputs = [*pair[1].inputs[:2], pair[0].inputs[2]]
    shared = packed(shared)
    assert len({tensor for _, _, tensor, _ in biases(shared)}) == 4
    mended = f.with_corrected_biases(shared, file, x)
    assert len({tensor for _, _, tensor, _ in biases(mended)}) == 5
    assert len({buffer for *_, buffer in biases(mended)}) == 5
    one, two = (values for values, *_ in biases(mended)[1:3])
    assert not np.array_equal(one, two)
    assert answers(mended, x).shape == (len(x), 5)
    for values, *_ in biases(mended):
        assert mended.index(values.tobytes()) % 16 == 0


def test_a_layer_without_biases_or_in_float_is_left_as_it_is(f, c, keras):
    from tfedge.tflite.facts import facts

    x = inputs()
    model = deep(keras)
    model.layers[-1].set_weights([model.layers[-1].get_weights()[0], np.zeros(5, np.float32)])
    file = c.calibrated(model, x, (0.0, 1.0))
    found = facts(file, "x").subgraphs[0]
    (wide,) = [o.outputs[0] for o in found.operators if o.name == "DEPTHWISE_CONV_2D"]
    int8 = c.quantised(file, float_layers=[found.tensors[wide].name])
    assert len(biases(int8)) == 2
    mended = f.with_corrected_biases(int8, file, x)
    assert len(biases(mended)) == 2
    assert facts(mended, "x").operators == facts(int8, "x").operators


def test_int16x8_is_corrected_as_well(f, c, keras):
    model, _ = slanted(keras)
    x = inputs((4, 4, 64))
    file = c.calibrated(model, x, (0.0, 1.0))
    int16 = c.quantised(file, "int16x8")
    mended = f.with_corrected_biases(int16, file, x)
    (before,), (after,) = errors(c, int16, file, x), errors(c, mended, file, x)
    assert (np.abs(after[1]) < 0.01 * np.abs(before[1])).all()


def test_files_of_two_networks_are_refused(f, c, keras):
    x = inputs()
    int8, _ = files(c, deep(keras), x)
    _, other = files(c, deep(keras, twice=True), x)
    with pytest.raises(UserError, match="has 4 layers with weights, the float file 5, and"):
        f.with_corrected_biases(int8, other, x)
