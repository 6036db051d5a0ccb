"""A tiny network in the manner of MCUNet, for pictures of 48 x 48 to 160 x 160.

MCUNet searches inverted residuals of mixed kernels and widths for a given memory (Lin et al. 2020,
section 3.1, https://arxiv.org/abs/2007.10319).  Its successor finds that the first blocks need ten
times the memory of the others, and shifts receptive field and work to these (Lin et al. 2021,
abstract, https://arxiv.org/abs/2110.15352).  So the early blocks here are narrow with kernels of
3 x 3 and the late ones take 5 x 5.  The numbers are chosen by hand, not by that search.

Its kernels of 7 x 7 are left out: an Arm core takes 26 (Pi 4) and 12 (Pi 5) instructions for each
product of such a depthwise convolution in int8, against 0.6 for 5 x 5
(benchmarks/depthwise_taps.py).
"""

from tfedge.networks.backend import keras
from tfedge.networks.blocks import classifier, convolution, inverted_stages, scaled

# Kernel, times that a block widens its input, its channels, how often it comes, its stride.
_STAGES = (
    (3, 1, 8, 1, 1),
    (3, 3, 16, 2, 2),
    (5, 4, 24, 2, 2),
    (5, 5, 40, 3, 2),
    (5, 4, 48, 2, 1),
    (5, 5, 96, 2, 2),
    (5, 5, 160, 1, 1),
)


def mcunet_like(shape, classes, width=1.0, depth=1.0, stride=2, dropout=0.0):
    """Thirteen inverted residuals; at 96 x 96 the activations of an int8 file take 90 KiB.

    Args:
      width: Multiplies all channels.
      depth: Multiplies how often a block comes, of those that come more than once.
      stride: Of the first convolution; 1 for pictures below 64 x 64.
      dropout: Share of the last features that training sets to 0.
    """
    images = keras.Input(shape)
    x = convolution(images, scaled(16, width), 3, stride, "relu6")
    x = inverted_stages(x, _STAGES, width, depth)
    return keras.Model(images, classifier(x, classes, dropout))
