"""Families for a search, for pictures of 32 x 32 to 224 x 224: each stage has its own settings.

A search frees one setting at a time, so what the stages of a network have in turn are numbers by
themselves: `width_1`, `depth_2`, `kernel_3`.  All blocks of a stage are alike, as in MnasNet's
search space (Tan et al. 2019, section 4.1, https://arxiv.org/abs/1807.11626); how many they are,
how large their kernels and how far they widen their input are what Once-for-all varies in its units
(Cai et al. 2020, section 3.2, https://arxiv.org/abs/1908.09791).  The first convolution is free as
well: on a small board it often costs more than any other layer.

A width need be no multiple of 8, but int8 kernels make 8 channels at once, so that 9 cost as much
as 16.  A depthwise convolution of more than 25 taps, such as 7 x 7, costs an Arm core 20 times as
much for each product (benchmarks/depthwise_taps.py).
"""

from tfedge.networks.backend import keras
from tfedge.networks.blocks import classifier, convolution, inverted_residual, residual


def elastic_residual(  # noqa: PLR0913 - a search frees each of them alone
    shape,
    classes,
    *,
    stem=16,
    stem_kernel=3,
    stride=1,
    width_1=16,
    width_2=32,
    width_3=64,
    depth_1=1,
    depth_2=1,
    depth_3=1,
    kernel_1=3,
    kernel_2=3,
    kernel_3=3,
    dropout=0.0,
):
    """Three stages of residual blocks; with these numbers it is `resnet.py:resnet8`.

    The second and the third stage halve the picture.

    Args:
      stem: Channels of the first convolution; other than `width_1`, the first block adds a 1 x 1
        convolution of its input.
      stem_kernel: Rows and columns of the first convolution.
      stride: Of the first convolution; 2 for pictures of about 64 x 64 and more.
      width_1: Channels of the first stage, and so on.
      depth_1: Blocks of the first stage, each of two convolutions, and so on.
      kernel_1: Rows and columns of the first stage's convolutions, and so on.
      dropout: Share of the last features that training sets to 0.
    """
    _refuse_empty(locals())
    stages = (
        (width_1, depth_1, kernel_1),
        (width_2, depth_2, kernel_2),
        (width_3, depth_3, kernel_3),
    )
    images = keras.Input(shape)
    x = convolution(images, stem, stem_kernel, stride)
    for number, (width, depth, kernel) in enumerate(stages):
        for block in range(depth):
            x = residual(x, width, (kernel, kernel), 2 if number and not block else 1)
    return keras.Model(images, classifier(x, classes, dropout))


def elastic_inverted(  # noqa: PLR0913 - a search frees each of them alone
    shape,
    classes,
    *,
    stem=16,
    stem_kernel=3,
    stride=2,
    width_1=16,
    width_2=24,
    width_3=40,
    width_4=80,
    depth_1=1,
    depth_2=2,
    depth_3=2,
    depth_4=2,
    kernel_1=3,
    kernel_2=3,
    kernel_3=3,
    kernel_4=3,
    expansion_1=1,
    expansion_2=4,
    expansion_3=4,
    expansion_4=4,
    last=0,
    dropout=0.0,
):
    """Four stages of inverted residuals with Relu6, as MobileNetV2 has them.

    All stages but the first halve the picture.

    Args:
      stem: Channels of the first convolution.
      stem_kernel: Rows and columns of the first convolution.
      stride: Of the first convolution; 1 for pictures below 96 x 96.
      width_1: Channels that the blocks of the first stage hand on, and so on.
      depth_1: Blocks of the first stage, and so on.
      kernel_1: Rows and columns of the first stage's depthwise convolutions, and so on.
      expansion_1: Times that a block of the first stage widens its input; 1 leaves it, and so on.
      last: Channels of a 1 x 1 convolution after the stages; 0 leaves it out.
      dropout: Share of the last features that training sets to 0.
    """
    _refuse_empty(locals())
    stages = (
        (width_1, depth_1, kernel_1, expansion_1),
        (width_2, depth_2, kernel_2, expansion_2),
        (width_3, depth_3, kernel_3, expansion_3),
        (width_4, depth_4, kernel_4, expansion_4),
    )
    images = keras.Input(shape)
    x = convolution(images, stem, stem_kernel, stride, "relu6")
    for number, (width, depth, kernel, expansion) in enumerate(stages):
        for block in range(depth):
            x = inverted_residual(
                x,
                width,
                hidden=x.shape[-1] * expansion,
                size=kernel,
                stride=2 if number and not block else 1,
            )
    if last:
        x = convolution(x, last, activation="relu6")
    return keras.Model(images, classifier(x, classes, dropout))


_MAY_BE_NOTHING = ("shape", "classes", "last", "dropout")


def _refuse_empty(settings):
    for name, value in settings.items():
        if name not in _MAY_BE_NOTHING and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
