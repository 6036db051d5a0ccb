"""A pipeline on pictures that are not equally easy, and a cascade at its end."""

import json
from dataclasses import dataclass
from pathlib import Path

from tfedge.cli import main

PIPELINE = """
[data]
use = "faint.py:stripes"

[settings]
seed = 7

[wide]
use = "train"
model = "models/small.py:stack"
widths = [8, 16]
epochs = 4
batch = 64
rate = 3e-3

[narrow]
use = "train"
model = "models/small.py:stack"
widths = [4]
epochs = 4
batch = 64
rate = 3e-3

[large]
use = "convert"
of = "wide"
calibrate = 100

[small]
use = "convert"
of = "narrow"
calibrate = 100

[both]
use = "cascade"
of = "large"
small = "small"
exit_max_drop = 0.03

[tested]
use = "evaluate"
of = "both"
cost = []
"""

DATA = '''
"""Stripes of four kinds, from plain to see to nearly lost in noise, 8 x 8 pixels."""

import numpy as np


def stripes(count=3000):
    rng = np.random.default_rng(0)
    row, column = np.indices((8, 8))
    kinds = np.stack([0 * row, row % 2, column % 2, (row + column) % 2])
    y = rng.integers(0, len(kinds), count)
    contrast = rng.uniform(5, 80, (count, 1, 1))
    x = 60 + contrast * kinds[y] + rng.integers(-40, 41, (count, 8, 8))
    return {
        "x": x.clip(0, 255).astype(np.uint8),
        "y": y,
        "labels": ["plain", "rows", "columns", "checks"],
    }
'''


@dataclass(frozen=True)
class Made:
    """A finished build, and what its report says of each stage by name."""

    folder: Path
    file: Path
    report: dict


def finished(folder, text=PIPELINE):
    """Write the pipeline into a folder and build it."""
    assert build(write(folder, text)) == 0
    return Made(folder, folder / "build/faint/faint.tflite", stages(folder))


def write(folder, text=PIPELINE):
    """Write the pipeline and its data; return the pipeline's file."""
    (folder / "faint.py").write_text(DATA)
    (folder / "faint.toml").write_text(text)
    return folder / "faint.toml"


def build(file, *options):
    """Build the pipeline beside its file; return the exit status."""
    return main(["build", str(file), "--build-dir", str(file.parent / "build"), *options])


def stages(folder):
    """Return the stages of the report in a folder's build, by name."""
    report = json.loads((folder / "build/faint/report.json").read_text())
    return {stage["name"]: stage for stage in report["stages"]}


def opened(folder):
    """Return the data of the pipeline in a folder, as its stages have it."""
    from tfedge.plan import pipeline
    from tfedge.progress import Silent

    return pipeline.load(folder / "faint.toml").source.open(folder / "build", Silent())
