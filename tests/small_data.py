"""Data for tests of training: stripes of four kinds under noise, 8 x 8 pixels."""

import numpy as np

from tfedge.data.dataset import Data, Split


def stripes(train=256, tune=96, test=96, seed=0):
    """Return `Data` of uint8 [count, 8, 8, 1] images in four classes; unit normalisation."""
    rng = np.random.default_rng(seed)
    row, column = np.indices((8, 8))
    kinds = np.stack([0 * row, row % 2, column % 2, (row + column) % 2])

    def split(count):
        y = rng.integers(0, len(kinds), count)
        x = 60 + 80 * kinds[y] + rng.integers(-30, 31, (count, 8, 8))
        return Split(x[..., None].astype(np.uint8), y.astype(np.int64))

    labels = ("plain", "rows", "columns", "checks")
    splits = (split(train), split(tune), split(test))
    return Data(*splits, labels, "image", (0.0,), (255.0,), "bilinear", "stretch")
