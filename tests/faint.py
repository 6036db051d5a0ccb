"""A pipeline on pictures that are not equally easy, and a cascade at its end."""

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


def write(folder, text=PIPELINE):
    """Write the pipeline and its data; return the pipeline's file."""
    (folder / "faint.py").write_text(DATA)
    (folder / "faint.toml").write_text(text)
    return folder / "faint.toml"
