"""Blocks that the networks of models/ are made of, and that yours may be made of as well.

Every convolution has no bias but a BatchNormalization after it, which conversion and training in 8
bits take into the convolution.  Padding is TensorFlow's "same": a part of the operator, and no PAD
before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Any

import tensorflow as tf

from tfedge.networks.backend import keras
from tfedge.networks.layers import HardSigmoid, HardSwish

layers = keras.layers

Size = int | tuple[int, int]
"""Of a kernel, or a stride: rows and columns alike, or each."""

InvertedStage = tuple[int, int, int, int, int]
"""Kernel, times that a block widens its input, its channels, how often it comes, its stride."""

MOMENTUM = 0.9
"""Of BatchNormalization: its statistics settle within 50 steps, for sets are small."""

ACTIVATIONS = {
    "linear": lambda: None,
    "relu": layers.ReLU,
    "relu6": lambda: layers.ReLU(6.0),
    "hard_swish": HardSwish,
}
"""What may follow a convolution: Relu6 keeps ranges short, linear adds no layer."""


def convolution(
    x: tf.Tensor,
    width: int,
    size: Size = 1,
    stride: Size = 1,
    activation: str = "relu",
) -> tf.Tensor:
    """Convolve float [batch, height, width, channels] to `width` channels and normalise.

    Args:
      activation: Of `ACTIVATIONS`.
    """
    x = layers.Conv2D(width, size, strides=stride, padding="same", use_bias=False)(x)
    return _activated(x, activation)


def depthwise(x: tf.Tensor, size: Size, stride: Size = 1, activation: str = "relu") -> tf.Tensor:
    """Convolve each channel by itself and normalise."""
    x = layers.DepthwiseConv2D(size, strides=stride, padding="same", use_bias=False)(x)
    return _activated(x, activation)


def separable(
    x: tf.Tensor,
    width: int,
    size: Size = 3,
    stride: Size = 1,
    activation: str = "relu",
) -> tf.Tensor:
    """Convolve each channel, then each pixel, normalising both (Howard 2017, section 3.1).

    https://arxiv.org/abs/1704.04861
    """
    return convolution(depthwise(x, size, stride, activation), width, activation=activation)


def residual(x: tf.Tensor, width: int, sizes: tuple[Size, ...], stride: Size = 1) -> tf.Tensor:
    """Add what convolutions of `sizes` make of `x` to `x` (He et al. 2016, figure 2).

    Where stride or width differ, a convolution of 1 x 1 brings `x` to the sum's shape (their option
    B).  https://arxiv.org/abs/1512.03385
    """
    skip = x
    for number, size in enumerate(sizes, 1):
        activation = "relu" if number < len(sizes) else "linear"
        x = convolution(x, width, size, stride if number == 1 else 1, activation)
    if x.shape != skip.shape:
        skip = convolution(skip, width, 1, stride, "linear")
    return layers.ReLU()(layers.Add()([x, skip]))


def inverted_residual(  # noqa: PLR0913 - the dimensions that its papers vary
    x: tf.Tensor,
    width: int,
    *,
    hidden: int,
    size: int = 3,
    stride: int = 1,
    activation: str = "relu6",
    squeeze: float = 0.0,
) -> tf.Tensor:
    """Widen, convolve each channel, narrow without activation (Sandler 2018, section 3.3).

    The input is added where shapes agree.  https://arxiv.org/abs/1801.04381

    Args:
      hidden: Channels between; where that is what `x` has, nothing widens it.
      squeeze: Share of `hidden` in a squeeze-excite before narrowing (Howard 2019, section 5.3);
        0 for none.
    """
    skip = x
    if hidden != x.shape[-1]:
        x = convolution(x, hidden, activation=activation)
    x = depthwise(x, size, stride, activation)
    if squeeze:
        x = squeeze_excite(x, scaled(hidden, squeeze))
    x = convolution(x, width, activation="linear")
    return layers.Add()([x, skip]) if x.shape == skip.shape else x


def inverted_stages(
    x: tf.Tensor, table: Iterable[InvertedStage], width: float, depth: float = 1.0
) -> tf.Tensor:
    """Chain inverted residuals with Relu6 as `table` says.

    Args:
      width: Multiplies all channels of the table.
      depth: Multiplies how often a block comes, of those that come more than once.

    Raises:
      ValueError: A factor is not above 0.
    """
    for size, expand, channels, count, stride in table:
        for number in range(repeats(count, depth)):
            x = inverted_residual(
                x,
                scaled(channels, width),
                hidden=x.shape[-1] * expand,
                size=size,
                stride=1 if number else stride,
            )
    return x


def squeeze_excite(x: tf.Tensor, width: int) -> tf.Tensor:
    """Weigh channels by what all pixels hold on average (Hu 2018, section 3; Howard 2019, 5.3).

    https://arxiv.org/abs/1709.01507, https://arxiv.org/abs/1905.02244

    Args:
      width: Channels between its two convolutions.
    """
    weight = layers.GlobalAveragePooling2D(keepdims=True)(x)
    # Inside the layer: a ReLU layer behind a bias makes training in 8 bits forget pruned zeros.
    weight = layers.Conv2D(width, 1, activation="relu")(weight)
    weight = HardSigmoid()(layers.Conv2D(x.shape[-1], 1)(weight))
    return layers.Multiply()([x, weight])


def classifier(x: tf.Tensor, classes: int, dropout: float = 0.0) -> tf.Tensor:
    """Average over all pixels and answer with logits, float [batch, classes].

    Args:
      dropout: Share of the averages that training sets to 0.
    """
    x = layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return layers.Dense(classes)(x)


def scaled(channels: float, factor: float, multiple: int = 8) -> int:
    """Return `channels` times `factor`, as a multiple of `multiple` and at most 10 % below it.

    This is the rounding of the MobileNets' own code.

    Raises:
      ValueError: The factor is not above 0.
    """
    if factor <= 0:
        raise ValueError(f"a width must be above 0, got {factor}")
    wanted = channels * factor
    rounded = max(multiple, int(wanted + multiple / 2) // multiple * multiple)
    return rounded if rounded >= 0.9 * wanted else rounded + multiple


def repeats(count: int, depth: float) -> int:
    """Return `count` times `depth`, rounded up; a block that comes once still comes once.

    Raises:
      ValueError: The factor is not above 0.
    """
    if depth <= 0:
        raise ValueError(f"a depth must be above 0, got {depth}")
    return count if count == 1 else ceil(count * depth)


def _activated(x: tf.Tensor, activation: str) -> tf.Tensor:
    x = layers.BatchNormalization(momentum=MOMENTUM)(x)
    layer: Any = ACTIVATIONS[activation]()
    return layer(x) if layer else x
