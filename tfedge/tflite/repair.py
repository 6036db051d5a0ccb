"""Repairs of a network that int8 costs too much, none of which trains; the best is kept.

Post-training quantisation in the order of Nagel et al. 2021, figure 4
(https://arxiv.org/abs/2106.08295): equalise across layers, choose ranges of weights and
activations, correct biases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tfedge.networks.backend import keras
from tfedge.networks.clipping import clipped
from tfedge.networks.equalisation import equalised
from tfedge.networks.separable import split_separable
from tfedge.tflite.calibration import calibrated, quantised
from tfedge.tflite.correction import with_corrected_biases
from tfedge.tflite.ranges import with_best_ranges
from tfedge.tflite.running import answers

REPAIRS = ("equalise", "equalise relu6", "clip", "ranges", "biases")
"""In the order in which they are done; the second takes the place of the first."""


class Score(NamedTuple):
    """How good a quantised network is; the larger is the better one.

    Attributes:
      accuracy: From 0 to 1.
      closeness: Minus the mean squared difference from the float network's logits, relative to
        their mean square: decides where the accuracy is the same.
    """

    accuracy: float
    closeness: float


@dataclass(frozen=True)
class Jury:
    """Inputs to judge quantised networks on, and what the float network answers to them.

    Attributes:
      inputs: Float32 [count, ...], normalised.
      classes: Int64 [count].
      logits: Float32 [count, classes].
    """

    inputs: np.ndarray
    classes: np.ndarray
    logits: np.ndarray

    def score(self, flatbuffer: bytes) -> Score:
        """Judge a .tflite; one that the runtime refuses to run is worth nothing."""
        try:
            found = answers(flatbuffer, self.inputs)
        except RuntimeError:  # XNNPACK's, where a layer's scales are millions apart
            return Score(0.0, -math.inf)
        right = float(np.mean(found.argmax(axis=-1) == self.classes))
        return Score(right, -float(np.mean((found - self.logits) ** 2) / np.mean(self.logits**2)))


@dataclass(frozen=True)
class Repaired:
    """The best that was found.

    Attributes:
      flatbuffer: The int8 file.
      reference: A float file of the same network, its weights as they were before clipping.
      model: The Keras network that it was made of.
      unclipped: The same, its weights as they were before clipping: what `reference` is made of.
      repairs: Those of `REPAIRS` that were done.
      trials: The score of each choice that was tried, "none" first.
    """

    flatbuffer: bytes
    reference: bytes
    model: keras.Model
    unclipped: keras.Model
    repairs: tuple[str, ...]
    trials: dict[str, Score]


def repaired(
    model: keras.Model,
    samples: np.ndarray,
    limits: tuple[float, float],
    jury: Jury,
    choice: str = "auto",
) -> Repaired:
    """Quantise `model` to int8 with the repairs that help.

    Args:
      model: Float, flat, its BatchNormalization folded.
      samples: Float32 [count, ...], normalised, to calibrate with.
      limits: Least and largest value that a normalised input can have.
      choice: One of `REPAIRS`, which is then done whatever it does; or "auto": each is tried on top
        of those that helped before it, and kept if the jury scores it higher.
    """
    # Equalisation knows the two halves of a separable convolution only.
    workshop = _Workshop(split_separable(model), samples, limits)
    trials: dict[str, Score] = {}
    if choice != "auto":
        trials[choice] = jury.score(workshop.made((choice,)))
        return workshop.finished((choice,), trials)
    best: tuple[str, ...] = ()
    trials["none"] = jury.score(workshop.made(best))
    top = trials["none"]
    for repair in REPAIRS:
        tried = (*(name for name in best if name not in repair), repair)
        name = " + ".join(tried)
        trials[name] = jury.score(workshop.made(tried))
        if trials[name] > top:
            best, top = tried, trials[name]
    return workshop.finished(best, trials)


@dataclass
class _Workshop:
    """Makes int8 files of one network; what several have in common is made once."""

    model: keras.Model
    samples: np.ndarray
    limits: tuple[float, float]
    models: dict[tuple[str, ...], keras.Model] = field(default_factory=dict)
    files: dict[tuple[str, ...], bytes] = field(default_factory=dict)

    def made(self, repairs: tuple[str, ...]) -> bytes:
        """Return the int8 file with these repairs."""
        file = self._calibrated(_of_weights(repairs))
        if "ranges" in repairs:
            file = with_best_ranges(file, self.samples)
        int8 = quantised(file)
        if "biases" in repairs:
            int8 = with_corrected_biases(int8, self._reference(repairs), self.samples)
        return int8

    def finished(self, repairs: tuple[str, ...], trials: dict[str, Score]) -> Repaired:
        model, exact = (self._network(of(repairs)) for of in (_of_weights, _unclipped))
        made = self.made(repairs)
        return Repaired(made, self._reference(repairs), model, exact, repairs, trials)

    def _reference(self, repairs: tuple[str, ...]) -> bytes:
        """Return the float file whose means int8 is to have: that of weights not clipped."""
        return self._calibrated(_unclipped(repairs))

    def _calibrated(self, repairs: tuple[str, ...]) -> bytes:
        if repairs not in self.files:
            self.files[repairs] = calibrated(self._network(repairs), self.samples, self.limits)
        return self.files[repairs]

    def _network(self, repairs: tuple[str, ...]) -> keras.Model:
        if repairs not in self.models:
            changes: dict[str, Callable[[keras.Model], keras.Model]] = {
                "equalise": equalised,
                "equalise relu6": lambda model: equalised(model, relu6=True),
                "clip": clipped,
            }
            made = self.model
            for name in repairs:
                made = changes[name](made)
            self.models[repairs] = made
        return self.models[repairs]


def _of_weights(repairs: tuple[str, ...]) -> tuple[str, ...]:
    """Return those that change the Keras network, before anything is calibrated."""
    return tuple(name for name in repairs if name in REPAIRS[:3])


def _unclipped(repairs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in _of_weights(repairs) if name != "clip")
