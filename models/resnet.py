"""Small residual networks for pictures of about 32 x 32 (He et al. 2016, section 4.2)."""

from tfedge.networks.backend import keras

layers = keras.layers


def resnet8(shape, classes, width=16, stride=1):
    """One block at each of three widths.

    Args:
      width: Channels of the first block; the others have two and four times as many.
      stride: Of the first convolution; 2 for pictures of about 64 x 64 and more.
    """
    x = images = keras.Input(shape)
    x = _conv(x, width, 3, stride)
    for stage, stride in enumerate((1, 2, 2)):
        x = _block(x, width * 2**stage, stride)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(classes)(x))


def _block(x, width, stride):
    skip = x
    x = _conv(x, width, 3, stride)
    x = _conv(x, width, 3, active=False)
    if stride > 1 or skip.shape[-1] != width:
        skip = _conv(skip, width, 1, stride, active=False)
    return layers.ReLU()(layers.Add()([x, skip]))


def _conv(x, width, size, stride=1, active=True):
    x = layers.Conv2D(width, size, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)  # settles within 50 steps: sets are small
    return layers.ReLU()(x) if active else x
