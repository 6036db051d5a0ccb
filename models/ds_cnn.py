"""DS-CNN for spectrograms, such as spoken words (Zhang et al. 2017, sizes S, M and L).

https://arxiv.org/abs/1711.07128

An input is [frames, coefficients, 1]: 49 x 10 MFCCs of a second
in the paper.
"""

from tfedge.networks.backend import keras
from tfedge.networks.blocks import classifier, convolution, separable


def ds_cnn_s(shape, classes, width=64, depth=4, dropout=0.0):
    """Four separable convolutions of 64 channels.

    Args:
      width: Channels of every layer.
      depth: How many separable convolutions.
      dropout: Share of the last features that training sets to 0.
    """
    return _ds_cnn(shape, classes, width, depth, ((2, 2), 1), dropout)


def ds_cnn_m(shape, classes, width=172, depth=4, dropout=0.0):
    """Four of 172 channels, the first of which halves both axes; see `ds_cnn_s`."""
    return _ds_cnn(shape, classes, width, depth, ((2, 1), 2), dropout)


def ds_cnn_l(shape, classes, width=276, depth=5, dropout=0.0):
    """Five of 276 channels, the first of which halves both axes; see `ds_cnn_s`."""
    return _ds_cnn(shape, classes, width, depth, ((2, 1), 2), dropout)


def _ds_cnn(shape, classes, width, depth, strides, dropout):
    spectrograms = keras.Input(shape)
    x = convolution(spectrograms, width, (10, 4), strides[0])
    for number in range(depth):
        x = separable(x, width, 3, 1 if number else strides[1])
    return keras.Model(spectrograms, classifier(x, classes, dropout))
