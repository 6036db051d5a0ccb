"""All passes in their order, each proved on data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.files import Answers
from tfedge.networks.graph import Graph, build
from tfedge.networks.preparation import (
    activations,
    dimensions,
    folding,
    heads,
    inputs,
    recurrence,
)

LIMIT = 1e-4
"""The largest difference allowed, relative to the largest number that the network answers."""

HALF_LIMIT = 3e-2
"""The same from a network that computed in 16 bits to its rebuilding in float32; and no further."""


@dataclass(frozen=True)
class Feed:
    """What a network is fed with: (x - mean) / std, x as recorded; one number a channel each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return np.asarray((x.astype(np.float32) - mean) / std, np.float32)


@dataclass
class Prepared:
    """A network that tfmot and the converter take.

    Attributes:
      model: Flat, functional, float32, answering with logits.
      feed: What it takes.
      output: What turns its logits into probabilities: "softmax" or "sigmoid".
      steps: Each rewrite that did something, and how far the answers then were from those of the
        network that came in, relative to the largest of them.
      notes: What the user ought to know.
      scaled_itself: Whether it began with layers that take pixels as they are.
      sizings: Resizing and cropping that the network began with, which is the board's work now.
    """

    model: keras.Model
    feed: Feed
    output: str = "softmax"
    steps: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    scaled_itself: bool = False
    sizings: list[inputs.Sizing] = field(default_factory=list)


def prepare(
    graph: Graph,
    answers: Answers,
    samples: np.ndarray,
    feed: Feed,
    *,
    classes: int,
    fold: bool = True,
) -> Prepared:
    """Rewrite a network, and prove each rewrite on samples.

    Args:
      graph: Is changed.
      answers: What the network that came in answers to float32 [count, ...].
      samples: Inputs as recorded, uint8 or float32 [count, ...]: real ones and random ones.
      feed: What the network takes, unless it begins with layers that take pixels as they are.
      classes: How many the data has.
      fold: Fold each BatchNormalization into the layer before it; else only those that follow no
        convolution or dense layer are said as scales.

    Raises:
      UserError: The network has another input or output than a classifier of these samples, or a
        rewrite changed what it answers.
    """
    return _Preparation(graph, answers, samples, feed, fold=fold).run(classes)


class _Preparation:
    """A network on its way, and what it has to answer."""

    def __init__(
        self, graph: Graph, answers: Answers, samples: np.ndarray, feed: Feed, *, fold: bool
    ) -> None:
        self.graph, self.samples, self.fold = graph, samples, fold
        self.where = f"network {graph.name!r}"
        self._check_ends()
        channels = samples.shape[-1]
        pixels = inputs.takes_pixels(graph)
        self.feed = Feed((0.0,) * channels, (1.0,) * channels) if pixels else feed
        self.ending: Callable[[np.ndarray], np.ndarray] = lambda x: x
        self.made = Prepared(None, self.feed, scaled_itself=pixels)
        self.answers = answers
        self.expected = np.empty(0)

    def run(self, classes: int) -> Prepared:
        self._read()
        self._inputs()
        self._prove("rebuilt flat", done=True)
        graph, fold = self.graph, self.fold
        self._prove("time distributed", done=bool(recurrence.at_once(graph)))
        self._prove("idle layers out", done=bool(activations.without_idle_layers(graph)))
        self._prove("activations as layers", done=self._activations())
        self._ending(classes)
        self._prove("scales of their own", done=bool(folding.scales(graph, keep_trained=not fold)))
        self._leading()
        self._prove("scales folded", done=bool(folding.folded(graph)))
        self._prove("one axis as two", done=bool(dimensions.along_one_axis(graph)))
        self._prove("loops unrolled", done=bool(recurrence.unrolled(graph)))
        self._prove("scales as convolutions", done=bool(folding.alone(graph)))
        for layer, why in recurrence.never_int8(graph.calls):
            self.made.notes.append(f"cannot be quantised: layer {layer}: {why}")
        self.made.feed = self.feed
        shape = tuple(self.made.model.output_shape[1:])
        if len(shape) != 1:
            problem = f"answers with {shape}, and a classifier with one number a class"
            fix = f"end it in a pooling layer and Dense({classes})"
            raise UserError(self.where, problem, fix)
        if shape != (classes,):
            problem = f"answers with {shape}, but the data has {classes} classes"
            raise UserError(self.where, problem, "give data with the classes it was trained on")
        return self.made

    def _check_ends(self) -> None:
        recurrence.refuse_state(self.graph)
        for call in self.graph.calls:
            if not all(np.isfinite(weight).all() for weight in call.layer.weights):
                fix = "take it from before the training diverged, or train it at a smaller rate"
                raise UserError(f"layer {call.layer}", "has weights that are not finite", fix)
            if call.is_a(keras.layers.Embedding):
                fix = "give a network of pictures or of measured numbers"
                raise UserError(f"layer {call.layer}", "takes whole numbers, such as words'", fix)
        for ends, word in ((self.graph.inputs, "inputs"), (self.graph.outputs, "outputs")):
            if len(ends) != 1:
                fix = "give a network with one input and one output: a classifier"
                raise UserError(self.where, f"has {len(ends)} {word}", fix)

    def _read(self) -> None:
        """Note what the network answers; one that resizes is held against itself from then on."""
        takes = self.graph.inputs[0].shape[1:]
        shape = self.samples.shape[1:]
        if _fits(takes, shape):
            self.expected = self.answers(self.feed(self.samples)).astype(np.float32)
            if not np.isfinite(self.expected).all():
                fix = "see what it is fed with: normalise in [data], takes in this stage"
                raise UserError(self.where, "answers with what is no finite number", fix)
            return
        if len(takes) != len(shape):
            inputs.refuse_shape(self.where, takes, shape)
        own = (*(size or 32 for size in takes),)
        x = np.random.default_rng(0).uniform(0, 255, (4, *own)).astype(np.float32)
        difference = _difference(np.asarray(build(self.graph)(x, training=False)), self.answers(x))
        self._judge("rebuilt", difference)

    def _inputs(self) -> None:
        graph, shape = self.graph, self.samples.shape[1:]
        dropped = inputs.without_augmentation(graph)
        if dropped:
            self.made.notes.append(f"for training only, taken out: {', '.join(dropped)}")
        self.made.sizings = inputs.without_sizing(graph)
        takes = graph.inputs[0].shape[1:]
        if not _fits(takes, shape):
            inputs.refuse_shape(self.where, takes, shape)
        graph.inputs[0].shape = (None, *shape)

    def _activations(self) -> bool:
        outside = activations.outside_of_layers(self.graph)
        return bool(activations.as_layers(self.graph) + outside)

    def _ending(self, classes: int) -> None:
        taken = heads.without_probabilities(self.graph)
        self.made.output = taken or "softmax"
        self.ending = {"softmax": softmax, "sigmoid": sigmoid}.get(taken, lambda x: x)
        if taken:
            self._prove(f"without {taken}", done=True)
        pair = 2
        if classes == pair and heads.two_logits(self.graph):
            before = self.ending
            self.ending = lambda z: before(z[:, 1:] - z[:, :1])
            self.made.output = "softmax"
            text = "its one answer z became two logits, -z/2 and z/2: the second class is z > 0"
            self.made.notes.append(text)
            self._prove("two logits", done=True)

    def _leading(self) -> None:
        found = folding.leading(self.graph)
        if found is None:
            return
        scale, offset = (end.astype(np.float64) for end in found)
        # (x - m) / s is multiplied and shifted once more; said as one mean and deviation.
        mean, std = np.array(self.feed.mean), np.array(self.feed.std)
        new = mean - offset / scale * std, std / scale
        self.feed = Feed(*(tuple(_rounded(value) for value in end) for end in new))
        self._prove("normalisation to the card", done=True)

    def _prove(self, step: str, *, done: bool) -> None:
        if not done:
            return
        self.made.model = build(self.graph)
        got = self.ending(np.asarray(self.made.model(self.feed(self.samples), training=False)))
        if not len(self.expected):
            self.expected = got
        self._judge(step, _difference(got, self.expected))
        if self.graph.half:  # what float32 answers is what the passes must keep
            self.graph.half, self.expected = False, got
            self.made.notes.append("computed in 16 bits where it comes from, in float32 here")

    def _judge(self, step: str, difference: float) -> None:
        self.made.steps[step] = difference
        if not difference <= (HALF_LIMIT if self.graph.half else LIMIT):
            problem = f"answers otherwise after {step!r}: by {difference:.1e} of its largest answer"
            fix = "a layer of your own may compute otherwise when it is made again; else report it"
            raise UserError(self.where, problem, fix)


def _rounded(value: float) -> float:
    """Return 127.5 for 127.4999925, what is left of it after a division in float32."""
    return float(f"{value:.7g}")


def _fits(takes: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(takes) == len(shape) and all(
        a in (None, b) for a, b in zip(takes, shape, strict=True)
    )


def _difference(got: np.ndarray, expected: np.ndarray) -> float:
    largest = float(np.abs(expected).max()) or 1.0
    return float(np.abs(got - expected.reshape(got.shape)).max()) / largest


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities that add up to 1 along the last axis."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return a probability for each number."""
    return np.asarray(1 / (1 + np.exp(-logits)))
