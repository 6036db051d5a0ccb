"""From a bare .tflite and the data it was trained on to the file that a board needs."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tfedge import paths
from tfedge.data.dataset import Data
from tfedge.data.sampling import stratified
from tfedge.progress import quietly
from tfedge.tflite import card
from tfedge.tflite.card import Card, Input, Maker
from tfedge.tflite.leaving import stage_outputs

IN_CARD = ("accuracy", "accuracy_low", "accuracy_high", "count", "agreement")
"""What a card says of a measurement: nothing that a clock made, so that builds repeat."""


def pack(
    flatbuffer: bytes,
    data: Data,
    made_by: Mapping[str, str],
    *,
    golden: int,
    probabilities: str = "softmax",
    exits: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the model with its card, and golden inputs with what this machine answers to them.

    Args:
      flatbuffer: A model without a card.
      made_by: Values for `Maker`.
      probabilities: See `Card`.
      exits: As `probabilities`.
      golden: How many inputs to take from the tune split, of different classes first.
    """
    feed = Input(data.kind, data.shape, data.mean, data.std)
    if (
        data.kind == "image"
    ):  # pixels that came as arrays had their size; what the board gets may not
        feed = replace(feed, resize=data.resize or "bilinear", fit=data.fit or "stretch")
    made = Maker(**made_by)
    bare = Card(labels=data.labels, input=feed, made_by=made, probabilities=probabilities)
    bare = replace(bare, exits=exits or {})
    chosen = stratified(data.tune.classes, golden)
    if not len(chosen):
        return card.write(flatbuffer, bare)
    inputs = np.asarray(data.tune.inputs[chosen])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        file.write_bytes(card.write(flatbuffer, bare))
        with quietly():
            model = paths.runner().Classifier(str(file), threads=1)
        outputs = np.stack([model.raw(item) for item in inputs])
        tensors = [model.quantise(item).tobytes() for item in inputs]
    digests = tuple(hashlib.sha256(tensor).hexdigest() for tensor in tensors)
    each = None
    if exits:
        each = np.stack(stage_outputs(flatbuffer, map(data.normalise, inputs)).logits)
    files = {card.GOLDEN: card.golden_npz(inputs, outputs, each)}
    return card.write(flatbuffer, replace(bare, golden=digests), files)


def with_measured(content: bytes, measured: Mapping[str, Any], where: object) -> bytes:
    """Return the file with figures of one more split in its card."""
    old, files = card.read(content, where)
    kept = {name: measured[name] for name in IN_CARD if name in measured}
    new = replace(old, measured={**old.measured, measured["split"]: kept})
    return card.write(card.strip(content), new, files)
