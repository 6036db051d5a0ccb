"""Networks for windows of sensor readings, [steps, channels].

They convolve along the steps only, as two-dimensional convolutions over [steps, 1, channels]:
TFLite runs a Conv1D as one, and tfmot trains no Conv1D in 8 bits.
"""

from tfedge.networks.backend import keras
from tfedge.networks.blocks import classifier, convolution, residual, separable

layers = keras.layers


def sensor_residual(shape, classes, width=64, stride=1, dropout=0.0):
    """Three residual blocks of kernels 8, 5 and 3 (Wang et al. 2017, figure 1c).

    https://arxiv.org/abs/1611.06455

    Args:
      width: Channels of the first block; the others have twice as many.
      stride: Of each block's first convolution, along the steps; the paper's is 1.
      dropout: Share of the last features that training sets to 0.
    """
    windows = keras.Input(shape)
    x = _as_picture(windows)
    for factor in (1, 2, 2):
        x = residual(x, width * factor, ((8, 1), (5, 1), (3, 1)), (stride, 1))
    return keras.Model(windows, classifier(x, classes, dropout))


def sensor_separable(shape, classes, width=32, depth=4, size=9, dropout=0.0):
    """A convolution, then separable ones, every second of which halves the steps and doubles width.

    MobileNetV1's plan (Howard 2017, table 1, https://arxiv.org/abs/1704.04861) in one dimension.

    Args:
      width: Channels of the first convolution.
      depth: How many separable convolutions.
      size: Steps that a kernel sees; beyond 25 each costs a Pi twenty times as much.
      dropout: Share of the last features that training sets to 0.
    """
    windows = keras.Input(shape)
    x = convolution(_as_picture(windows), width, (size, 1), (2, 1))
    for number in range(depth):
        halving = number % 2
        x = separable(x, width * 2 ** ((number + 1) // 2), (size, 1), (1 + halving, 1))
    return keras.Model(windows, classifier(x, classes, dropout))


def _as_picture(windows):
    steps, channels = windows.shape[1:]
    return layers.Reshape((steps, 1, channels))(windows)
