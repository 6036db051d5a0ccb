"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn brings along."""

import sys
import tomllib
from pathlib import Path

import numpy as np


def digits():
    """Load them as pixels; nothing is downloaded (UCI's Optical Recognition of Digits)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)
    return {"x": pixels, "y": found.target}


def write_held_out(folder, count=10):
    """Save some digits of the test split as PNG files, named after what they show."""
    from PIL import Image

    from tfedge.data.splits import split_of

    arrays = digits()
    shares = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["data"]
    folder.mkdir(parents=True, exist_ok=True)
    test = [row for row in range(len(arrays["y"])) if _split(split_of, row, shares) == "test"]
    for row in test[:count]:
        Image.fromarray(arrays["x"][row]).save(folder / f"{arrays['y'][row]}_row{row}.png")


def _split(split_of, row, shares):
    return split_of(str(row), shares.get("tune_share", 0.1), shares["test_share"])


if __name__ == "__main__":
    write_held_out(Path(sys.argv[1]))
