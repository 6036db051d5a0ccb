"""Which split an example belongs to, and what must hold between the splits."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

SPLITS = ("train", "tune", "test")


def split_of(name: str, tune_share: float, test_share: float) -> str:
    """Choose the split of an example by its name alone, so that adding others moves none.

    The first 8 bytes of the name's SHA-256, read as a fraction of 2**64, fall into [0, test_share)
    for test, into the next `tune_share` for tune, and otherwise into train.  Test comes first, so
    that another `tune_share` leaves it as it is.

    Args:
      name: A photo's path below the folder with "/" between its parts, or a row's number.
    """
    place = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64
    if place < test_share:
        return "test"
    return "tune" if place < test_share + tune_share else "train"


def repeated(splits: Sequence[str], contents: Sequence[str | bytes]) -> dict[int, int]:
    """Find examples whose content is in a more precious split too.

    Test is kept before tune before train.  Copies inside one split are no concern of this.

    Args:
      splits: Each example's split.
      contents: Each example's content, or a hash of it.

    Returns:
      For each example to leave out, one that is kept and has the same content.
    """
    keeper: dict[str | bytes, int] = {}
    for number, content in enumerate(contents):
        best = keeper.setdefault(content, number)
        if SPLITS.index(splits[number]) > SPLITS.index(splits[best]):
            keeper[content] = number
    return {
        number: keeper[content]
        for number, content in enumerate(contents)
        if splits[number] != splits[keeper[content]]
    }


def classes_without_examples(
    labels: Sequence[str], splits: Sequence[str], classes: Sequence[str]
) -> list[str]:
    """Name each class that some split lacks, with the splits that lack it.

    Args:
      splits: Each example's split.
      classes: Each example's label.
    """
    counts = Counter(zip(splits, classes, strict=True))
    lines = []
    for label in labels:
        lacking = [split for split in SPLITS if not counts[split, label]]
        if len(lacking) == len(SPLITS):
            lines.append(f"{label}: none at all")
        elif lacking:
            lines.append(f"{label}: none in {', '.join(lacking)}")
    return lines
