"""Small residual networks for pictures of about 32 x 32 (He et al. 2016, section 4.2).

https://arxiv.org/abs/1512.03385
"""

from tfedge.networks.backend import keras
from tfedge.networks.blocks import classifier, convolution, residual


def resnet8(shape, classes, width=16, stride=1):
    """One block at each of three widths.

    Args:
      width: Channels of the first block; the others have two and four times as many.
      stride: Of the first convolution; 2 for pictures of about 64 x 64 and more.
    """
    return _resnet(shape, classes, 1, width, stride)


def resnet14(shape, classes, width=16, stride=1):
    """Two blocks at each of three widths; see `resnet8`."""
    return _resnet(shape, classes, 2, width, stride)


def resnet20(shape, classes, width=16, stride=1):
    """Three blocks at each of three widths, the paper's smallest; see `resnet8`."""
    return _resnet(shape, classes, 3, width, stride)


def _resnet(shape, classes, blocks, width, stride):
    images = keras.Input(shape)
    x = convolution(images, width, 3, stride)
    for stage in range(3):
        for block in range(blocks):
            x = residual(x, width * 2**stage, (3, 3), 2 if stage and not block else 1)
    return keras.Model(images, classifier(x, classes))
