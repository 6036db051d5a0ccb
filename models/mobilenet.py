"""MobileNets of three generations, for pictures of 32 x 32 to 224 x 224.

All halve the picture five times, the first time in the first convolution.  That is right from 96 x
96 on; `stride=1` leaves the first one out, which is right for 32 x 32 to 64 x 64.
"""

from tfedge.networks.backend import keras
from tfedge.networks.blocks import (
    classifier,
    convolution,
    inverted_residual,
    inverted_stages,
    scaled,
    separable,
)
from tfedge.networks.layers import HardSwish

layers = keras.layers

# Channels and stride of each block.
_V1 = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)

# Kernel, times that a block widens its input, its channels, how often it comes, its stride.
_V2 = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (3, 6, 32, 3, 2),
    (3, 6, 64, 4, 2),
    (3, 6, 96, 3, 1),
    (3, 6, 160, 3, 2),
    (3, 6, 320, 1, 1),
)

# Kernel, times that a block widens its input, its channels, squeeze-excite, hard-swish, stride.
_V3_SMALL = (
    (3, 1, 16, True, False, 2),
    (3, 72 / 16, 24, False, False, 2),
    (3, 88 / 24, 24, False, False, 1),
    (5, 4, 40, True, True, 2),
    *((5, 6, 40, True, True, 1),) * 2,
    *((5, 3, 48, True, True, 1),) * 2,
    (5, 6, 96, True, True, 2),
    *((5, 6, 96, True, True, 1),) * 2,
)
_V3_LARGE = (
    (3, 1, 16, False, False, 1),
    (3, 4, 24, False, False, 2),
    (3, 3, 24, False, False, 1),
    (5, 3, 40, True, False, 2),
    *((5, 3, 40, True, False, 1),) * 2,
    (3, 6, 80, False, True, 2),
    (3, 2.5, 80, False, True, 1),
    *((3, 2.3, 80, False, True, 1),) * 2,
    *((3, 6, 112, True, True, 1),) * 2,
    (5, 6, 160, True, True, 2),
    *((5, 6, 160, True, True, 1),) * 2,
)


def mobilenet_v1(shape, classes, width=1.0, stride=2, dropout=0.0):
    """Thirteen separable convolutions (Howard 2017, table 1, https://arxiv.org/abs/1704.04861).

    Args:
      width: Multiplies all channels; 0.25 is usual for 96 x 96.
      stride: Of the first convolution; 1 for pictures below 96 x 96.
      dropout: Share of the last features that training sets to 0.
    """
    images = keras.Input(shape)
    x = convolution(images, scaled(32, width), 3, stride, "relu6")
    for channels, halving in _V1:
        x = separable(x, scaled(channels, width), 3, halving, "relu6")
    return keras.Model(images, classifier(x, classes, dropout))


def mobilenet_v2(shape, classes, width=1.0, stride=2, dropout=0.0):
    """Seventeen inverted residuals (Sandler 2018, table 2, https://arxiv.org/abs/1801.04381).

    Args:
      width: Multiplies all channels, the last convolution's 1280 only where it is above 1; 0.35 is
        usual for 96 x 96.
      stride: Of the first convolution; 1 for pictures below 96 x 96.
      dropout: Share of the last features that training sets to 0.
    """
    images = keras.Input(shape)
    x = convolution(images, scaled(32, width), 3, stride, "relu6")
    x = inverted_stages(x, _V2, width)
    x = convolution(x, scaled(1280, max(width, 1.0)), activation="relu6")
    return keras.Model(images, classifier(x, classes, dropout))


def mobilenet_v3_small(shape, classes, width=1.0, stride=2, minimal=False, dropout=0.2):
    """Eleven inverted residuals found by search (Howard 2019, table 2).

    https://arxiv.org/abs/1905.02244

    Args:
      width: Multiplies all channels but the first convolution's 16, and the last layer's 1024 only
        where it is above 1.
      stride: Of the first convolution; 1 for pictures below 96 x 96.
      minimal: Without squeeze-excite, hard-swish and kernels of 5 x 5, as its authors give it for
        accelerators.  An Edge TPU has no hard-swish: only this form runs there as a whole.
      dropout: Share of the last features that training sets to 0.
    """
    return _v3(shape, classes, _V3_SMALL, 1024, width, stride, minimal, dropout)


def mobilenet_v3_large(shape, classes, width=1.0, stride=2, minimal=False, dropout=0.2):
    """Fifteen inverted residuals found by search (Howard 2019, table 1); see the small one.

    Its last layer has 1280 channels.
    """
    return _v3(shape, classes, _V3_LARGE, 1280, width, stride, minimal, dropout)


def _v3(shape, classes, blocks, last, width, stride, minimal, dropout):  # noqa: PLR0913
    swish = "relu" if minimal else "hard_swish"
    images = keras.Input(shape)
    x = convolution(images, 16, 3, stride, swish)
    for size, expand, channels, squeeze, curved, halving in blocks:
        x = inverted_residual(
            x,
            scaled(channels, width),
            hidden=scaled(x.shape[-1], expand),
            size=3 if minimal else size,
            stride=halving,
            activation=swish if curved else "relu",
            squeeze=0.25 if squeeze and not minimal else 0.0,
        )
    x = convolution(x, scaled(x.shape[-1], 6), activation=swish)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(scaled(last, max(width, 1.0)), activation="relu" if minimal else None)(x)
    x = x if minimal else HardSwish()(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return keras.Model(images, layers.Dense(classes)(x))
