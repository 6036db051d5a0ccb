"""Kernels clipped to the range in which int8 stands for them best.

The TFLite converter takes a kernel's scale from its largest weight.  One outlier then makes the
steps of all other weights coarse, and a smaller range that cuts the outlier off may lie nearer to
the kernel as a whole (Nagel et al. 2021, section 3.1, https://arxiv.org/abs/2106.08295: the range
of least mean squared error; Banner et al. 2019, https://arxiv.org/abs/1810.05723, work it out for
two distributions of weights).  A kernel clipped beforehand makes the converter take that range.

In int8 the gain is small where few weights share a range: with one outlier of twelve standard
deviations among normally distributed weights, the best range is 2 % smaller than the largest of
3,000 and a third smaller than that of 100,000 (`best_limits`).  It is mostly for dense layers.
"""

from __future__ import annotations

import numpy as np

from tfedge.networks.backend import keras, refuse_nested

_STEPS = 127  # the converter gives a kernel -127 to 127 and a zero point of 0
_CANDIDATES = np.arange(100, 0, -1) / 100


def clipped(model: keras.Model) -> keras.Model:
    """Return a twin whose kernels are clipped to the range of least mean squared error in int8.

    There is a range for each output channel of Conv2D and DepthwiseConv2D, and one for all of
    Dense, as `tflite.conversion.to_int8` has it.  Other layers and all biases stay as they are.

    Args:
      model: Flat, float32; its BatchNormalization folded, or the ranges are not those that the
        converter sees.  Not changed.
    """
    refuse_nested(model)
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    for layer in twin.layers:
        channels = _channels(layer)
        if channels:
            kernel, *bias = layer.get_weights()
            table = kernel.reshape(-1, channels)
            limit = best_limits(table)
            layer.set_weights([np.clip(table, -limit, limit).reshape(kernel.shape), *bias])
    return twin


def best_limits(weights: np.ndarray) -> np.ndarray:
    """Return the limit t for which int8 in [-t, t] is nearest to the weights of each column.

    Tried are the hundredths of the largest absolute weight.  With t / 127 a step, what is left is
    the rounding of the weights inside and the cut of those outside.

    Args:
      weights: Float [count, columns].

    Returns:
      Float32 [columns]; 0 where all weights are.
    """
    size = np.abs(weights, dtype=np.float32)
    largest = size.max(axis=0)
    best, least = largest.copy(), np.full(largest.shape, np.inf)
    for share in _CANDIDATES:
        limit = np.float32(share) * largest
        inside = np.minimum(size, limit)
        cut = np.square(size - inside).sum(axis=0, dtype=np.float64)
        if (cut >= least).all():
            break  # a smaller range cuts off more
        step = np.where(limit > 0, limit / _STEPS, 1)
        error = np.square(size - np.round(inside / step) * step).sum(axis=0, dtype=np.float64)
        better = error < least
        best[better], least[better] = limit[better], error[better]
    return best


def _channels(layer: keras.layers.Layer) -> int:
    """Return how many ranges a layer's kernel has in int8; 0 for a layer that is left alone."""
    if type(layer) is keras.layers.Conv2D:
        return int(layer.kernel.shape[-1])
    if type(layer) is keras.layers.DepthwiseConv2D:
        return int(np.prod(layer.depthwise_kernel.shape[-2:]))
    return int(type(layer) is keras.layers.Dense)
