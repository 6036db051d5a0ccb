import numpy as np
import pytest

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def c():
    from tfedge.networks import clipping

    return clipping


def error(weights, limit):
    """Return the squared error of int8 with a limit: each weight to the nearest of 255 numbers."""
    grid = limit * np.arange(-127, 128) / 127
    nearest = grid[np.digitize(weights, (grid[1:] + grid[:-1]) / 2)]
    return np.square(weights - nearest).sum()


def with_outliers(shape, seed=0):
    """Return normal numbers, a few of them twelve times the standard deviation."""
    weights = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    weights.reshape(-1)[::50_000] = 12
    return weights


def test_no_hundredth_of_the_largest_weight_is_a_better_limit(c):
    weights = with_outliers((100_000, 3))
    for column, limit in zip(weights.T.astype(np.float64), c.best_limits(weights), strict=True):
        largest = np.abs(column).max()
        errors = {n: error(column, largest * n / 100) for n in range(1, 101)}
        assert limit == pytest.approx(largest * min(errors, key=errors.get) / 100)
        assert error(column, limit) < 0.9 * errors[100]


def test_weights_without_an_outlier_are_left_alone(c):
    weights = np.random.default_rng(0).choice([-0.5, 0.5], (64, 3)).astype(np.float32)
    assert c.best_limits(weights) == pytest.approx([0.5] * 3)


def test_a_column_of_zeros_stays_one(c):
    weights = with_outliers((100, 2))
    weights[:, 0] = 0
    assert c.best_limits(weights)[0] == 0
    assert c.best_limits(weights)[1] == c.best_limits(weights[:, 1:])[0]


@pytest.fixture(scope="module")
def model(c):
    layers = c.keras.layers
    x = inputs = c.keras.Input((8, 8, 32))
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.BatchNormalization(name="norm")(x)
    made = c.keras.Model(inputs, layers.Dense(500, name="dense")(layers.Flatten()(x)))
    for number, name in enumerate(("conv", "depthwise", "dense")):
        kernel, bias = made.get_layer(name).get_weights()
        made.get_layer(name).set_weights([with_outliers(kernel.shape, number), bias + 9])
    return made


def test_convolutions_are_clipped_by_channel_and_dense_layers_as_a_whole(c, model):
    before = [weight.copy() for weight in model.get_weights()]
    twin = c.clipped(model)
    columns = {"conv": (288, 4), "depthwise": (9, 8), "dense": (128, 500)}
    for name in columns:
        kernel, bias = model.get_layer(name).get_weights()
        cut, same = twin.get_layer(name).get_weights()
        rows = kernel.reshape(-1, 1) if name == "dense" else kernel.reshape(columns[name])
        expected = [np.clip(row, -t, t) for row, t in zip(rows.T, c.best_limits(rows), strict=True)]
        assert np.array_equal(cut.reshape(rows.shape), np.stack(expected, -1))
        assert np.array_equal(same, bias)
        assert cut.size < 5000 or abs(cut).max() < abs(kernel).max()
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not {id(weight) for weight in twin.weights} & {id(weight) for weight in model.weights}


def test_the_converter_takes_the_clipped_range(c):
    from ai_edge_litert.interpreter import Interpreter

    from tfedge.tflite.conversion import to_int8

    layers = c.keras.layers
    x = inputs = c.keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, name="depthwise")(layers.Conv2D(4, 3, name="conv")(x))
    model = c.keras.Model(inputs, layers.Dense(5, name="dense")(layers.Flatten()(x)))
    for name in ("conv", "depthwise", "dense"):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([with_outliers(kernel.shape), bias])
    samples = np.random.default_rng(0).uniform(0, 1, (8, 8, 8, 3)).astype(np.float32)
    twin = c.clipped(model)
    run = Interpreter(model_content=to_int8(twin, samples, (0.0, 1.0)))
    scales = {
        tuple(tensor["shape"]): tensor["quantization_parameters"]["scales"]
        for tensor in run.get_tensor_details()
        if tensor["dtype"] == np.int8
    }
    largest = {
        name: np.abs(twin.get_layer(name).get_weights()[0])
        for name in ("conv", "depthwise", "dense")
    }
    assert scales[4, 3, 3, 3] == pytest.approx(largest["conv"].max(axis=(0, 1, 2)) / 127)
    assert scales[1, 3, 3, 4] == pytest.approx(largest["depthwise"].max(axis=(0, 1, 3)) / 127)
    assert scales[5, 64] == pytest.approx([largest["dense"].max() / 127])


def test_a_network_in_a_network_is_refused_by_name(c, model):
    outer = c.keras.Input((8, 8, 32))
    with pytest.raises(UserError, match="network in a network"):
        c.clipped(c.keras.Model(outer, model(outer)))
