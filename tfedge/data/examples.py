"""Examples for a model that is already there, to measure it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfedge.data.arrays import load_npz
from tfedge.data.dataset import Split
from tfedge.data.listing import list_photos
from tfedge.data.problems import Problems, plural
from tfedge.errors import UserError
from tfedge.paths import runner


def examples(
    place: Path, labels: tuple[str, ...], shape: tuple[int, ...], sizing: tuple[str, str]
) -> tuple[Split, str]:
    """Read examples of known classes into memory, and say what they are: "test" or "all".

    Args:
      place: A folder of <class>/*.jpg, or of test/<class>/*.jpg of which the test split is taken;
        or an .npz with x_test and y_test, or x and y.
      labels: The classes' names, in the order of their numbers.
      shape: Of one input.
      sizing: Pillow's filter and how photos of another shape are made to fit; two empty texts for
        a model that takes no pixels.
    """
    if place.is_dir():
        inside = place / "test"
        if not sizing[0]:
            raise UserError(place, "holds photos, the model takes arrays", "give it an .npz")
        if inside.is_dir():
            return _photos(inside, labels, shape, sizing), "test"
        return _photos(place, labels, shape, sizing), "all"
    return _arrays(place, labels, shape, "image" if sizing[0] else "array")


def _photos(
    folder: Path, labels: tuple[str, ...], shape: tuple[int, ...], sizing: tuple[str, str]
) -> Split:
    problems = Problems(folder)
    infer = runner()
    inputs, classes, unknown, unreadable = [], [], set(), []
    for file in list_photos(folder).files:
        label = file.name.split("/")[0]
        if label not in labels:
            unknown.add(label)
            continue
        try:
            inputs.append(infer.read_image(str(folder / file.name), shape, *sizing))
        except infer.ImageError as error:
            unreadable.append(str(error))
            continue
        classes.append(labels.index(label))
    if unknown:
        problems.add(
            f"folders that are no class of the model: it knows {', '.join(labels)}",
            "name them as in training, or remove them",
            names=sorted(unknown),
        )
    if unreadable:
        problems.add(
            f"{plural(len(unreadable), 'photo')} that cannot be read",
            "replace or remove them",
            names=unreadable,
        )
    problems.check()
    if not inputs:
        raise UserError(folder, "holds no photo", "write the folder that holds <class>/*.jpg")
    return Split(np.stack(inputs), np.array(classes, np.int64))


def _arrays(
    file: Path, labels: tuple[str, ...], shape: tuple[int, ...], kind: str
) -> tuple[Split, str]:
    arrays = load_npz(file)
    suffix = "_test" if "x_test" in arrays else ""
    try:
        inputs, answers = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
    except KeyError as missing:
        fix = "write x_test and y_test, or x and y"
        raise UserError(file, f"has no {missing}", fix) from None
    if len(inputs) != len(answers) or not len(inputs):
        raise UserError(file, f"x has {len(inputs)} rows and y {len(answers)}", "write one each")
    if inputs.ndim == len(shape) and shape[-1] == 1:
        inputs = inputs[..., None]
    if inputs.shape[1:] != shape:
        raise UserError(file, f"x holds {inputs.shape[1:]}, the model takes {shape}")
    if kind == "image" and inputs.dtype != np.uint8:
        raise UserError(file, f"x is {inputs.dtype}, the model takes pixels", "write uint8")
    inputs = inputs if kind == "image" else inputs.astype(np.float32)
    return Split(inputs, _numbers(answers, labels, file)), "test" if suffix else "all"


def _numbers(
    answers: npt.NDArray[Any], labels: tuple[str, ...], file: Path
) -> npt.NDArray[np.int64]:
    if answers.ndim != 1:
        raise UserError(file, f"y holds {answers.shape}", "write one class a row")
    if answers.dtype.kind in "US":
        known = {label: number for number, label in enumerate(labels)}
        strange = sorted({str(answer) for answer in answers} - set(known))
        if strange:
            problem = f"y holds {strange[0]!r}, which is no class of the model"
            raise UserError(file, problem, f"it knows {', '.join(labels)}")
        return np.array([known[str(answer)] for answer in answers], np.int64)
    if answers.dtype.kind not in "iu":
        raise UserError(file, f"y is {answers.dtype}", "write class numbers or names")
    if not 0 <= answers.min() <= answers.max() < len(labels):
        problem = f"y must be from 0 to {len(labels) - 1}, got {answers.min()} to {answers.max()}"
        raise UserError(file, problem)
    return answers.astype(np.int64)
