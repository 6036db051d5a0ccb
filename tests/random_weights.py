"""Weights that make a mistake show: no BatchNormalization that does nothing, no bias of zero."""

import numpy as np


def randomise(model, seed=0):
    """Fill all layers of a model of either Keras, also those in models in it; return the model."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        path = getattr(variable, "path", None) or variable.name
        name = path.split("/")[-1].split(":")[0]
        shape = tuple(variable.shape)
        if "seed" in name or "count" in name or "random_generator" in path:
            continue
        if "variance" in name or name == "gamma":
            values = rng.uniform(0.5, 1.5, shape)
        elif name in ("beta", "bias", "moving_mean", "mean"):
            values = rng.normal(0, 0.3, shape)
        else:
            inputs = max(1, int(np.prod(shape[:-1])))
            values = rng.normal(0, 1.5 / np.sqrt(inputs), shape)
        variable.assign(values.astype(np.float32))
    return model


def difference(got, expected):
    """Return the largest difference, relative to the largest number expected."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()
