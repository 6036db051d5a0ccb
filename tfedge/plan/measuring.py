"""Measure a finished .tflite on data that need not be its pipeline's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfedge.errors import UserError
from tfedge.plan import pipeline
from tfedge.progress import Progress

if TYPE_CHECKING:
    from tfedge.data.dataset import Split
    from tfedge.tflite.card import Card


def evaluate(
    model: Path, data: Path, progress: Progress, *, changes: Sequence[str], build_dir: Path
) -> dict[str, Any]:
    """Run `model` over examples with the board's own script and return its figures.

    Args:
      data: A pipeline file, whose test split is taken; or a folder of photos by class or an .npz,
        of which the test split is taken if it has one, else everything.
      changes: Settings that take the place of a pipeline file's.
      build_dir: Where a pipeline's data is, or will be, decoded.
    """
    from tfedge.data.examples import examples
    from tfedge.tflite import card
    from tfedge.tflite.evaluation import evaluate as measure

    if not model.is_file():
        raise UserError(model, "No such file or directory")
    known, _ = card.read(model.read_bytes(), model)
    if data.suffix != ".toml":
        feed = known.input
        sizing = (feed.resize or "", feed.fit or "")
        split, name = examples(data, known.labels, feed.shape, sizing)
        found = measure(model, split, known.labels, name, progress)
    else:
        opened = pipeline.load(data, changes).source.open(build_dir, progress)
        split, name = opened.test, "test"
        found = measure(model, split, opened.labels, name, progress)
    return found | _left(model.read_bytes(), known, split, name, progress)


def _left(
    content: bytes, known: Card, split: Split, name: str, progress: Progress
) -> dict[str, Any]:
    """Measure leaving early, if the model has exits: ``leaving``."""
    from tfedge.tflite import exits
    from tfedge.tflite.leaving import stage_outputs

    if not known.exits:
        return {}
    mean, std = (np.asarray(value, np.float32) for value in (known.input.mean, known.input.std))
    with progress.bar(f"{name} split, exits", len(split.classes)) as advance:
        inputs = ((np.asarray(x, np.float32) - mean) / std for x in split.inputs)
        answers = stage_outputs(content, inputs, lambda done: advance(done, ""))
    macs = exits.relative_macs(content)  # the costs in the card may be Arm instructions
    return {"leaving": exits.figures(known.exits, answers, split.classes, name, macs, {})}
