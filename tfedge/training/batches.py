"""Batches for training and for evaluation, read from memory maps through tf.data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from tfedge.data.dataset import Data, Split
from tfedge.errors import UserError
from tfedge.training.augmentation import NAMED, mixup

EVALUATION_BATCH = 256


def training_batches(
    data: Data,
    augment: Sequence[str | Callable[..., Any]],
    *,
    batch: int,
    seed: int,
    first_epoch: int,
    epochs: int,
) -> tf.data.Dataset:
    """Shuffle, augment and normalise the training split, for all epochs that are left.

    What step number n holds depends on `seed` and n alone: not on what ran before it in the
    process.  So a training that goes on in its third epoch sees what it would have seen anyway.

    Args:
      augment: In this order: names of `NAMED`, "mixup", or functions of a batch of inputs, float32
        [batch, ...] (pixels from 0 to 255), and a seed, int32 [2].
      batch: Inputs a step; the last step of an epoch has what is left.

    Returns:
      Of float32 [batch, ...] normalised inputs and float32 [batch, classes] targets.
    """
    _try(augment, data)
    steps = steps_per_epoch(data, batch)
    order = lru_cache(maxsize=2)(
        lambda epoch: np.random.default_rng((seed, epoch)).permutation(len(data.train.classes))
    )

    def rows(step: np.int64) -> tuple[np.ndarray, np.ndarray]:
        epoch, place = divmod(int(step), steps)
        chosen = np.sort(order(epoch)[place * batch : (place + 1) * batch])
        return data.train.inputs[chosen], data.train.classes[chosen]

    def load(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        kind = tf.as_dtype(data.train.inputs.dtype)
        inputs, classes = tf.numpy_function(rows, [step], (kind, tf.int64), stateful=False)
        inputs = tf.ensure_shape(inputs, (None, *data.shape))
        classes = tf.ensure_shape(classes, (None,))
        inputs, targets = tf.cast(inputs, tf.float32), tf.one_hot(classes, len(data.labels))
        for number, change in enumerate(augment):
            place = tf.stack([seed * 1009 + number * 17, tf.cast(step, tf.int32)])
            if change == "mixup":
                inputs, targets = mixup(inputs, targets, place)
            else:
                function = NAMED[change] if isinstance(change, str) else change
                inputs = tf.ensure_shape(function(inputs, place), (None, *data.shape))
        return _normalise(data, inputs), targets

    numbers = tf.data.Dataset.range(first_epoch * steps, epochs * steps)
    return numbers.map(load, num_parallel_calls=2, deterministic=True).prefetch(4)


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
    return -(-len(data.train.classes) // batch)


def _normalise(data: Data, inputs: tf.Tensor) -> tf.Tensor:
    mean, std = (tf.constant(value, tf.float32) for value in (data.mean, data.std))
    return (inputs - mean) / std
