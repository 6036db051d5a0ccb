"""EfficientNet-Lite 0 to 4, for pictures of 64 x 64 to 300 x 300.

EfficientNet (Tan and Le 2019, section 4, https://arxiv.org/abs/1905.11946) as its authors changed
it for int8: Relu6 in place of swish, no squeeze-excite, and only the stages between the first and
the last grow with the number.
"""

from tfedge.networks.backend import keras
from tfedge.networks.blocks import classifier, convolution, inverted_stages

# Kernel, times that a block widens its input, its channels, how often it comes, its stride.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)


def efficientnet_lite(shape, classes, width=1.0, depth=1.0, stride=2, dropout=0.2):
    """Lite0 stretched by `width` and `depth`.

    Args:
      width: Multiplies the channels of the blocks; the first convolution has 32, the last 1280.
      depth: Multiplies how often a block comes; the first and the last come once.
      stride: Of the first convolution; 1 for pictures below 96 x 96.
      dropout: Share of the last features that training sets to 0.
    """
    images = keras.Input(shape)
    x = convolution(images, 32, 3, stride, "relu6")
    x = inverted_stages(x, _STAGES, width, depth)
    x = convolution(x, 1280, activation="relu6")
    return keras.Model(images, classifier(x, classes, dropout))


def efficientnet_lite0(shape, classes, stride=2, dropout=0.2):
    """Width 1.0, depth 1.0, made for 224 x 224."""
    return efficientnet_lite(shape, classes, 1.0, 1.0, stride, dropout)


def efficientnet_lite1(shape, classes, stride=2, dropout=0.2):
    """Width 1.0, depth 1.1, made for 240 x 240."""
    return efficientnet_lite(shape, classes, 1.0, 1.1, stride, dropout)


def efficientnet_lite2(shape, classes, stride=2, dropout=0.3):
    """Width 1.1, depth 1.2, made for 260 x 260."""
    return efficientnet_lite(shape, classes, 1.1, 1.2, stride, dropout)


def efficientnet_lite3(shape, classes, stride=2, dropout=0.3):
    """Width 1.2, depth 1.4, made for 280 x 280."""
    return efficientnet_lite(shape, classes, 1.2, 1.4, stride, dropout)


def efficientnet_lite4(shape, classes, stride=2, dropout=0.3):
    """Width 1.4, depth 1.8, made for 300 x 300."""
    return efficientnet_lite(shape, classes, 1.4, 1.8, stride, dropout)
