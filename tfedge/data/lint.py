"""What is suspicious about the inputs that are to set the ranges of int8.

A range taken from other inputs than the board will see costs accuracy without a word.  The chosen
inputs of the tune split are compared with train inputs of the same classes in the same shares: a
choice with as many of each class differs from a whole split without anything being wrong.  Splits
may be larger than memory, so a sample of train is read, and of test a few bytes a row.

Each limit is as wide as it can be and still see the mistake that it is there for, since a finding
may stop a build.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfedge.data.dataset import Data, Split
from tfedge.data.problems import plural

_SAMPLE_BYTES = 1 << 24
_SAMPLE_LEAST, _SAMPLE_MOST = 100, 2000
_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 64
_SHOWN = 5
_IMAGE_AXES, _COLOURS = 3, 3
_PIXEL_STD = 16


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong.

    Attributes:
      name: Short and always the same, for programs.
      what: What was seen, with figures.
      fix: What to do.
    """

    name: str
    what: str
    fix: str


def findings(data: Data, chosen: npt.NDArray[np.int64]) -> list[Finding]:
    """Look for what is wrong with calibration inputs.

    0.05 s for 200 chosen of 5,000 images, 32x32x3, with 45,000 in train, on 2 cores of a server.

    Args:
      chosen: Positions in the tune split, int64 [count].

    Returns:
      At most one of each name: ``missing_class``, ``not_finite``, ``constant``, ``repeated``,
      ``in_test``, ``double_normalisation``, ``range``, ``outlier``, ``bgr``.
    """
    found = _missing_class(data, chosen)
    if not len(chosen):
        return found
    rows = _measured(data.tune.inputs, np.sort(chosen))
    if bad := _not_finite(rows):
        return [*found, *bad]  # no other figure means anything
    train = _finite(_measured(data.train.inputs, _alike(data, chosen)))
    found += [*_constant(data, rows, train), *_repeated(rows, train), *_in_test(data, rows)]
    if len(train.low):
        values = _double_normalisation(data, rows) or _range(rows, train)
        found += values or _outlier(data, rows, train)
        found += _bgr(data, rows, train)
    return found


@dataclass(frozen=True)
class _Rows:
    """A few figures of each of some inputs.

    Attributes:
      places: Positions in the split, int64 [count].
      low: The least number of each, float64 [count].
      high: The largest, likewise.
      means: Of each channel, float64 [count, channels].
      digests: SHA-256 of each one's bytes.
    """

    places: npt.NDArray[np.int64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    means: npt.NDArray[np.float64]
    digests: npt.NDArray[np.object_]


def _measured(inputs: npt.NDArray[Any], places: npt.NDArray[np.int64]) -> _Rows:
    count, channels = len(places), inputs.shape[-1]
    low, high, means = np.empty(count), np.empty(count), np.empty((count, channels))
    digests = np.empty(count, object)
    for at, part in _parts(inputs, places):
        pixels = part.reshape(len(part), -1, channels)
        stop = at + len(part)
        low[at:stop], high[at:stop] = pixels.min(axis=(1, 2)), pixels.max(axis=(1, 2))
        with np.errstate(invalid="ignore"):  # infinity less infinity, which `_not_finite` names
            means[at:stop] = pixels.mean(axis=1, dtype=np.float64)
        digests[at:stop] = [hashlib.sha256(row).digest() for row in part]
    return _Rows(places, low, high, means, digests)


def _parts(
    inputs: npt.NDArray[Any], places: npt.NDArray[np.int64]
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield rows and the number of the first of them, a few megabytes at a time."""
    step = max(1, _CHUNK_BYTES // max(1, inputs[:1].nbytes))
    for at in range(0, len(places), step):
        yield at, np.ascontiguousarray(inputs[places[at : at + step]])


def _finite(rows: _Rows) -> _Rows:
    keep = np.isfinite(rows.means).all(axis=1)
    ends = rows.low[keep], rows.high[keep]
    return _Rows(rows.places[keep], *ends, rows.means[keep], rows.digests[keep])


def _alike(data: Data, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Choose train inputs of the classes of `chosen` in the same shares, spread over the split.

    One is chosen several times where its class is rare.
    """
    size = _SAMPLE_BYTES // max(1, data.train.inputs[:1].nbytes)
    size = min(max(size, _SAMPLE_LEAST), _SAMPLE_MOST)
    order = np.argsort(data.train.classes, kind="stable")
    classes, counts = np.unique(data.tune.classes[chosen], return_counts=True)
    starts, stops = (
        np.searchsorted(data.train.classes[order], classes, side) for side in ("left", "right")
    )
    places = [
        order[np.linspace(start, stop - 1, max(1, round(size * count / len(chosen)))).astype(int)]
        for start, stop, count in zip(starts, stops, counts, strict=True)
        if stop > start
    ]
    return np.concatenate(places) if places else np.empty(0, np.int64)


def _missing_class(data: Data, chosen: npt.NDArray[np.int64]) -> list[Finding]:
    present = np.unique(data.tune.classes[chosen])
    missing = np.setdiff1d(np.arange(data.classes), present)
    if not len(missing):
        return []
    names = _some([repr(data.labels[number]) for number in missing])
    what = f"{len(missing)} of {data.classes} classes have no input: {names}"
    if len(np.setdiff1d(missing, data.tune.classes)) == len(missing):
        fix = "the tune split has none: add some to it"
    elif len(chosen) < data.classes:
        fix = f"calibrate with at least {data.classes} inputs, one of each class"
    else:
        fix = "choose the inputs by class, as many of each"
    return [Finding("missing_class", what, fix)]


def _not_finite(rows: _Rows) -> list[Finding]:
    bad = rows.places[~np.isfinite(rows.means).all(axis=1)]
    if not len(bad):
        return []
    what = f"{plural(len(bad), 'input')} with NaN or infinity: {_tune(bad)}"
    return [Finding("not_finite", what, "remove or replace them: no range holds such a number")]


def _constant(data: Data, rows: _Rows, train: _Rows) -> list[Finding]:
    """Find inputs of one value only, if they are no more usual in train."""
    few = 8  # so short a row of numbers may well be all alike
    flat = rows.low == rows.high
    usual = float(np.mean(train.low == train.high)) if len(train.low) else 0.0
    if int(np.prod(data.shape)) < few or flat.mean() <= 2 * usual:
        return []
    what = f"{plural(int(flat.sum()), 'input')} of {len(flat)} with one value throughout: "
    fix = "remove them, or see why they were read as blank: they show no range"
    return [Finding("constant", what + _tune(rows.places[flat]), fix)]


def _repeated(rows: _Rows, train: _Rows) -> list[Finding]:
    """Find inputs that are there more than once, if they are no more usual in train."""
    _, first = np.unique(train.places, return_index=True)
    copies = _copies(rows.digests)
    usual = len(_copies(train.digests[first])) / max(1, len(first))
    if len(copies) / len(rows.digests) <= 2 * usual:
        return []
    again = rows.places[copies]
    what = f"{plural(len(copies), 'input')} of {len(rows.digests)} that repeat another: "
    fix = "remove the copies from the tune split, or choose each input once"
    return [Finding("repeated", what + _tune(again), fix)]


def _copies(digests: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    """Return the positions of what was there before."""
    seen: set[bytes] = set()
    positions = []
    for position, digest in enumerate(digests):
        if digest in seen:
            positions.append(position)
        seen.add(digest)
    return np.array(positions, np.int64)


def _in_test(data: Data, rows: _Rows) -> list[Finding]:
    """Find inputs that the test split holds too, byte for byte."""
    heads = set(_heads(data.tune, rows.places))
    suspects = [n for n, head in enumerate(_heads(data.test)) if head in heads]
    known = set(rows.digests)
    found: dict[bytes, int] = {}
    for at, part in _parts(data.test.inputs, np.array(suspects, np.int64)):
        for number, row in enumerate(part, at):
            digest = hashlib.sha256(row).digest()
            if digest in known:
                found.setdefault(digest, suspects[number])
    if not found:
        return []
    pairs = [
        f"tune[{place}] is test[{found[digest]}]"
        for place, digest in zip(rows.places, rows.digests, strict=True)
        if digest in found
    ]
    what = f"{plural(len(pairs), 'input')} of {len(rows.places)} in the test split too: "
    fix = "take them out of one of the two: the test accuracy is flattered by them"
    return [Finding("in_test", what + _some(pairs), fix)]


def _heads(split: Split, places: npt.NDArray[np.int64] | None = None) -> Iterator[bytes]:
    """Yield some bytes from the middle of each row, which tell most rows apart."""
    flat = split.inputs.reshape(len(split.inputs), -1)
    width = max(1, _HEAD_BYTES // flat.itemsize)
    start = max(0, (flat.shape[1] - width) // 2)
    some = flat[:, start : start + width]
    for row in np.array(some if places is None else some[places]):
        yield row.tobytes()


def _double_normalisation(data: Data, rows: _Rows) -> list[Finding]:
    """Find pixels so small that they were divided before they are divided by `std`."""
    least, largest = min(data.std), max(-rows.low.min(), rows.high.max())
    if data.kind == "image":
        small = largest <= 1 < least
    else:  # such as 0 to 1, or -2.7 to 2.7, and a std that pixels of 0 to 255 may have
        small = len(data.shape) == _IMAGE_AXES and 10 * largest < least and least > _PIXEL_STD
    if not small or not largest:
        return []
    what = f"the inputs are from {rows.low.min():.4g} to {rows.high.max():.4g}, and are divided by "
    fix = (
        'hand in the pixels as they are, 0 to 255; or, if these are they, write normalise = "none"'
        " and take a Rescaling out of the network, if it is that which divides"
    )
    return [Finding("double_normalisation", f"{what}{least:.4g} once more", fix)]


def _range(rows: _Rows, train: _Rows) -> list[Finding]:
    """Compare where the numbers lie and how far they reach with train."""
    what = _shift(rows, train) or _reach(rows, train)
    fix = "look at a few of them: they must be made, scaled and decoded as those of train are"
    return [Finding("range", what, fix)] if what else []


def _shift(rows: _Rows, train: _Rows) -> str:
    """Say which channel's mean is off by more than its inputs differ among themselves."""
    enough = max(1.0, 5 / np.sqrt(len(rows.low)))  # of a few inputs, the mean is uncertain
    here, there = rows.means.mean(axis=0), train.means.mean(axis=0)
    # A feature that is nearly always 0 differs little in train; those that chosen hold it count.
    spread = np.maximum(rows.means.std(axis=0), train.means.std(axis=0))
    rounding = 1e-5 * np.abs(train.means).max(axis=0) + 1e-7 * max(
        -train.low.min(), train.high.max()
    )
    excess = np.abs(here - there) / (enough * spread + rounding)
    worst = int(excess.argmax())
    if excess[worst] <= 1:
        return ""
    return (
        f"the mean of channel {worst} is {here[worst]:.4g}, and {there[worst]:.4g} in train inputs"
        f" of the same classes, which differ by {spread[worst]:.2g} among themselves"
    )


def _reach(rows: _Rows, train: _Rows) -> str:
    """Say if the extremes of all chosen fall short of train's usual ones, or the other way round.

    Usual is what a share of inputs reaches so large that some of the chosen should be among them.
    """
    count = len(rows.low)
    few, part, beyond = 10, 0.6, 1.5
    if count < few:
        return ""
    tail = min(0.5, max(0.1, few / count))

    def usual(of: _Rows) -> float:
        return float(np.quantile(of.high, 1 - tail) - np.quantile(of.low, tail))

    ends = f"from {rows.low.min():.4g} to {rows.high.max():.4g}"
    others = f"train from {train.low.min():.4g} to {train.high.max():.4g}"
    if rows.high.max() - rows.low.min() < part * usual(train):
        return f"the inputs reach {ends} only, {others}"
    if usual(rows) > beyond * (train.high.max() - train.low.min()):
        return f"the inputs reach {ends}, far beyond {others}"
    return ""


def _outlier(data: Data, rows: _Rows, train: _Rows) -> list[Finding]:
    """Find single inputs far outside of what train holds: one alone sets a range."""
    low, high = train.low.min(), train.high.max()

    def outside() -> npt.NDArray[np.bool_]:
        reach = 2 * (high - low)
        return np.asarray((rows.low < low - reach) | (rows.high > high + reach))

    if not outside().any():
        return []
    # Only now is it worth reading all of train: the sample may have missed its own outliers.
    for _, part in _parts(data.train.inputs, np.arange(len(data.train.inputs))):
        low, high = np.fmin(low, part.min()), np.fmax(high, part.max())
    bad = outside()
    if not bad.any():
        return []
    ends = f"{rows.low[bad].min():.4g} to {rows.high[bad].max():.4g}"
    what = f"{plural(int(bad.sum()), 'input')} from {ends}, where train is {low:.4g} to {high:.4g}"
    fix = "remove them, or clip what they record: one outlier coarsens the steps of all others"
    return [Finding("outlier", f"{what}: {_tune(rows.places[bad])}", fix)]


def _bgr(data: Data, rows: _Rows, train: _Rows) -> list[Finding]:
    """Find red and blue swapped: their difference is that of train with the other sign."""
    few = 20
    if len(data.shape) != _IMAGE_AXES or data.shape[-1] != _COLOURS or len(rows.low) < few:
        return []
    here, there = (of.means[:, 0] - of.means[:, 2] for of in (rows, train))
    error = np.sqrt(here.var() / len(here) + there.var() / len(there))
    apart, swapped = abs(here.mean() - there.mean()), abs(here.mean() + there.mean())
    sure, alike = 4.5, 3  # standard errors
    if apart <= sure * error or swapped > alike * error or 4 * swapped > apart:
        return []
    means = [", ".join(f"{mean:.1f}" for mean in of.means.mean(axis=0)) for of in (rows, train)]
    what = f"the channels' means are {means[0]}, train's {means[1]}: red and blue look swapped"
    fix = "read the images as RGB; OpenCV reads BGR: cv2.cvtColor(image, cv2.COLOR_BGR2RGB)"
    return [Finding("bgr", what, fix)]


def _tune(places: npt.NDArray[np.int64]) -> str:
    return _some([f"tune[{place}]" for place in places])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
