"""A network that was trained elsewhere, taken in and tried on the data that it is to work on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfedge.data.dataset import Data
from tfedge.data.sampling import stratified
from tfedge.errors import UserError
from tfedge.figures import accuracy_figures
from tfedge.networks.backend import keras
from tfedge.networks.exits import last_exit
from tfedge.networks.files import Answers, looked_through, opened
from tfedge.networks.graph import Graph
from tfedge.networks.preparation.inputs import Sizing, takes_pixels, with_channels_reversed
from tfedge.networks.preparation.preparing import Feed, Prepared, prepare
from tfedge.networks.saving import has_exits, is_aware, load_model

SCALINGS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "unit": ((0.0,), (255.0,)),
    "symmetric": ((127.5,), (127.5,)),
    "pixels": ((0.0,), (1.0,)),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
}
"""What pixels become before a network sees them, as mean and deviation, red first.

"imagenet" and "caffe" are the modes "torch" and "caffe" of Keras's preprocess_input; a network of
the last takes blue first.
"""

SWAPPED = "blue first"

_SAMPLES = 16
_TRIED = 300
_COLOURS = 3
_ALIKE = 1e-4


@dataclass(frozen=True)
class Doubt:
    """Another way to feed a network, with which it is right much more often.

    Attributes:
      takes: A key of `SCALINGS`, or `SWAPPED`.
      accuracy: With it, from 0 to 1, on tune.
      now: As it is fed.
    """

    takes: str
    accuracy: float
    now: float

    @property
    def swapped(self) -> bool:
        """Whether it is the colours that are taken for one another."""
        return self.takes == SWAPPED


def taken_in(
    graph: Graph,
    answers: Answers,
    data: Data,
    takes: str,
    *,
    fold: bool,
    blue_first: bool = False,
) -> Prepared:
    """Prepare a network for `data` and prove that it still answers the same.

    Args:
      graph: Is changed.
      answers: What the network answers as it came.
      blue_first: Whether it takes blue, green, red, as one of "caffe" always does.
      takes: A key of `SCALINGS`; "data" for what the data is normalised to, or for pixels, if the
        network begins with layers that normalise them.
      fold: See `preparing.prepare`.
    """
    feed = Feed(data.mean, data.std)
    if takes != "data":
        feed = _named(graph, data, takes)
    as_it_came = answers
    if takes == "caffe" or blue_first:
        with_channels_reversed(graph)

        def answers(x: np.ndarray) -> np.ndarray:
            return as_it_came(np.ascontiguousarray(x[..., ::-1]))

    made = prepare(graph, answers, _samples(data), feed, classes=data.classes, fold=fold)
    for sizing in made.sizings:
        made.notes += _about_size(sizing, data)
    if made.scaled_itself:
        made.notes += _about_scaling(made.feed, data)
    return made


def fed_by(
    file: Path,
    feed: Feed,
    samples: np.ndarray,
    classes: int,
    *,
    trust: bool = False,
    custom: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Open a Keras file of a user's or of tfedge's as a network that `feed` feeds.

    Of one with early exits that is the network of the last exit.

    Args:
      samples: Inputs as recorded [count, ...], to prove the rebuilding on.
      trust: As `files.opened` takes it.
      custom: As `files.opened` takes it.

    Raises:
      UserError: The file cannot be read, or its network is fed otherwise.
    """
    if is_aware(file) or has_exits(file):  # of tfedge's own stages
        looked_through(file, trust=trust, custom=custom or {})
        layers = {name: kind for name, kind in (custom or {}).items() if isinstance(kind, type)}
        return last_exit(load_model(file, layers))
    graph, answers = opened(file, samples.shape[1:], trust=trust, custom=custom)
    prepared = prepare(graph, answers, samples, feed, classes=classes)
    pairs = zip((*prepared.feed.mean, *prepared.feed.std), (*feed.mean, *feed.std), strict=True)
    if any(abs(own - given) > _ALIKE * max(1.0, abs(given)) for own, given in pairs):
        problem = f"takes (x - {prepared.feed.mean}) / {prepared.feed.std}, the card says otherwise"
        raise UserError(file, problem, "give the network that the .tflite was made of")
    return prepared.model


def doubt(model: keras.Model, feed: Feed, data: Data, *, sure: bool = False) -> Doubt | None:
    """Try other ways to feed a network of pictures; return one that is clearly better.

    Args:
      sure: Try no other scaling, because the network had its own inside.
    """
    if data.kind != "image" or not len(data.tune.classes):
        return None
    chosen = np.sort(stratified(data.tune.classes, _TRIED))
    pixels, classes = np.asarray(data.tune.inputs[chosen]), data.tune.classes[chosen]
    channels = pixels.shape[-1]
    trials = {
        name: Feed(*(_spread(end, channels) for end in ends))(pixels)
        for name, ends in SCALINGS.items()
        if name != "caffe" and len(ends[0]) in (1, channels) and not sure
    }
    if channels == _COLOURS:
        trials[SWAPPED] = feed(pixels[..., ::-1])
    if not trials:
        return None
    now = _accuracy(model, feed(pixels), classes)
    found = {name: _accuracy(model, x, classes) for name, x in trials.items()}
    best = max(found, key=lambda name: found[name]["accuracy"])
    if found[best]["accuracy_low"] <= now["accuracy_high"]:
        return None
    return Doubt(best, found[best]["accuracy"], now["accuracy"])


def _about_size(sizing: Sizing, data: Data) -> Iterator[str]:
    """Say what the board now does in place of a layer, and where [data] does it otherwise."""
    yield f"{sizing.layer} is taken out: [data] and the board make pictures of that size"
    if sizing.resize and sizing.resize != data.resize:
        yield f'{sizing.layer} resized by {sizing.resize}: resize = "{sizing.resize}" in [data]'
    if sizing.fit != data.fit:
        yield f'{sizing.layer} did otherwise with other shapes: fit = "{sizing.fit}" in [data]'
    if sizing.share < 1:
        yield f"{sizing.layer} saw the middle {sizing.share:.0%} of a side: crop pictures alike"


def _about_scaling(feed: Feed, data: Data) -> Iterator[str]:
    """Say that the network divides numbers that were divided already."""
    samples = _samples(data)
    largest, least = np.abs(samples).max(), min(feed.std)
    if samples.dtype != np.uint8 and largest <= 1 < least:
        yield (
            f"it begins with a layer that divides by {least:.4g}, and no number of the data is"
            f" larger than {largest:.4g}: give pixels as they are, or take that layer out"
        )


def _named(graph: Graph, data: Data, takes: str) -> Feed:
    if data.kind != "image":
        fix = "leave it out: numbers are fed as [data] normalises them"
        raise UserError("takes", f"{takes!r} is about pixels, and the data is not images", fix)
    if takes_pixels(graph) and takes != "pixels":
        problem = f"{takes!r} cannot be: the network begins with a layer that normalises pixels"
        raise UserError("takes", problem, "leave it out")
    mean, std = SCALINGS[takes]
    channels = data.shape[-1]
    if len(mean) not in (1, channels):
        raise UserError("takes", f"{takes!r} is about colours, and the data has {channels} channel")
    return Feed(_spread(mean, channels), _spread(std, channels))


def _spread(end: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return end if len(end) == channels else end * channels


def _samples(data: Data) -> np.ndarray:
    """Return inputs as recorded: real ones, and random ones of their range."""
    split = data.tune if len(data.tune.classes) else data.train
    real = np.asarray(split.inputs[np.sort(stratified(split.classes, _SAMPLES))])
    rng = np.random.default_rng(0)
    if real.dtype == np.uint8:
        random = rng.integers(0, 256, (_SAMPLES, *data.shape)).astype(np.uint8)
    else:
        random = rng.uniform(real.min(), real.max(), (_SAMPLES, *data.shape)).astype(np.float32)
    return np.concatenate([real, random])


def _accuracy(model: keras.Model, x: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    answers = np.concatenate(
        [np.asarray(model(x[start : start + 64], training=False)) for start in range(0, len(x), 64)]
    )
    return accuracy_figures(int((answers.argmax(axis=-1) == classes).sum()), len(classes), "tune")
