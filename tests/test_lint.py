import time
from dataclasses import replace

import numpy as np
import pytest
from small_data import stripes

from tfedge.data.dataset import Data, Split, normalisation
from tfedge.data.lint import findings
from tfedge.data.sampling import stratified

LABELS = ("a", "b", "c")


def data_of(make, kind, counts=(1500, 300, 300), shares=None, seed=0):
    """Return data of inputs that `make(rng, classes)` draws."""
    rng = np.random.default_rng(seed)

    def split(count):
        classes = rng.choice(len(LABELS), count, p=shares)
        classes[: len(LABELS)] = range(len(LABELS))
        return Split(make(rng, classes), classes.astype(np.int64))

    splits = [split(count) for count in counts]
    return Data(*splits, LABELS, kind, *normalisation(splits[0], kind))


def photos(seed=0):
    """Return pictures 8x8x3 of a warm light: red is 20 above blue, and their noise differs."""

    def make(rng, classes):
        level = rng.uniform(40, 150, (len(classes), 1, 1, 1)) + 15 * classes[:, None, None, None]
        noise = rng.normal(0, 25, (len(classes), 8, 8, 3))
        return np.clip(level + noise + [20, 5, 0], 0, 255).astype(np.uint8)

    return data_of(make, "image", seed=seed)


def windows(seed=0):
    def make(rng, classes):
        return (rng.normal(size=(len(classes), 32, 3)) + classes[:, None, None]).astype(np.float32)

    return data_of(make, "array", seed=seed)


def tuned(data, change):
    """Return the same data with other inputs in its tune split."""
    return replace(data, tune=Split(change(data.tune.inputs.copy()), data.tune.classes))


def found(data, count=100):
    return {f.name: f for f in findings(data, stratified(data.tune.classes, count))}


def put(value, *places):
    def change(inputs):
        inputs[list(places)] = value
        return inputs

    return change


ORDINARY = {
    "normal": lambda r, y: r.normal(size=(len(y), 64)) + y[:, None],
    "one feature": lambda r, y: r.normal(size=(len(y), 1)),
    "heavy tails": lambda r, y: r.standard_t(2, (len(y), 32, 3)),
    "skewed": lambda r, y: r.lognormal(sigma=1.5, size=(len(y), 10)),
    "sparse": lambda r, y: (r.random((len(y), 500)) < 0.002) + r.random((len(y), 500)) / 10,
    "units": lambda r, y: r.normal(size=(len(y), 3)) * [1e6, 1, 1e-3] + [1e7, 0, 0],
    "a class far off": lambda r, y: r.normal(size=(len(y), 16)) + np.where(y == 2, 20, 0)[:, None],
    "gravity": lambda r, y: np.add([0, 0, 9.8], r.normal(size=(len(y), 64, 3))),
    "small": lambda r, y: r.normal(size=(len(y), 9)) / 1000,
}


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("shares", [None, (0.97, 0.02, 0.01)], ids=["even", "uneven"])
def test_nothing_is_said_of_ordinary_numbers(name, shares):
    for seed in range(3):
        data = data_of(
            lambda r, y: ORDINARY[name](r, y).astype(np.float32), "array", shares=shares, seed=seed
        )
        for count in (5, 20, 300):
            assert found(data, count) == {}


def test_nothing_is_said_of_ordinary_pictures():
    for seed in range(3):
        for data in (stripes(seed=seed), photos(seed)):
            for count in (4, 20, 300):
                assert found(data, count) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "array"])
def test_nothing_is_said_of_handwritten_digits(kind):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (15 * x).astype(np.uint8).reshape(-1, 8, 8, 1) if kind == "image" else x.astype(np.float32)
    splits = [Split(x[start::3], y[start::3]) for start in range(3)]
    data = Data(*splits, tuple("0123456789"), kind, *normalisation(splits[0], kind))
    for count in (10, 50, 300):
        assert found(data, count) == {}


def test_classes_missing_among_the_chosen_are_named():
    data = photos()
    chosen = stratified(data.tune.classes, 60)
    (finding,) = findings(data, chosen[data.tune.classes[chosen] != 1])
    assert finding.name == "missing_class"
    assert finding.what == "1 of 3 classes have no input: 'b'"
    assert "by class" in finding.fix
    assert "at least 3" in found(data, 2)["missing_class"].fix
    lacking = data.tune.classes != 1
    without = replace(data, tune=Split(data.tune.inputs[lacking], data.tune.classes[lacking]))
    assert "tune split has none" in found(without)["missing_class"].fix


def test_none_chosen_is_every_class_missing():
    (finding,) = findings(photos(), np.empty(0, np.int64))
    assert finding.what == "3 of 3 classes have no input: 'a', 'b', 'c'"


def test_blank_inputs_are_found_unless_they_are_usual():
    data = tuned(photos(), put(np.uint8(7), 0))
    data.tune.inputs[0, 0, 0, 0] = 8
    assert found(data) == {}
    data.tune.inputs[0] = 7
    assert found(data)["constant"].what.endswith("with one value throughout: tune[0]")
    data.train.inputs[::50] = np.arange(30, dtype=np.uint8)[:, None, None, None]
    assert "constant" not in found(data)


def test_repeated_inputs_are_found():
    data = photos()
    data = tuned(data, put(data.tune.inputs[7], 5, 9, 11))
    chosen = np.array([5, 6, 7, 8, 9, 10, 11, *range(20, 60)])
    (finding,) = findings(data, chosen)
    assert finding.name == "repeated"
    assert finding.what == "3 inputs of 47 that repeat another: tune[7], tune[9], tune[11]"
    (finding,) = findings(photos(), np.array([*range(50), 3]))
    assert finding.what == "1 input of 51 that repeat another: tune[3]"


@pytest.mark.parametrize("make", [photos, windows])
def test_test_inputs_among_them_are_found(make):
    data = make()
    data = tuned(data, put(data.test.inputs[200], 3))
    finding = found(data, 300)["in_test"]
    assert finding.what == "1 input of 300 in the test split too: tune[3] is test[200]"
    data.tune.inputs[3].reshape(-1)[0] += 1  # no longer byte for byte
    assert found(data, 300) == {}


def test_pixels_divided_twice_are_found():
    data = tuned(photos(), lambda x: (x > 100).astype(np.uint8))
    finding = found(data)["double_normalisation"]
    assert "0 to 1, and are divided by 255 once more" in finding.what
    assert "take a Rescaling out of the network, if it is that which divides" in finding.fix
    # Black and white by 0 and 1 is fine where nothing is divided.
    assert "double_normalisation" not in found(replace(data, mean=(0.0,) * 3, std=(1.0,) * 3))


@pytest.mark.parametrize(
    ("mean", "std"), [((0.0,) * 3, (255.0,) * 3), ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))]
)
def test_arrays_of_pixels_divided_twice_are_found(mean, std):
    pixels = photos()
    splits = [
        Split(((split.inputs - np.float32(mean)) / np.float32(std)), split.classes)
        for split in (pixels.train, pixels.tune, pixels.test)
    ]
    data = Data(*splits, LABELS, "array", (0.0,) * 3, (1.0,) * 3)
    assert found(data) == {}
    assert set(found(replace(data, mean=mean, std=std))) == {"double_normalisation"}


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x / 255,
        lambda x: x * 255,
        lambda x: x + 10,
        lambda x: x * 0.3,
        lambda x: x * np.float32([1, 1, 30]),
    ],
)
def test_inputs_of_another_range_than_train_are_found(change):
    data = tuned(windows(), lambda x: change(x).astype(np.float32))
    assert set(found(data)) == {"range"}


@pytest.mark.parametrize(
    "change", [lambda x: x // 3, lambda x: x // 3 + 80, lambda x: np.minimum(x, 155) + 100]
)
def test_pictures_darker_flatter_or_brighter_than_train_are_found(change):
    finding = found(tuned(photos(), change))["range"]
    assert "train" in finding.what


def test_one_input_far_outside_is_found_and_a_few_in_train_too_excuse_it():
    data = tuned(windows(), put(np.float32(-9999), 2))
    finding = found(data, 300)["outlier"]
    assert "1 input from -9999 to" in finding.what
    assert finding.what.endswith(": tune[2]")
    data.train.inputs[777, 5] = -9999
    assert "outlier" not in found(data, 300)


def test_red_and_blue_swapped_are_found():
    data = tuned(photos(), lambda x: x[..., ::-1])
    assert "red and blue look swapped" in found(data)["bgr"].what
    # Three axes of an accelerometer have no colour.
    sensor = tuned(
        data_of(lambda r, y: ORDINARY["gravity"](r, y).astype(np.float32), "array"), np.flip
    )
    assert "bgr" not in found(sensor)


def test_numbers_that_are_none_are_found_before_all_else():
    data = tuned(windows(), put(np.float32(np.nan), 1))
    data.tune.inputs[4, 0, 0] = np.inf
    assert set(found(data, 300)) == {"not_finite"}
    assert found(data, 300)["not_finite"].what == "2 inputs with NaN or infinity: tune[1], tune[4]"
    data = windows()
    data.train.inputs[::2] = np.inf
    assert found(data) == {}


def test_long_lists_are_cut_short():
    data = tuned(photos(), put(np.uint8(7), *range(20)))
    assert found(data, 300)["constant"].what.endswith("tune[4] and 15 more")


def test_large_splits_are_looked_at_in_less_than_a_second(tmp_path):
    def mapped(name, count):
        file = np.lib.format.open_memmap(tmp_path / name, "w+", np.uint8, (count, 32, 32, 3))
        for at in range(0, count, 1000):
            file[at : at + 1000] = rng.integers(0, 256, (len(file[at : at + 1000]), 32, 32, 3))
        file.flush()
        classes = np.arange(count) % 3
        return Split(np.load(tmp_path / name, mmap_mode="r"), classes)

    rng = np.random.default_rng(0)
    splits = (mapped("train.npy", 10_000), mapped("tune.npy", 5_000), mapped("test.npy", 5_000))
    data = Data(*splits, LABELS, "image", (0.0,) * 3, (255.0,) * 3)
    started = time.perf_counter()
    assert found(data, 200) == {}
    assert time.perf_counter() - started < 1
