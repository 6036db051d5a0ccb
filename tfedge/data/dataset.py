"""Three splits, their labels, and the normalisation that the device must repeat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tfedge.errors import UserError

Kind = Literal["image", "array"]
NORMALISATIONS = ("unit", "symmetric", "standard", "none")
_CHUNK_BYTES = 1 << 20  # eight times as much in float64


class Split(NamedTuple):
    """Examples and their classes.

    Attributes:
      inputs: Uint8 [count, height, width, channels] of images, or float32 [count, ...] of arrays,
        memory-mapped and read-only.
      classes: Int64 [count], numbers from 0.
    """

    inputs: npt.NDArray[Any]
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """Everything that the stages read.

    Attributes:
      train: Fits weights.
      tune: Chooses between epochs and calibrates int8 ranges.
      test: Measured once, at the end.
      labels: The classes' names, in the order of their numbers.
      kind: Whether inputs are pixels, "image", or numbers of the user's own, "array".
      mean: One number a channel, the last axis; in the inputs' units (0 to 255 for images).
      std: As `mean`, above 0.
      resize: Pillow's filter that made the images' size; empty for arrays.
      fit: How an image of another aspect was made to fit; empty for arrays.
    """

    train: Split
    tune: Split
    test: Split
    labels: tuple[str, ...]
    kind: Kind
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = ""
    fit: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input, without the batch's axis."""
        return self.train.inputs.shape[1:]

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.labels)

    def normalise(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Map inputs [..., channels] to what the network sees: float32, the same shape.

        All in float32, (x - mean) / std, as the card says and the device does.
        """
        mean, std = (np.asarray(value, np.float32) for value in (self.mean, self.std))
        return np.asarray((np.asarray(x, np.float32) - mean) / std, np.float32)

    def limits(self) -> tuple[float, float]:
        """Return the least and the largest number that `normalise` makes.

        Of images: of any possible pixel.  Of arrays: of the train split.
        """
        if self.kind == "image":
            ends = np.stack([np.zeros(self.shape[-1]), np.full(self.shape[-1], 255.0)])
        else:
            # Rounding keeps order, so the ends of the raw numbers are the ends of the normalised.
            parts = [(part.min(axis=0), part.max(axis=0)) for part in _rows(self.train)]
            ends = np.stack([np.min([a for a, _ in parts], 0), np.max([b for _, b in parts], 0)])
        low, high = self.normalise(ends)
        return float(low.min()), float(high.max())


def normalisation(
    split: Split, kind: Kind, how: str = ""
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Choose `mean` and `std`, one number a channel.

    Args:
      split: The train split; "standard" reads all of it, in chunks.
      how: "unit" maps pixels to [0, 1] and is the default of images; "symmetric" maps them to
        [-1, 1]; "standard" makes each channel's mean 0 and standard deviation 1 and is the default
        of arrays; "none" leaves the inputs as they are.
    """
    how = how or {"image": "unit", "array": "standard"}[kind]
    channels = split.inputs.shape[-1]
    if how == "standard":
        return _standard(split)
    if kind == "array" and how in ("unit", "symmetric"):
        raise UserError(
            "[data] normalise",
            f"{how!r} divides pixels by 255, and this data is not images",
            "write 'standard' or 'none'",
        )
    fixed = {"unit": (0.0, 255.0), "symmetric": (127.5, 127.5), "none": (0.0, 1.0)}
    if how not in fixed:
        raise UserError(
            "[data] normalise", f"got {how!r}", f"write one of: {', '.join(NORMALISATIONS)}"
        )
    mean, std = fixed[how]
    return (mean,) * channels, (std,) * channels


def _standard(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure in float64 and in two passes, as one pass loses a small spread on a large mean."""
    count = split.inputs.size // split.inputs.shape[-1]
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in _rows(split)) / count
    variance = sum(np.square(part - mean).sum(axis=0) for part in _rows(split)) / count
    std = np.sqrt(variance)
    # A channel that is constant as far as float32 can tell is only centred: dividing by next to
    # nothing would make its rounding errors the largest input there is.
    std = np.where(std > np.maximum(1e-6 * np.abs(mean), 1e-30), std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def _rows(split: Split) -> Iterator[npt.NDArray[Any]]:
    """Yield the inputs as [many, channels], a few megabytes at a time."""
    inputs = split.inputs
    step = max(1, _CHUNK_BYTES // max(1, inputs[:1].nbytes))
    for start in range(0, len(inputs), step):
        yield np.asarray(inputs[start : start + step]).reshape(-1, inputs.shape[-1])
