"""Plain stacks of convolutions for very small pictures, such as 8 x 8 digits."""

from tfedge.networks.backend import keras

layers = keras.layers


def stack(shape, classes, widths=(16, 32), dropout=0.0):
    """Convolutions of 3 x 3, the second and later ones after halving the picture."""
    x = images = keras.Input(shape)
    for number, width in enumerate(widths):
        if number:
            x = layers.MaxPooling2D()(x)
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)  # settles within 50 steps: sets are small
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return keras.Model(images, layers.Dense(classes)(x))
