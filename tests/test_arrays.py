import zipfile

import numpy as np
import pytest

from tfedge.data.arrays import arrays_fingerprint, load_npz, open_arrays
from tfedge.data.choices import Choices, Says
from tfedge.data.splits import split_of
from tfedge.errors import UserError

RNG = np.random.default_rng(3)
SPLITS = ("train", "tune", "test")


def windows(count=200, seed=0):
    """Float rows of [4, 2] that all differ, in three classes."""
    x = np.random.default_rng(seed).normal(size=(count, 4, 2)).astype(np.float32)
    return x, np.arange(count) % 3


def divided(splits=SPLITS, **more):
    arrays = {}
    for seed, split in enumerate(splits):
        arrays[f"x_{split}"], arrays[f"y_{split}"] = windows(9, seed)
    return arrays | more


def whole(**more):
    x, y = windows()
    return {"x": x, "y": y} | more


def opened(arrays, folder, choices=None, says=None):
    return open_arrays(
        lambda: arrays,
        folder / "cache",
        choices or Choices(),
        where="windows.npz",
        fingerprint=arrays_fingerprint(arrays),
        says=says,
    )


def splits(data):
    return zip(SPLITS, (data.train, data.tune, data.test), strict=True)


def test_rows_are_split_by_the_hash_of_their_number(tmp_path):
    x, y = windows()
    data = opened(whole(), tmp_path)
    for name, split in splits(data):
        rows = [row for row in range(200) if split_of(str(row), 0.1, 0.1) == name]
        assert np.array_equal(split.inputs, x[rows])
        assert np.array_equal(split.classes, y[rows])
        assert isinstance(split.inputs, np.memmap)
    assert (data.kind, data.labels, data.shape) == ("array", ("0", "1", "2"), (4, 2))


def test_appended_rows_move_none(tmp_path):
    x, y = windows(300)
    before = opened({"x": x[:200], "y": y[:200]}, tmp_path)
    after = opened({"x": x, "y": y}, tmp_path)
    for (_, small), (_, large) in zip(splits(before), splits(after), strict=True):
        assert np.array_equal(small.inputs, large.inputs[: len(small.inputs)])


def test_given_splits_are_taken_as_they_are(tmp_path):
    arrays = divided()
    for name, split in splits(opened(arrays, tmp_path)):
        assert np.array_equal(split.inputs, arrays[f"x_{name}"])
        assert np.array_equal(split.classes, arrays[f"y_{name}"])


def test_without_tune_it_is_taken_out_of_train_alone(tmp_path):
    x, y = windows(seed=9)
    arrays = {"x_train": x, "y_train": y, **divided(("test",))}
    data = opened(arrays, tmp_path, Choices(tune_share=0.3))
    tune = [row for row in range(200) if split_of(str(row), 0.3, 0) == "tune"]
    assert np.array_equal(data.tune.inputs, x[tune])
    assert np.array_equal(data.train.inputs, np.delete(x, tune, axis=0))
    assert np.array_equal(data.test.inputs, arrays["x_test"])


@pytest.mark.parametrize("axes", [(5, 6), (5, 6, 1), (5, 6, 3)])
def test_uint8_arrays_are_images(tmp_path, axes):
    x = RNG.integers(0, 256, (200, *axes), np.uint8)
    data = opened(whole(x=x), tmp_path)
    assert data.kind == "image"
    assert data.shape == (5, 6, axes[2] if len(axes) == 3 else 1)
    assert data.train.inputs.dtype == np.uint8
    assert data.limits() == (0, 1)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int16", "int64"])
@pytest.mark.parametrize("axes", [(6,), (6, 2), (6, 2, 2)])
def test_other_numbers_become_float32(tmp_path, dtype, axes):
    x = (RNG.normal(size=(200, *axes)) * 1000).astype(dtype)
    data = opened(whole(x=x), tmp_path)
    assert data.kind == "array"
    assert data.train.inputs.dtype == np.float32
    assert data.test.inputs.sum(dtype="f8") + data.tune.inputs.sum(dtype="f8") + (
        data.train.inputs.sum(dtype="f8")
    ) == pytest.approx(x.sum(dtype="f8"), rel=1e-6)
    assert len(data.mean) == axes[-1]


def test_strings_become_labels_in_their_order_or_in_the_one_given(tmp_path):
    names = np.array(["walk", "run", "sit"])
    arrays = divided()
    for split in SPLITS:
        arrays[f"y_{split}"] = names[arrays[f"y_{split}"]]
    by_name = opened(arrays, tmp_path)
    assert by_name.labels == ("run", "sit", "walk")
    assert by_name.train.classes.tolist() == [2, 0, 1] * 3
    given = opened(arrays | {"labels": names}, tmp_path)
    assert given.labels == ("walk", "run", "sit")
    assert given.tune.classes.tolist() == [0, 1, 2] * 3


def test_integers_are_named_by_labels(tmp_path):
    assert opened(divided(labels=["a", "b", "c"]), tmp_path).labels == ("a", "b", "c")


def test_opening_again_asks_for_no_arrays(tmp_path):
    first = opened(whole(), tmp_path)
    again = open_arrays(
        dict,
        tmp_path / "cache",
        Choices(),
        where="windows.npz",
        fingerprint=arrays_fingerprint(whole()),
    )
    assert np.array_equal(first.train.inputs, again.train.inputs)
    assert first.mean == again.mean


def test_rows_in_two_splits_are_named_or_left_out(tmp_path):
    arrays = divided()
    arrays["x_train"][4] = arrays["x_test"][7]
    arrays["x_tune"][2] = arrays["x_test"][7]
    arrays["x_train"][5] = arrays["x_tune"][1]
    arrays["x_train"][3] = arrays["x_train"][0]  # inside one split: no concern
    with pytest.raises(UserError) as error:
        opened(arrays, tmp_path)
    assert "3 rows in two splits at once" in str(error.value)
    assert "x_train[4] (train) is x_test[7] (test)" in str(error.value)
    assert "x_train[5] (train) is x_tune[1] (tune)" in str(error.value)

    messages: list[str] = []
    data = opened(arrays, tmp_path, Choices(skip_duplicates=True), Says(message=messages.append))
    assert messages == ["left out 3 rows that a later split holds too"]
    assert np.array_equal(data.train.inputs, np.delete(arrays["x_train"], [4, 5], axis=0))
    assert np.array_equal(data.tune.inputs, np.delete(arrays["x_tune"], 2, axis=0))
    assert data.train.classes.tolist() == [0, 1, 2, 0, 0, 1, 2]
    assert np.array_equal(data.test.inputs, arrays["x_test"])


def test_minus_zero_is_zero_when_rows_are_compared(tmp_path):
    arrays = divided()
    arrays["x_train"][4], arrays["x_test"][7] = 0.0, -0.0
    with pytest.raises(UserError, match=r"x_train\[4\] \(train\) is x_test\[7\] \(test\)"):
        opened(arrays, tmp_path)


def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "has no x, no y"),
        (without(whole(), "y"), "has no y"),
        (without(divided(), "y_tune"), "has no y_tune"),
        (without(divided(), "x_test", "y_test"), "has no x_test, no y_test"),
        (whole(z=[1]), "unknown array 'z'"),
        (divided(x_trian=[1]), "did you mean 'x_train'?"),
        (whole() | divided(), "holds both x, y and x_train"),
        (whole(y=np.arange(199) % 3), "x has 200 rows and y has 199"),
        (whole(x=np.zeros((200, 4, 4, 2), np.uint8)), "x.astype('float32')"),
        (whole(x=np.zeros((200, 4), np.uint8)), "x is uint8 [200, 4]: uint8 stands for images"),
        (whole(x=np.zeros((200, 4), bool)), "x is bool [200, 4]: must be numbers"),
        (whole(x=np.full((200, 4), "a")), "must be numbers"),
        (whole(x=np.zeros((200, 4), object)), "x is object [200, 4]: must be numbers"),
        (whole(x=np.zeros(200)), "a row must have one to three axes"),
        (whole(x=np.zeros((200, 2, 2, 2, 2))), "a row must have one to three axes"),
        (whole(x=np.zeros((200, 0))), "holds no number"),
        (whole(y=np.zeros((200, 1), int)), "of one column take y[:, 0]"),
        (whole(y=np.zeros(0, int)), "must have one axis"),
        (whole(y=np.zeros(200)), "y is float64 [200]: must be integers from 0, or strings"),
        (whole(y=np.zeros(200, int)), "y holds 1 class only"),
        (whole(y=np.arange(200) % 3 - 1), "y holds classes from -1 to 1"),
        (whole(y=np.arange(200) % 2 * 10**9), "y holds classes from 0 to 1000000000"),
        (whole(y=np.arange(200) % 2 * 2), "    1: none at all"),
        (whole(labels=["a", "b"]), "not among the 2 labels:\n    2"),
        (whole(labels=["a", "b", "c", "d"]), "    d: none at all"),
        (whole(labels=["a", "b", "b"]), "labels that occur twice:\n    b"),
        (whole(labels=["a", "b", " "]), "labels that are empty or cannot be printed:\n    ' '"),
        (whole(labels=[1, 2, 3]), "labels is int64 [3]: must be a list of strings"),
        (
            whole(y=np.array(["a", "b"] * 100), labels=["a", "c"]),
            "not among the 2 labels:\n    'b'",
        ),
        (divided(y_test=np.array(["a", "b", "c"] * 3)), "integers, others strings"),
        (divided(x_test=np.zeros((9, 4, 3), "f")), "x_test: float32 [4, 3]"),
        (divided(y_tune=np.arange(9) % 2), "    2: none in tune"),
    ],
)
def test_arrays_that_are_not_what_they_should_be_are_refused(tmp_path, arrays, message):
    with pytest.raises(UserError) as error:
        opened(arrays, tmp_path)
    assert str(error.value).startswith("windows.npz: ")
    assert message in str(error.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_numbers_that_float32_does_not_hold_are_named_by_row(tmp_path, bad):
    arrays = divided()
    arrays["x_tune"] = arrays["x_tune"].astype(np.float64)
    arrays["x_tune"][3, 1, 1] = bad
    with pytest.raises(UserError, match=r"1 row with NaN, infinity .*:\n    x_tune\[3\]"):
        opened(arrays, tmp_path)


def test_several_problems_come_in_one_message(tmp_path):
    arrays = divided(y_tune=np.arange(9) % 2)
    arrays["x_train"][4] = arrays["x_test"][7]
    arrays["x_train"][0] = np.nan
    with pytest.raises(UserError) as error:
        opened(arrays, tmp_path)
    for part in ("in two splits", "2: none in tune", "x_train[0]"):
        assert part in str(error.value)


def test_an_npz_file_is_read_as_numpy_wrote_it(tmp_path):
    file = tmp_path / "windows.npz"
    np.savez_compressed(file, **whole(), labels=np.array(["a", "b", "c"]))
    data = opened(load_npz(file), tmp_path)
    assert data.labels == ("a", "b", "c")
    assert len(data.train.inputs) + len(data.tune.inputs) + len(data.test.inputs) == 200


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"no zip", "is not an .npz file"), (b"", "is not an .npz file")],
)
def test_what_is_no_npz_file_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_npz(tmp_path / "x.npz")


def test_pickles_are_never_run(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(UserError, match=r"x\.npz: cannot be read: Object arrays"):
        load_npz(tmp_path / "x.npz")


def test_a_damaged_npz_file_is_refused(tmp_path):
    file = tmp_path / "x.npz"
    np.savez_compressed(file, **whole())
    content = bytearray(file.read_bytes())
    content[200:260] = bytes(60)
    file.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        load_npz(file)


def test_members_that_are_no_arrays_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x", b"text")
    with pytest.raises(UserError, match=r"has no y"):
        opened(load_npz(tmp_path / "x.npz"), tmp_path)


def test_the_fingerprint_follows_names_types_shapes_and_contents():
    base = {"x": np.zeros((4, 2), "f"), "y": np.arange(4)}
    others = [
        {"x": np.zeros((2, 4), "f"), "y": np.arange(4)},
        {"x": np.zeros((4, 2), "i4"), "y": np.arange(4)},
        {"x_train": np.zeros((4, 2), "f"), "y": np.arange(4)},
        {"x": np.zeros((4, 2), "f"), "y": np.arange(4)[::-1]},
    ]
    marks = [arrays_fingerprint(arrays) for arrays in (base, *others)]
    assert len(set(marks)) == 5
    assert arrays_fingerprint({"y": [0, 1, 2, 3], "x": np.zeros((2, 4), "f").T}) == marks[0]
