import numpy as np
import pytest

pytestmark = pytest.mark.slow

SPIKE = 40.0


@pytest.fixture(scope="module")
def r():
    from tfedge.tflite import ranges

    return ranges


@pytest.fixture(scope="module")
def c():
    from tfedge.tflite import calibration

    return calibration


@pytest.fixture(scope="module")
def model():
    """A network that adds its channels, and then shares scales between many operators."""
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = given = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 1, use_bias=False, name="tail")(x)
    y = layers.MaxPooling2D(2, 1, padding="same")(layers.Reshape((8, 8, 4))(x))
    x = layers.Concatenate()([x, y, layers.ZeroPadding2D()(layers.Conv2D(3, 3)(y))])
    model = keras.Model(given, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)), name="net")
    model.get_layer("tail").set_weights([np.eye(4, dtype=np.float32)[None, None]])
    return model


@pytest.fixture(scope="module")
def samples():
    x = np.random.default_rng(0).normal(0, 1, (64, 8, 8, 4)).astype(np.float32)
    x[0, 0, 0, 0] = SPIKE  # one value in 16,384 is 40 times as large as the others
    return x


def graph(flatbuffer):
    from tfedge.tflite.running import unpacked

    return unpacked(flatbuffer).subgraphs[0]


def spans(flatbuffer):
    return {
        tensor.name.decode(): (float(tensor.quantization.min[0]), float(tensor.quantization.max[0]))
        for tensor in graph(flatbuffer).tensors
        if tensor.quantization is not None and tensor.quantization.min is not None
    }


def lost(x, low, high):
    """Quantise as the converter does (Jacob et al. 2018, section 3), and measure."""
    scale = (high - low) / 255
    zero = np.clip(np.round(-128 - low / scale), -128, 127)
    q = np.clip(np.round(x / scale + zero), -128, 127)
    return np.mean(((q - zero) * scale - x) ** 2)


def tallied(r, x):
    tally = r.Tally.between(float(x.min()), float(x.max()))
    for part in np.array_split(x, 3):
        tally.add(part)
    return tally.values, tally.counts


@pytest.mark.parametrize("kind", ["laplace", "rectified", "spike", "negative", "even"])
def test_no_other_range_loses_less(r, kind):
    random = np.random.default_rng(1)
    x = {
        "laplace": random.laplace(size=40_000),
        "rectified": np.maximum(random.standard_t(3, size=40_000), 0),
        "spike": np.append(random.normal(1, 2, 40_000), 100.0),
        "negative": -random.exponential(size=40_000),
        "even": random.uniform(-1, 3, 40_000),
    }[kind]
    found = lost(x, *r.best_range(*tallied(r, x)))
    low, high = min(x.min(), 0), max(x.max(), 0)
    shares = np.linspace(0.02, 1, 50)
    others = [
        lost(x, low * a, high * b)
        for a in (shares if low else [0])
        for b in (shares if high else [0])
        if high * b > low * a
    ]
    assert found <= 1.05 * min(others)
    assert found <= lost(x, low, high)


def test_the_error_of_a_range_is_that_of_the_quantiser(r):
    x = np.random.default_rng(2).normal(0.3, 1, 20_000)
    for low, high in ((-1.0, 2.0), (-3.0, 0.7), (-4.0, 4.0)):
        assert r.squared_error(*tallied(r, x), low, high) == pytest.approx(lost(x, low, high), 0.02)


def test_an_activation_that_is_always_zero_has_some_range(r):
    low, high = r.best_range(np.array([0.0, 1.0]), np.array([9, 0]))
    assert low <= 0 < high


def test_an_outlier_no_longer_sets_the_range_of_an_activation(r, c, model, samples):
    before = c.calibrated(model, samples, (-SPIKE, SPIKE))
    after = r.with_best_ranges(before, samples)
    (tail,) = [name for name in spans(before) if name.startswith("net/tail")]
    assert spans(before)[tail][1] == pytest.approx(SPIKE)
    low, high = spans(after)[tail]
    assert high < SPIKE
    assert lost(samples, low, high) < lost(samples, *spans(before)[tail])


def test_the_input_and_the_answers_keep_their_ranges(r, c, model, samples):
    before = c.calibrated(model, samples, (-SPIKE, SPIKE))
    after = r.with_best_ranges(before, samples)
    ends = [graph(before).inputs[0], graph(before).outputs[0]]
    names = [graph(before).tensors[index].name.decode() for index in ends]
    assert [spans(after)[name] for name in names] == [spans(before)[name] for name in names]
    assert spans(after) != spans(before)


@pytest.mark.parametrize("form", ["int8", "int16x8"])
def test_operators_that_share_a_scale_still_become_integers(r, c, model, samples, form):
    from tfedge.tflite.facts import facts

    file = r.with_best_ranges(c.calibrated(model, samples, (-SPIKE, SPIKE)), samples)
    found = facts(c.quantised(file, form), "x")
    assert found.float_tensors == ()
    assert {name for name, _ in found.operators} >= {"CONCATENATION", "MAX_POOL_2D", "PAD"}
