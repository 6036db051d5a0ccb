"""A small network of either Keras, for tests that save it; and other contents for its file."""

import zipfile

from random_weights import randomise

SHAPE = (8, 8, 3)


def network(k, *middle):
    """Return a small network of either Keras, with random weights."""
    layers = k.layers
    x = given = k.Input(SHAPE)
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, use_bias=False, name="conv")(x))
    for layer in (layers.ReLU(), *middle, layers.GlobalAveragePooling2D()):
        x = layer(x)
    return randomise(k.Model(given, layers.Dense(4, activation="softmax", name="answer")(x)))


def rewrite(file, changed):
    """Put other parts into a .keras file; None takes one out."""
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert set(changed) <= set(content)
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in {**content, **changed}.items():
            if part is not None:
                archive.writestr(name, part)
