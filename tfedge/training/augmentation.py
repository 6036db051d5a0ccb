"""Random changes to training images, one function each.

Each takes a batch of pixels, float32 [batch, height, width, channels] from 0 to 255, and a seed,
int32 [2], and returns the same; the same seed makes the same change, so that a training which was
killed goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirror half of the images left to right."""
    mirror = _uniform(images, seed, -1.0, 1.0) < 0
    return tf.where(mirror, images[:, :, ::-1], images)


def crop(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shift each image by up to an eighth of its sides; what comes in is the border's mirror image.

    An eighth is the 4 pixels of 32 that are usual for CIFAR (He et al. 2016, section 4.2).
    """
    height, width = images.shape[1:3]
    rows, columns = math.ceil(height / 8), math.ceil(width / 8)
    padded = tf.pad(images, [[0, 0], [rows, rows], [columns, columns], [0, 0]], "REFLECT")
    count = tf.shape(images)[0]
    shift = tf.random.stateless_uniform((count, 1), seed, 0, 2 * rows + 1, tf.int32)
    padded = tf.gather(padded, shift + tf.range(height), axis=1, batch_dims=1)
    shift = tf.random.stateless_uniform((count, 1), seed + 1, 0, 2 * columns + 1, tf.int32)
    return tf.gather(padded, shift + tf.range(width), axis=2, batch_dims=1)


def colour(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Change brightness, contrast and saturation of each image by up to a fifth.

    These are the three linear blends of Howard (2013, section 2, https://arxiv.org/abs/1312.5402).
    """
    images = images * _uniform(images, seed, 0.8, 1.2)
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    images = mean + (images - mean) * _uniform(images, seed + 1, 0.8, 1.2)
    grey = tf.reduce_mean(images, axis=3, keepdims=True)
    images = grey + (images - grey) * _uniform(images, seed + 2, 0.8, 1.2)
    return tf.clip_by_value(images, 0.0, 255.0)


def cutout(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Grey out a square of half the image's height, its centre anywhere in the image.

    DeVries and Taylor 2017, section 3.2 (https://arxiv.org/abs/1708.04552): part of the square may
    lie outside.
    """
    height, width = images.shape[1:3]
    half = max(1, height // 4)
    row = _uniform(images, seed, 0.0, float(height))
    column = _uniform(images, seed + 1, 0.0, float(width))
    rows = tf.reshape(tf.range(height, dtype=tf.float32), (1, height, 1, 1))
    columns = tf.reshape(tf.range(width, dtype=tf.float32), (1, 1, width, 1))
    inside = (tf.abs(rows - row) < half) & (tf.abs(columns - column) < half)
    return tf.where(inside, 127.5, images)


def mixup(inputs: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Blend each input, and its target alike, with another of the batch.

    The share is uniform from 0 to 1, the Beta(1, 1) of Zhang et al. 2018, section 3
    (https://arxiv.org/abs/1710.09412).

    Args:
      inputs: Float32 [batch, ...].
      targets: Float32 [batch, classes].
    """
    shape = [tf.shape(inputs)[0]] + [1] * (len(inputs.shape) - 1)
    share = tf.random.stateless_uniform(shape, seed)
    other = tf.random.experimental.stateless_shuffle(tf.range(shape[0]), seed + 1)
    flat = tf.reshape(share, (-1, 1))
    return (
        share * inputs + (1 - share) * tf.gather(inputs, other),
        flat * targets + (1 - flat) * tf.gather(targets, other),
    )


NAMED: dict[str, Augmentation] = {"flip": flip, "crop": crop, "colour": colour, "cutout": cutout}
"""What `augment` may name, besides ``mixup`` and functions of the user's own."""


def _uniform(images: tf.Tensor, seed: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """One number an image, float32 [batch, 1, 1, 1]."""
    return tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), seed, low, high)
