"""Which weights a training in 8 bits ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfedge.data.dataset import Data
from tfedge.networks.backend import keras
from tfedge.training.batches import Order, training_batches
from tfedge.training.batchnorm import estimate, normalisations
from tfedge.training.fitting import Session, answers_of

BATCH, BATCHES = 256, 16
"""4,096 inputs; Wu and Johnson 2021, section 3, find 1,000 to 10,000 to be enough."""

LAST = "the last epoch"
TRAINED = "the best epoch"
ESTIMATED = "the best epoch, BatchNormalization estimated anew"
UNTRAINED = "the network before training"


def end_with_the_best(model: keras.Model, start: Sequence[np.ndarray], session: Session) -> str:
    """Leave the weights of `model`, or give it better ones, and say which it has.

    Training is measured against no training: a short course, or too large a step, may well end
    below the calibrated network that it began with.

    Args:
      model: Has the weights of its best epoch.
      start: What `get_weights` returned before training.
    """
    candidates = {TRAINED: model.get_weights()}
    if normalisations(model):
        estimate(model, _inputs(session))
        candidates[ESTIMATED] = model.get_weights()
    return choose(model, candidates | {UNTRAINED: [*start]}, session.data)


def choose(model: keras.Model, candidates: Mapping[str, Sequence[np.ndarray]], data: Data) -> str:
    """Give `model` the weights that do best on tune, and return their name.

    Best is the highest accuracy, of equals the lowest loss, of those the first.

    Args:
      candidates: What `get_weights` has returned, by name.
    """
    scores = {}
    for name, weights in candidates.items():
        model.set_weights(weights)
        scores[name] = _score(answers_of(model, data, data.tune), data.tune.classes)
    best = max(candidates, key=lambda name: scores[name])
    model.set_weights(candidates[best])
    return best


def _score(answers: Sequence[np.ndarray], classes: np.ndarray) -> tuple[float, float]:
    """Return accuracy and negative loss; of a network with exits, the means over them."""
    loss = keras.losses.sparse_categorical_crossentropy
    losses = [np.mean(loss(classes, logits, from_logits=True)) for logits in answers]
    rights = [np.mean(logits.argmax(axis=-1) == classes) for logits in answers]
    return float(np.mean(rights)), -float(np.mean(losses))


def _inputs(session: Session) -> tf.data.Dataset:
    """Return training inputs as the board will see them, without augmentation, well mixed."""
    order = Order(len(session.data.train.classes), BATCH, session.seed)
    batches = training_batches(session.data, (), order, first_epoch=0, epochs=1)
    whole = max(1, order.count // BATCH)  # what is left would count as much as a batch
    return batches.take(min(whole, BATCHES))
