from fractions import Fraction

import numpy as np
import pytest

from tfedge.data.dataset import Data, Split, normalisation
from tfedge.errors import UserError


def split(inputs):
    return Split(inputs, np.zeros(len(inputs), np.int64))


def data(inputs, mean, std, kind="image"):
    return Data(split(inputs), split(inputs), split(inputs), ("a", "b"), kind, mean, std)


PIXELS = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


def test_shape_and_classes_are_those_of_one_input():
    some = data(PIXELS, (0.0,) * 3, (1.0,) * 3)
    assert some.shape == (4, 5, 3)
    assert some.classes == 2


def test_normalise_rounds_to_float32_after_the_difference_and_after_the_quotient():
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    got = data(PIXELS, mean, std).normalise(PIXELS)

    assert got.dtype == np.float32
    for index in np.ndindex(PIXELS.shape):
        m, s = np.float32(mean[index[-1]]), np.float32(std[index[-1]])
        # Exact arithmetic, rounded where float32 would.
        difference = np.float32(float(Fraction(int(PIXELS[index])) - Fraction(float(m))))
        assert got[index] == np.float32(Fraction(float(difference)) / Fraction(float(s)))


@pytest.mark.parametrize(
    ("how", "low", "high"),
    [("", 0, 1), ("unit", 0, 1), ("symmetric", -1, 1), ("none", 0, 255)],
)
def test_each_named_normalisation_gives_images_the_range_that_it_promises(how, low, high):
    mean, std = normalisation(split(PIXELS), "image", how)
    some = data(PIXELS, mean, std)
    every_pixel = np.arange(256, dtype=np.uint8)[:, None] * np.ones(3, np.uint8)

    assert some.limits() == (low, high)
    assert (some.normalise(every_pixel).min(), some.normalise(every_pixel).max()) == (low, high)


@pytest.mark.parametrize("how", ["", "standard"])
def test_standardised_arrays_have_mean_0_and_deviation_1_in_each_channel(how):
    x = np.random.default_rng(1).normal([5, -3e4, 1e-5], [2, 1, 1e-6], (500, 7, 3))
    x = x.astype(np.float32)
    some = data(x, *normalisation(split(x), "array", how), kind="array")

    out = some.normalise(x).astype(np.float64)
    assert out.mean(axis=(0, 1)) == pytest.approx([0, 0, 0], abs=2e-3)
    assert out.std(axis=(0, 1)) == pytest.approx([1, 1, 1], rel=1e-3)
    assert some.limits() == (out.min(), out.max())


def test_standard_is_the_same_in_one_chunk_and_in_many(monkeypatch):
    x = np.random.default_rng(2).integers(0, 256, (50, 3, 4, 3), np.uint8)
    mean, std = normalisation(split(x), "image", "standard")
    assert mean == pytest.approx([float(np.mean(x[..., c])) for c in range(3)])
    assert std == pytest.approx([float(np.std(x[..., c])) for c in range(3)])

    monkeypatch.setattr("tfedge.data.dataset._CHUNK_BYTES", 100)
    assert normalisation(split(x), "image", "standard") == (
        pytest.approx(mean, rel=1e-12),
        pytest.approx(std, rel=1e-12),
    )
    x = x.astype(np.float32)
    assert data(x, mean, std, "array").limits() == (
        ((x - np.float32(mean)) / np.float32(std)).min(),
        ((x - np.float32(mean)) / np.float32(std)).max(),
    )


def test_a_channel_that_never_changes_becomes_0_and_not_noise():
    x = np.stack([np.full(9, 0.1), np.zeros(9), np.arange(9)], axis=-1).astype(np.float32)
    mean, std = normalisation(split(x), "array")
    out = data(x, mean, std, "array").normalise(x)
    assert std[:2] == (1, 1)
    assert np.abs(out[:, :2]).max() < 1e-7


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        ("array", "unit", "this data is not images"),
        ("array", "symmetric", "write 'standard' or 'none'"),
        ("image", "imagenet", "write one of: unit, symmetric, standard, none"),
    ],
)
def test_a_normalisation_that_does_not_fit_is_refused(kind, how, message):
    with pytest.raises(UserError, match=message):
        normalisation(split(PIXELS), kind, how)
