import numpy as np
import pytest

from tfedge.tflite.sameness import rescaled

RNG = np.random.default_rng(0)


def kernel(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def rounded(values, bits=8):
    step = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True) / 2 ** (bits - 1)
    return (np.round(values / step) * step).astype(np.float32)


def factors(count):
    return (10 ** RNG.uniform(-1.5, 1.5, count)).astype(np.float32)


@pytest.mark.parametrize("shape", [(8, 3, 3, 6), (1, 3, 3, 8), (16, 12), (4, 64)])
def test_channels_scaled_otherwise_are_found_on_either_side_and_after_rounding(shape):
    values = kernel(*shape)
    made = values * factors(shape[-1])
    assert rescaled(values, made)
    assert rescaled(values, rounded(made))
    if shape[0] > 1:
        outs = factors(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        assert rescaled(values, values * outs)
        assert rescaled(values, rounded(made * outs))


@pytest.mark.parametrize("shape", [(8, 3, 3, 6), (1, 3, 3, 8), (16, 12)])
def test_rounding_clipping_and_training_are_no_scaling(shape):
    values = kernel(*shape)
    assert not rescaled(values, values)
    for bits in (8, 4, 2):
        assert not rescaled(values, rounded(values, bits))
    assert not rescaled(values, np.clip(values, -1, 1))
    assert not rescaled(values, values + 0.5 * kernel(*shape))


def test_other_weights_altogether_are_no_scaling():
    assert not rescaled(kernel(8, 3, 3, 6), kernel(8, 3, 3, 6))


def test_where_factors_would_fit_anything_nothing_is_said():
    assert not rescaled(kernel(1, 1, 1, 8), kernel(1, 1, 1, 8))
    assert not rescaled(kernel(2, 3), kernel(2, 3))


def test_zeros_are_no_trouble():
    assert not rescaled(np.zeros((8, 12), np.float32), np.zeros((8, 12), np.float32))
    values = kernel(8, 12)
    values[:, 3] = 0
    assert rescaled(values, values * factors(12))
