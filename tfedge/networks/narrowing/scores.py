"""What each channel of a group is worth, by several measures from the literature.

A score is a function of the groups of a network, and of labelled batches where it looks at data,
to a float for each channel: {group's name: [width]}.  Only the order of a score's numbers counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import build
from tfedge.networks.narrowing.following import MAKES, PASSES, READS
from tfedge.networks.narrowing.groups import Group, Groups, Slice

Scores = dict[str, np.ndarray]
Batches = Iterable[tuple[tf.Tensor, tf.Tensor]]
"""Inputs, float [batch, ...], and labels, one-hot float [batch, classes]."""


@dataclass(frozen=True)
class Score:
    """A way to score.

    Attributes:
      function: Groups and batches to scores.
      compares: Whether its numbers of different layers are of one scale.  The others are divided
        by their group's mean before layers compete.
    """

    function: Callable[[Groups, Batches], Scores]
    compares: bool


def l1(groups: Groups, batches: Batches) -> Scores:  # noqa: ARG001
    """Sum the absolute weights that make a channel (Li et al. 2017, section 3.1).

    https://arxiv.org/abs/1608.08710; of several layers that make it, all count.
    """
    return _of_filters(groups, lambda filters: np.abs(filters).sum(axis=1))


def l2(groups: Groups, batches: Batches) -> Scores:  # noqa: ARG001
    """Measure the Euclidean length of the weights that make a channel, see `l1`."""
    return _of_filters(groups, lambda filters: np.linalg.norm(filters, axis=1))


def geometric_median(groups: Groups, batches: Batches) -> Scores:  # noqa: ARG001
    """Sum the distances to all other filters of the layer (He et al. 2019, equation 4).

    A filter near the geometric median is one that the others can stand in for; a large one may be.
    https://arxiv.org/abs/1811.00250
    """

    def distances(filters: np.ndarray) -> np.ndarray:
        squares = (filters**2).sum(axis=1)
        apart = squares[:, None] + squares - 2 * filters @ filters.T
        return np.sqrt(np.maximum(apart, 0)).sum(axis=1)

    return _of_filters(groups, distances)


def batchnorm(groups: Groups, batches: Batches) -> Scores:  # noqa: ARG001
    """Take BatchNormalization's factors (Liu et al. 2017, https://arxiv.org/abs/1708.06519).

    Raises:
      UserError: A group has none.
    """
    layers = {call.layer.name: call.layer for call in groups.graph.calls}

    def factors(group: Group) -> np.ndarray:
        norms = [
            part
            for part in group.of(PASSES)
            if part.of == 0
            and layers[part.layer].kind is keras.layers.BatchNormalization
            and layers[part.layer].config["scale"]
        ]
        if not norms:
            problem = f"no BatchNormalization scales the channels of {group.name!r}"
            fix = 'write another score, or batchnorm = "keep" where the network is imported'
            raise UserError("score", problem, fix)
        found = [_each(part, np.abs(layers[part.layer].weights[0])) for part in norms]
        return np.asarray(np.mean(found, axis=0).mean(axis=1))

    return {group.name: factors(group) for group in groups.all}


def taylor(groups: Groups, batches: Batches) -> Scores:
    """Estimate by how much the loss changes without a channel (Molchanov et al. 2019, equation 8).

    The product of gradient and weight, summed over all weights that read the channel: that is the
    gradient times the channel itself, which is what taking it out takes from the answer to first
    order.  Squared for each batch, and averaged.  https://arxiv.org/abs/1906.10771
    Of a network with exits the loss is the mean of theirs.
    """
    model = build(groups.graph)
    read = [(group, part) for group in groups.all for part in group.of(READS)]
    weights = [_variable(model, part) for _, part in read]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)

    @tf.function
    def products(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            answers = tf.nest.flatten(model(x, training=False))
            value = tf.add_n([loss(y, logits) for logits in answers]) / len(answers)
        slopes = tape.gradient(value, weights, unconnected_gradients="zero")
        return [slope * weight for slope, weight in zip(slopes, weights, strict=True)]

    scores = {group.name: np.zeros(group.width) for group in groups.all}
    for x, y in batches:
        change = {group.name: np.zeros(group.width) for group in groups.all}
        for (group, part), product in zip(read, products(x, y), strict=True):
            change[group.name] += _each(part, product.numpy()).sum(axis=1)
        for name, of_group in change.items():
            scores[name] += of_group**2
    return scores


SCORES = {
    "taylor": Score(taylor, compares=True),
    "l1": Score(l1, compares=False),
    "l2": Score(l2, compares=False),
    "batchnorm": Score(batchnorm, compares=True),
    "geometric_median": Score(geometric_median, compares=False),
}


def _of_filters(groups: Groups, measure: Callable[[np.ndarray], np.ndarray]) -> Scores:
    """Sum a measure of the filters [width, weights] over the layers that make a group."""
    layers = {call.layer.name: call.layer for call in groups.graph.calls}

    def measured(group: Group) -> Iterator[np.ndarray]:
        for part in group.of(MAKES):
            yield measure(_each(part, layers[part.layer].weights[int(part.of)]))

    return {group.name: np.sum(list(measured(group)), axis=0) for group in groups.all}


def _each(part: Slice, weight: np.ndarray) -> np.ndarray:
    """Return what a weight has for each channel, [width, numbers], in the order of channels."""
    lying = np.moveaxis(weight, part.axis, 0).reshape(len(part.channels), -1)
    here = np.flatnonzero(part.channels >= 0)
    order = here[np.argsort(part.channels[here], kind="stable")]
    width = len(np.unique(part.channels[here]))
    return lying[order].reshape(width, -1)


def _variable(model: keras.Model, part: Slice) -> tf.Variable:
    return model.get_layer(part.layer).weights[int(part.of)]
