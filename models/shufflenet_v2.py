"""ShuffleNet V2, for pictures of 32 x 32 to 224 x 224 (Ma et al. 2018, section 4, table 5).

https://arxiv.org/abs/1807.11164

Its units split the channels in half, convolve one half, join the two and shuffle, so that the next
unit's halves hold some of both.  Here nothing is split or shuffled: a branch ends in two
convolutions of half the width, each making a quarter of the channels, and the quarters are handed
on by name.  Parameters and MACs are those of the paper, and the only operator left of split, join
and shuffle is the CONCATENATION before a branch, which XNNPACK and an Edge TPU run in int8 and
training in 8 bits knows.  The paper's transpose takes 1.1 (Pi 4) and 1.3 times (Pi 5) the
instructions and keeps all but the first operators off an Edge TPU; a fixed convolution of 1 x 1 in
its place takes 1.8 and 1.7 times as many (benchmarks/shuffle_forms.py, width 1.0).
"""

from tfedge.networks.backend import keras
from tfedge.networks.blocks import classifier, convolution, depthwise

layers = keras.layers

# Channels of the three stages and of the last convolution, by width; 0.25 is not the paper's.
_WIDTHS = {
    0.25: (24, 48, 96, 512),
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
_UNITS = (4, 8, 4)


def shufflenet_v2(shape, classes, width=1.0, stride=2, dropout=0.0):
    """Sixteen units in three stages.

    Args:
      width: 0.25, 0.5, 1.0, 1.5 or 2.0.
      stride: Of the first convolution; 1 for pictures below 96 x 96.
      dropout: Share of the last features that training sets to 0.
    """
    if width not in _WIDTHS:
        raise ValueError(f"width must be one of {', '.join(map(str, _WIDTHS))}, got {width}")
    *stages, last = _WIDTHS[width]
    images = keras.Input(shape)
    x = convolution(images, 24, 3, stride)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for channels, units in zip(stages, _UNITS, strict=True):
        x = _stage(x, channels // 4, units)
    return keras.Model(images, classifier(convolution(x, last), classes, dropout))


def _stage(x, quarter, units):
    """Halve the picture, then go through units that each renew half of the channels.

    `kept` and `next_` are the halves of the shuffled channels, in quarters.  No quarter waits for
    more than two units until one convolves it.
    """
    first = _quarters(depthwise(x, 3, 2, "linear"), quarter)
    second = _branch(x, quarter, 2)
    kept, next_ = _shuffled(first, second)
    for _ in range(units - 1):
        kept, next_ = _shuffled(kept, _branch(layers.Concatenate()(next_), quarter, 1))
    return layers.Concatenate()([*kept, *next_])


def _shuffled(kept, made):
    return [kept[1], made[1]], [kept[0], made[0]]


def _branch(x, quarter, stride):
    x = convolution(x, 2 * quarter)
    return _quarters(depthwise(x, 3, stride, "linear"), quarter)


def _quarters(x, quarter):
    return [convolution(x, quarter) for _ in range(2)]
