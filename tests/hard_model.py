"""A network that int8 ruins: the channels of one layer differ by a factor of a thousand.

In float it answers as it did before its channels were scaled.  In int8 the depthwise layer's output
has one step for all channels, which is coarser than the small ones are large, and each filter of
the layer behind has one for all its weights, which is coarser than those of the large ones.
"""

import numpy as np

SCALED = "depthwise"
READER = "pointwise"


def hard_model(data, spread=1000.0, seed=0, epochs=12):
    """Train a small network on `data` and scale its depthwise layer's channels by 1 or by `spread`.

    conv -> ReLU -> depthwise -> ReLU -> 1x1 conv -> ReLU -> average -> dense, on normalised inputs.
    Every other channel is scaled, by the size of what it answers, so that neither kind can do
    without the other; factors in between would leave channels that int8 serves well enough.
    """
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    x = inputs = keras.Input(data.shape)
    x = layers.ReLU(name="conv_relu")(layers.Conv2D(16, 3, padding="same", name="conv")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name=SCALED)(x)
    x = layers.ReLU(name="depthwise_relu")(x)
    x = layers.ReLU(name="pointwise_relu")(layers.Conv2D(16, 1, name=READER)(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(data.classes, name="logits")(x), name="hard")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    x = data.normalise(data.train.inputs)
    model.fit(x, data.train.classes, batch_size=64, epochs=epochs, verbose=0)
    answers = keras.Model(inputs, model.get_layer("depthwise_relu").output)(x).numpy()
    rank = answers.max(axis=(0, 1, 2)).argsort().argsort()
    scale(model, np.where(rank % 2, spread, 1.0))
    return model


def scale(model, factors):
    """Scale the depthwise layer's channels up and the next layer's inputs down, in place."""
    factors = np.float32(factors)
    kernel, bias = model.get_layer(SCALED).get_weights()
    model.get_layer(SCALED).set_weights([kernel * factors[:, None], bias * factors])
    kernel, bias = model.get_layer(READER).get_weights()
    model.get_layer(READER).set_weights([kernel / factors[:, None], bias])
