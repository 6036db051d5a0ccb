"""Networks as users bring them, for tests of the import stage; 16x16x3 pixels or 8x4 numbers."""

import numpy as np
import tensorflow as tf
from random_weights import randomise

from tfedge.networks.backend import keras

layers = keras.layers
PIXELS, SERIES = (16, 16, 3), (8, 4)


def _ended(given, x, activation=None, classes=4):
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    return randomise(keras.Model(given, layers.Dense(classes, activation=activation)(x)))


def _conv_bn(x, filters, size=3, strides=1, **named):
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, **named)(x)
    return layers.BatchNormalization()(x)


def _residuals(x):
    x = layers.ReLU()(_conv_bn(x, 16))
    for filters, strides in ((16, 1), (24, 2)):
        y = _conv_bn(layers.ReLU()(_conv_bn(x, filters, 3, strides)), filters)
        x = layers.Conv2D(filters, 1, strides, padding="same")(x) if strides == 2 else x
        x = layers.ReLU()(layers.Add()([x, y]))
    return x


def resnet():
    given = keras.Input(PIXELS)
    return _ended(given, _residuals(given))


def rescaled():
    given = keras.Input(PIXELS)
    return _ended(given, _residuals(layers.Rescaling(1 / 127.5, offset=-1)(given)))


def separable():
    given = keras.Input(PIXELS)
    x = layers.SeparableConv2D(12, 3, padding="same", activation="relu")(given)
    x = layers.BatchNormalization()(layers.MaxPooling2D()(x))
    x = layers.SeparableConv2D(12, 3, depth_multiplier=2)(x)
    return _ended(given, layers.Dropout(0.3)(layers.Flatten()(layers.ReLU()(x))), "softmax")


def shuffled():
    given = keras.Input(PIXELS)
    x = layers.ReLU()(_conv_bn(given, 16))
    y = layers.ReLU()(_conv_bn(x, 16, 1, groups=2))
    y = layers.Reshape((16, 16, 2, 8))(y)
    y = layers.Reshape((16, 16, 16))(layers.Permute((1, 2, 4, 3))(y))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    return _ended(given, layers.Concatenate()([x, layers.BatchNormalization()(y)]))


def nested():
    inside = keras.Input(PIXELS)
    base = keras.Model(inside, _residuals(inside))
    base.trainable = False
    given = keras.Input(PIXELS)
    x = keras.Sequential([layers.Rescaling(1 / 255), layers.RandomFlip()])(given)
    return _ended(given, layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(base(x))))


def mobilenet():
    given = keras.Input(PIXELS)
    x = layers.ReLU(6.0)(_conv_bn(given, 8, 3, 2))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
    x = layers.ReLU(6.0)(_conv_bn(layers.ReLU(6.0)(x), 16, 1))
    return _ended(given, layers.Dropout(0.1)(x), "softmax")


def mobilenet_v2():
    given = keras.Input(PIXELS)
    x = layers.ReLU(6.0)(_conv_bn(given, 8))
    for strides in (2, 1):
        y = layers.ReLU(6.0)(_conv_bn(x, 24, 1))
        y = layers.ZeroPadding2D(((0, 1), (0, 1)))(y) if strides == 2 else y
        padding = "valid" if strides == 2 else "same"
        y = layers.DepthwiseConv2D(3, strides, padding=padding, use_bias=False)(y)
        y = _conv_bn(layers.ReLU(6.0)(layers.BatchNormalization()(y)), 8, 1)
        x = layers.Add()([x, y]) if strides == 1 else y
    return _ended(given, x)


def mobilenet_v3():
    """Hard-swish and squeeze-excite as operators, as Keras 2 wrote them."""

    def hard_sigmoid(x):
        return tf.nn.relu6(x + 3.0) * (1.0 / 6.0)

    given = keras.Input(PIXELS)
    x = _conv_bn(layers.Rescaling(1 / 127.5, offset=-1)(given), 8, 3, 2)
    x = y = x * hard_sigmoid(x)
    y = _conv_bn(y, 16, 1)
    y = layers.DepthwiseConv2D(3, padding="same")(y * hard_sigmoid(y))
    z = layers.ReLU()(layers.Conv2D(8, 1)(tf.reduce_mean(y, [1, 2], keepdims=True)))
    y = y * hard_sigmoid(layers.Conv2D(16, 1)(z))
    return _ended(given, x + _conv_bn(y, 8, 1))


def efficientnet():
    given = keras.Input(PIXELS)
    x = layers.Rescaling(1 / 255)(given)
    x = layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.05, 0.06, 0.07])(x)
    x = layers.Activation("swish")(_conv_bn(layers.ZeroPadding2D(1)(x), 8, 3, 2))
    y = layers.Activation("swish")(_conv_bn(x, 16, 1))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = layers.Activation("swish")(layers.BatchNormalization()(y))
    z = layers.Reshape((1, 1, 16))(layers.GlobalAveragePooling2D()(y))
    z = layers.Conv2D(16, 1, activation="sigmoid")(layers.Conv2D(4, 1, activation="swish")(z))
    y = _conv_bn(layers.multiply([y, z]), 8, 1)
    y = layers.Dropout(0.2, noise_shape=(None, 1, 1, 1))(y)
    return _ended(given, layers.add([x, y]), "softmax")


def nasnet():
    """BatchNormalization that follows no convolution, before and behind a concatenation."""
    given = keras.Input(PIXELS)
    x = _conv_bn(given, 8, 3, 2)
    y = layers.BatchNormalization()(layers.Concatenate()([x, layers.AveragePooling2D(1)(x)]))
    z = layers.SeparableConv2D(8, 3, padding="same", use_bias=False)(layers.ReLU()(y))
    z = layers.Add()([layers.BatchNormalization()(z), x])
    return _ended(given, layers.ReLU()(layers.BatchNormalization()(z)))


def conv1d():
    x = given = keras.Input(SERIES)
    for filters in (8, 12):
        x = layers.Conv1D(filters, 3, padding="causal", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling1D(2)(layers.SeparableConv1D(8, 3)(x))
    return _ended(given, layers.GlobalAveragePooling1D()(x))


def lstm():
    given = keras.Input(SERIES)
    return _ended(given, layers.Dense(8, activation="relu")(layers.LSTM(8)(given)))


def gru():
    given = keras.Input(SERIES)
    return _ended(given, layers.Dense(8, activation="relu")(layers.GRU(8)(given)))


def masked():
    given = keras.Input(SERIES)
    return _ended(given, layers.LSTM(8)(layers.Masking()(given)))


def siamese():
    inside = keras.Input((16, 16, 1))
    half = keras.Model(inside, layers.ReLU()(_conv_bn(inside, 8)))
    given = keras.Input(PIXELS)
    return _ended(given, layers.Subtract()([half(given[..., :1]), half(given[..., 1:2])]))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convs = [layers.Conv2D(8, 3, padding="same") for _ in range(2)]
        self.norm, self.answer = layers.BatchNormalization(), layers.Dense(4)

    def call(self, x, training=False):
        for conv in self.convs:
            x = tf.nn.relu6(conv(x))
        return self.answer(tf.reduce_mean(self.norm(x, training=training), axis=[1, 2]))


def subclassed():
    model = Subclassed()
    model.build((None, *PIXELS))
    return randomise(model)


def resized():
    given = keras.Input((64, 48, 3))
    x = layers.CenterCrop(16, 16)(layers.Resizing(32, 32)(given))
    x = layers.RandomRotation(0.1)(layers.RandomFlip()(x))
    return _ended(given, _conv_bn(layers.Rescaling(1 / 255)(x), 8))


def multi_label():
    given = keras.Input(PIXELS)
    return _ended(given, layers.ReLU()(_conv_bn(given, 8)), "sigmoid")


def one_logit():
    given = keras.Input(PIXELS)
    return _ended(given, layers.ReLU()(_conv_bn(given, 8)), "sigmoid", classes=1)


def patches():
    """A vision transformer in small: patches, attention, LayerNormalization, GELU."""
    given = keras.Input(PIXELS)
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 4, 4)(given))
    x = x + np.float32(np.random.default_rng(0).normal(size=(1, 16, 12)))
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 6)(y, y)])
    y = layers.Dense(12)(layers.Dense(24, activation="gelu")(layers.LayerNormalization()(x)))
    return _ended(given, layers.GlobalAveragePooling1D()(layers.Add()([x, y])))


def moved():
    """Pads, slices, resizes and transposes: what TFLite has and tfmot has no rule for."""
    given = keras.Input(PIXELS)
    x = tf.pad(layers.Conv2D(8, 3, activation="relu")(given), [[0, 0], [1, 1], [1, 1], [0, 0]])
    x = layers.UpSampling2D(2)(layers.Cropping2D(1)(x[:, ::2, ::2, :]))
    x = (
        tf.image.resize(x, (8, 8))
        + layers.Conv2DTranspose(8, 2, 2)(layers.Conv2D(4, 1)(x))[:, :8, :8]
    )
    left, right = tf.split(layers.LeakyReLU()(x), 2, axis=-1)
    return _ended(given, tf.maximum(left, right))
