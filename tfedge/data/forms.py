"""What a user's arrays must look like, checked name by name before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfedge.data.choices import Choices
from tfedge.data.problems import Problems
from tfedge.data.splits import SPLITS, split_of
from tfedge.errors import did_you_mean

_KNOWN = ("x", "y", "labels", *(f"{axis}_{split}" for split in SPLITS for axis in "xy"))
_CHANNELS = (1, 3)
_GREY_AXES, _IMAGE_AXES, _MOST_AXES = 3, 4, 4  # the rows' axis is one of them


class Table(NamedTuple):
    """Rows of one array that go into one split.

    Attributes:
      name: The array's name, for messages.
      x: The array, [any, ...]; uint8 [any, height, width, channels] of images.
      rows: Which of its rows are meant, int64 [count], ascending.
      classes: Those rows' classes, int64 [count].
    """

    name: str
    split: str
    x: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]


def tables(
    arrays: Mapping[str, Any], choices: Choices, problems: Problems
) -> tuple[list[Table], list[str]]:
    """Return the rows of each split, and the labels; note what is wrong in `problems`.

    Both are empty if anything is wrong.
    """
    suffixes = _suffixes(arrays, problems)
    xs = {suffix: _inputs(f"x{suffix}", arrays, problems) for suffix in suffixes}
    ys = {suffix: _answers(f"y{suffix}", arrays, problems) for suffix in suffixes}
    pairs = {s: (x, y) for s in suffixes if (x := xs[s]) is not None and (y := ys[s]) is not None}
    for suffix, (x, y) in pairs.items():
        if len(x) != len(y):
            problems.add(f"x{suffix} has {len(x)} rows and y{suffix} has {len(y)}")
    if len(pairs) < len(suffixes) or not pairs:
        return [], []
    _agree({f"x{suffix}": x for suffix, (x, _) in pairs.items()}, problems)
    classes, labels = _number({f"y{s}": y for s, (_, y) in pairs.items()}, arrays, problems)
    if problems:
        return [], []
    found: list[Table] = []
    for suffix, (x, _) in pairs.items():
        found += _split(suffix, x, classes[f"y{suffix}"], choices, tune="_tune" not in pairs)
    return found, labels


def _suffixes(arrays: Mapping[str, Any], problems: Problems) -> list[str]:
    """Return [""] for x and y, or those of the splits' arrays, and note names that fit neither."""
    for name in sorted(set(arrays) - set(_KNOWN)):
        problems.add(f"unknown array {name!r}", did_you_mean(name, _KNOWN))
    whole = [name for name in ("x", "y") if name in arrays]
    divided = [name for name in _KNOWN if "_" in name and name in arrays]
    if whole and divided:
        problems.add(
            f"holds both {', '.join(whole)} and {', '.join(divided)}",
            "give x and y, or one pair for each split",
        )
        return []
    suffixes = [""] if not divided else ["_train", "_test"]
    if any(name.endswith("_tune") for name in divided):
        suffixes.insert(1, "_tune")
    missing = [f"{axis}{s}" for s in suffixes for axis in "xy" if f"{axis}{s}" not in arrays]
    if missing:
        problems.add(
            f"has no {', no '.join(missing)}",
            "give x and y, or x_train, y_train, x_test, y_test and perhaps x_tune, y_tune",
        )
    return suffixes


def _inputs(name: str, arrays: Mapping[str, Any], problems: Problems) -> npt.NDArray[Any] | None:
    """Return x with its channel axis, or note why it is of no use."""
    if name not in arrays:
        return None
    x = np.asarray(arrays[name])
    got = f"{name} is {x.dtype} {list(x.shape)}"
    if x.dtype == np.uint8:
        if x.ndim == _GREY_AXES:
            x = x[..., None]
        if x.ndim != _IMAGE_AXES or x.shape[-1] not in _CHANNELS:
            problems.add(
                f"{got}: uint8 stands for images, [count, height, width] or [..., 1 or 3]",
                f"pass what is no image as float32: {name}.astype('float32')",
            )
            return None
    elif x.dtype.kind not in "iuf":
        problems.add(f"{got}: must be numbers", "pass uint8 images or float32 numbers")
        return None
    elif not 1 < x.ndim <= _MOST_AXES:
        problems.add(f"{got}: a row must have one to three axes", "reshape it")
        return None
    if not x.size:
        problems.add(f"{got}: holds no number")
        return None
    return x


def _answers(name: str, arrays: Mapping[str, Any], problems: Problems) -> npt.NDArray[Any] | None:
    """Return y, or note why it is of no use."""
    if name not in arrays:
        return None
    y = np.asarray(arrays[name])
    got = f"{name} is {y.dtype} {list(y.shape)}"
    if y.ndim != 1 or not y.size:
        problems.add(
            f"{got}: must have one axis, a class for each row",
            "of one column take y[:, 0], of one column a class y.argmax(axis=1)",
        )
        return None
    if y.dtype.kind not in "iuU":
        problems.add(
            f"{got}: must be integers from 0, or strings", "pass y.astype('int64') or strings"
        )
        return None
    return y


def _agree(xs: Mapping[str, npt.NDArray[Any]], problems: Problems) -> None:
    """Note splits whose rows are not alike."""
    forms = {name: (x.shape[1:], x.dtype == np.uint8) for name, x in xs.items()}
    if len(set(forms.values())) > 1:
        problems.add(
            "rows differ between the splits",
            "give all splits one shape, and either uint8 or not",
            names=[f"{name}: {x.dtype} {list(x.shape[1:])}" for name, x in xs.items()],
        )


def _number(
    ys: Mapping[str, npt.NDArray[Any]], arrays: Mapping[str, Any], problems: Problems
) -> tuple[dict[str, npt.NDArray[np.int64]], list[str]]:
    """Return the classes' numbers in each y, and the labels; note classes that have none."""
    texts = {name: y.dtype.kind == "U" for name, y in ys.items()}
    if len(set(texts.values())) > 1:
        problems.add(
            f"some of {', '.join(ys)} are integers, others strings", "use one or the other"
        )
        return {}, []
    present = np.unique(np.concatenate(list(ys.values())))
    labels = _labels(present, arrays, problems)
    if labels is None:
        return {}, []
    known: Any = labels if any(texts.values()) else range(len(labels))
    if strange := [repr(value) for value in present.tolist() if value not in known]:
        problems.add(
            f"y holds classes that are not among the {len(labels)} labels",
            "number the classes from 0, and give a label for each",
            names=strange,
        )
        return {}, []
    if not any(texts.values()):
        return {name: y.astype(np.int64) for name, y in ys.items()}, labels
    number = np.array([labels.index(text) for text in present.tolist()], np.int64)
    return {name: number[np.searchsorted(present, y)] for name, y in ys.items()}, labels


def _labels(
    present: npt.NDArray[Any], arrays: Mapping[str, Any], problems: Problems
) -> list[str] | None:
    """Return the labels as given, or made of the classes that are present."""
    if "labels" in arrays:
        labels = np.asarray(arrays["labels"])
        if labels.ndim == 1 and labels.dtype.kind == "U":
            return [str(label) for label in labels.tolist()]
        problems.add(
            f"labels is {labels.dtype} {list(labels.shape)}: must be a list of strings",
            "write labels=['cat', 'dog', ...]",
        )
        return None
    if present.dtype.kind == "U":
        return [str(label) for label in present.tolist()]
    low, high = int(present[0]), int(present[-1])
    if low < 0 or high >= 2 * len(present) + 100:
        # A stray large number must not become a million classes without an example.
        problems.add(f"y holds classes from {low} to {high}", "number the classes from 0")
        return None
    return [str(number) for number in range(high + 1)]


def _split(
    suffix: str,
    x: npt.NDArray[Any],
    classes: npt.NDArray[np.int64],
    choices: Choices,
    *,
    tune: bool,
) -> list[Table]:
    """Divide one array's rows by their numbers where its name does not say their split.

    Args:
      tune: Whether the tune split is still to be taken out of train.
    """
    if suffix and not (suffix == "_train" and tune):
        splits = np.full(len(x), suffix[1:])
    else:
        share = 0.0 if suffix else choices.test_share
        splits = np.array([split_of(str(row), choices.tune_share, share) for row in range(len(x))])
    return [
        Table(f"x{suffix}", split, x, rows, classes[rows])
        for split in SPLITS
        if len(rows := np.flatnonzero(splits == split))
    ]
