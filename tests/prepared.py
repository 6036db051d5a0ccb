"""Networks prepared in tests, and what is left of them."""

from collections import Counter

import numpy as np


def pixels(shape, count=6, seed=0):
    """Return uint8 [count, *shape]."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def prepared(model, samples=None, *, mean=0.0, std=255.0, classes=4, fold=True):
    """Prepare a model for uint8 pictures, or for numbers, of its own shape."""
    from tfedge.networks.files import made_by
    from tfedge.networks.preparation.preparing import Feed, prepare

    shape = model.input_shape[1:]
    samples = pixels(shape) if samples is None else samples
    feed = Feed((mean,) * samples.shape[-1], (std,) * samples.shape[-1])
    return prepare(*made_by(model, shape), samples, feed, classes=classes, fold=fold)


def kinds(model):
    """Count the layers of a model by class."""
    names = (type(layer).__name__ for layer in model.layers)
    return dict(Counter(name for name in names if name != "InputLayer"))


def answers(made, samples):
    """Return the logits of a `Prepared` for inputs as recorded."""
    return made.model(made.feed(samples), training=False).numpy()
