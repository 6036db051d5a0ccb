"""Ways in which a model file is damaged on its way to a board, or made to do harm there."""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile
from collections.abc import Iterator

from tiny_model import card_for, tiny_model

MIB = 1 << 20


def mutations(whole: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield 200 times (kind, what became of a model), the same on every call.

    Args:
      whole: The model's file.
      size: Bytes of the flatbuffer at its beginning; behind it lies a zip.
    """
    rng = random.Random(1)
    for _ in range(40):
        yield "cut", whole[: rng.randrange(len(whole))]
    for number in range(60):
        start, end = (0, size) if number % 2 else (size, len(whole))
        yield "flipped", _flipped(whole, rng.sample(range(start, end), 1 + number % 4), rng)
    for _ in range(30):
        yield "swapped", _swapped(whole, rng)
    for card in _wrong_cards(json.loads(zipfile.ZipFile(io.BytesIO(whole)).read("card.json"))):
        yield "wrong card", _with(whole, **{"card.json": json.dumps(card).encode()})
    for bomb in _bombs(whole):
        yield "bomb", bomb
    for number in range(30):
        yield "extended", whole + rng.randbytes(1 << number % 18)


def _flipped(whole: bytes, places: list[int], rng: random.Random) -> bytes:
    changed = bytearray(whole)
    for place in places:
        changed[place] ^= rng.randrange(1, 256)
    return bytes(changed)


def _swapped(whole: bytes, rng: random.Random) -> bytes:
    """Exchange two neighbouring parts of at least 8 bytes each."""
    while True:
        a, b, c = sorted(rng.sample(range(len(whole)), 3))
        if min(b - a, c - b) >= 8:
            return whole[:a] + whole[b:c] + whole[a:b] + whole[c:]


def _wrong_cards(card: dict) -> Iterator[dict]:
    """Yield 20 cards that belong to another model, or to none."""
    for shape, classes in [((4, 4, 3), 2), ((4, 4, 1), 3), ((8, 8, 3), 3), ((5, 2), 3)]:
        yield card_for(tiny_model(shape, classes), shape, classes)
    for key in ("format", "labels", "input", "output", "flatbuffer"):
        yield {name: value for name, value in card.items() if name != key}
    for key, value in {
        "format": 2,
        "labels": card["labels"][:-1],
        "input": [],
        "output": {"kind": "boxes"},
        "flatbuffer": {**card["flatbuffer"], "bytes": -4},
    }.items():
        yield {**card, key: value}
    for key, value in {
        "kind": "sound",
        "shape": [3, 4, 4],
        "mean": [0, 0],
        "std": "none",
    }.items():
        yield {**card, "input": {**card["input"], key: value}}
    yield {**card, "input": {**card["input"], "shape": [1 << 40, 4, 3]}}
    yield {}


def _bombs(whole: bytes) -> Iterator[bytes]:
    """Yield 20 files whose zip unpacks, or says that it unpacks, to more than a board has."""
    zeros = bytes(65 * MIB)
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield (bomb := _with(whole, kind, bomb=zeros))
        for said in (10, 63 * MIB, (1 << 32) - 2):  # the size that the zip gives is a lie
            yield bomb.replace(len(zeros).to_bytes(4, "little"), said.to_bytes(4, "little"))
    for name in ("card.json", "labels.txt", "golden.npz"):
        yield _with(whole, zipfile.ZIP_DEFLATED, **{name: zeros})
    half = _with(whole, zipfile.ZIP_DEFLATED, one=zeros[: 33 * MIB])
    yield _with(half, zipfile.ZIP_DEFLATED, other=zeros[: 33 * MIB])
    many = {str(number): zeros[:MIB] for number in range(80)}
    yield _with(whole, zipfile.ZIP_DEFLATED, **many)
    yield _with(whole, zipfile.ZIP_DEFLATED, **{"card.json": b"[" * 100_000})
    yield _with(whole, zipfile.ZIP_DEFLATED, **{"card.json": b"1" * MIB})
    yield _with(whole, **{str(number): b"" for number in range(5000)})


def _with(whole: bytes, kind: int = zipfile.ZIP_STORED, **files: bytes) -> bytes:
    """Add `files` to a model's zip; of two with one name, the later is the one that counts."""
    out = io.BytesIO(whole)
    with warnings.catch_warnings(), zipfile.ZipFile(out, "a") as archive:
        warnings.simplefilter("ignore", UserWarning)  # of two with one name
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return out.getvalue()
