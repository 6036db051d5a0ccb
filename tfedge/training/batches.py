"""Batches for training and for evaluation, read from memory maps through tf.data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from tfedge.data.dataset import Data, Split
from tfedge.errors import UserError
from tfedge.training.augmentation import NAMED, mixup

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Order:
    """Which batch each step of a training shows, and which inputs are in it.

    Both depend on `seed` and the step's number alone: not on what ran before it in the process.  So
    a training that goes on in its third epoch sees what it would have seen anyway.

    A batch's number decides its inputs and how they are changed.  Without `views` every step has a
    batch of its own.  With K views, epoch number e shows those of epoch e mod K again, in another
    order.  A batch comes back whole, and not each input by itself, because mixup and a user's
    function change a batch as a whole.

    Attributes:
      count: Inputs of the training split.
      batch: Inputs a step; the last batch of an epoch has what is left.
      views: Epochs after which batches come back; 0 for never.
    """

    count: int
    batch: int
    seed: int
    views: int = 0

    @property
    def steps(self) -> int:
        """Steps of an epoch, the one with the smaller batch too."""
        return -(-self.count // self.batch)

    def number(self, step: int) -> int:
        """Return the number of the batch that a step shows."""
        epoch, place = divmod(step, self.steps)
        if not self.views or epoch < self.views:
            return step
        order = _shuffled(self.steps, self.seed, epoch, self.views)
        return epoch % self.views * self.steps + int(order[place])

    def rows(self, number: int) -> np.ndarray:
        """Return which inputs a batch has, int64, ascending as a file is read fastest."""
        epoch, place = divmod(number, self.steps)
        order = _shuffled(self.count, self.seed, epoch)
        return np.sort(order[place * self.batch : (place + 1) * self.batch])


def training_batches(
    data: Data,
    augment: Sequence[str | Callable[..., Any]],
    order: Order,
    *,
    first_epoch: int,
    epochs: int,
    numbered: bool = False,
) -> tf.data.Dataset:
    """Shuffle, augment and normalise the training split, for all epochs that are left.

    Args:
      augment: In this order: names of `NAMED`, "mixup", or functions of a batch of inputs, float32
        [batch, ...] (pixels from 0 to 255), and a seed, int32 [2].
      order: Its `seed` decides the augmentation, too.
      numbered: Whether to tell each batch's number, int64, beside its inputs.

    Returns:
      Of float32 [batch, ...] normalised inputs and float32 [batch, classes] targets.
    """
    _try(augment, data)

    def shown(step: np.int64) -> tuple[np.ndarray, np.ndarray, np.int64]:
        number = order.number(int(step))
        rows = order.rows(number)
        return data.train.inputs[rows], data.train.classes[rows], np.int64(number)

    def load(step: tf.Tensor) -> tuple[Any, tf.Tensor]:
        kinds = (tf.as_dtype(data.train.inputs.dtype), tf.int64, tf.int64)
        inputs, classes, batch = tf.numpy_function(shown, [step], kinds, stateful=False)
        inputs = tf.ensure_shape(inputs, (None, *data.shape))
        classes, batch = tf.ensure_shape(classes, (None,)), tf.ensure_shape(batch, ())
        inputs, targets = tf.cast(inputs, tf.float32), tf.one_hot(classes, len(data.labels))
        for number, change in enumerate(augment):
            place = tf.stack([order.seed * 1009 + number * 17, tf.cast(batch, tf.int32)])
            if change == "mixup":
                inputs, targets = mixup(inputs, targets, place)
            else:
                function = NAMED[change] if isinstance(change, str) else change
                inputs = tf.ensure_shape(function(inputs, place), (None, *data.shape))
        inputs = _normalise(data, inputs)
        return ((inputs, batch), targets) if numbered else (inputs, targets)

    steps = tf.data.Dataset.range(first_epoch * order.steps, epochs * order.steps)
    return steps.map(load, num_parallel_calls=2, deterministic=True).prefetch(4)


def evaluation_batches(data: Data, split: Split) -> tf.data.Dataset:
    """Read a split in its order, normalised, with one-hot targets."""

    def load(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def rows(first: np.int64) -> tuple[np.ndarray, np.ndarray]:
            part = slice(int(first), int(first) + EVALUATION_BATCH)
            return np.asarray(split.inputs[part]), np.asarray(split.classes[part])

        kind = tf.as_dtype(split.inputs.dtype)
        inputs, classes = tf.numpy_function(rows, [start], (kind, tf.int64), stateful=False)
        inputs = tf.ensure_shape(inputs, (None, *data.shape))
        targets = tf.one_hot(tf.ensure_shape(classes, (None,)), len(data.labels))
        return _normalise(data, tf.cast(inputs, tf.float32)), targets

    starts = tf.data.Dataset.range(0, len(split.classes), EVALUATION_BATCH)
    return starts.map(load, num_parallel_calls=2, deterministic=True).prefetch(2)


def _try(augment: Sequence[str | Callable[..., Any]], data: Data) -> None:
    """Call the user's functions once, so that a mistake shows outside of a graph."""
    sample = tf.cast(data.train.inputs[:2], tf.float32)
    for change in augment:
        if callable(change):
            name = getattr(change, "__name__", str(change))
            result = change(sample, tf.constant([0, 0]))
            if not tf.is_tensor(result) or result.dtype != tf.float32:
                kind = getattr(result, "dtype", type(result).__name__)
                fix = "return a tensor of float32, as it was handed in"
                raise UserError("[data] augment", f"{name} returned {kind}", fix)
            if tuple(result.shape) != tuple(sample.shape):
                problem = f"{name} made {tuple(result.shape)} of {tuple(sample.shape)}"
                raise UserError(
                    "[data] augment", problem, "return as many inputs of the same shape"
                )


def steps_per_epoch(data: Data, batch: int) -> int:
    """Count the steps of an epoch, the last and smaller one too."""
    return Order(len(data.train.classes), batch, seed=0).steps


@lru_cache(maxsize=4)  # two epochs may be under way at once
def _shuffled(count: int, *seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)


def _normalise(data: Data, inputs: tf.Tensor) -> tf.Tensor:
    mean, std = (tf.constant(value, tf.float32) for value in (data.mean, data.std))
    return (inputs - mean) / std
