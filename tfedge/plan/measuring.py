"""Measure a finished .tflite on data that need not be its pipeline's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfedge.errors import UserError
from tfedge.plan import pipeline
from tfedge.progress import Progress


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
        return measure(model, split, known.labels, name, progress)
    opened = pipeline.load(data, changes).source.open(build_dir, progress)
    return measure(model, opened.test, opened.labels, "test", progress)
