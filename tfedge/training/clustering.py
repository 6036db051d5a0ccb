"""Weight clustering with tfmot: the weights of a kernel come to share a few values.

With k values a weight is one of k codes, log2(k) bits, and a table (Han et al. 2016, section 3,
https://arxiv.org/abs/1510.00149).  TFLite has no such table, so the file's raw size stays; zipped
it is smaller, for equal bytes are what zipping saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
from tensorflow_model_optimization.clustering.keras import (
    CentroidInitialization,
    cluster_weights,
    strip_clustering,
)
from tensorflow_model_optimization.python.core.clustering.keras import clustering_registry

from tfedge.errors import UserError, did_you_mean
from tfedge.networks.backend import keras, refuse_nested
from tfedge.networks.kernels import is_sparse, kernels
from tfedge.networks.precision import for_one

STARTS = {
    "kmeans++": CentroidInitialization.KMEANS_PLUS_PLUS,
    "linear": CentroidInitialization.LINEAR,
    "density": CentroidInitialization.DENSITY_BASED,
    "random": CentroidInitialization.RANDOM,
}
"""Tfmot's ways to place the first values, by the words of the setting `init`."""

_WORTH = 2  # weights for each value; with fewer there is nothing to share


class Wish(NamedTuple):
    """How many values the kernels are to have.

    Attributes:
      clusters: Of each kernel, 0 among them.
      init: One of `STARTS`.
      exceptions: Another number for the layers whose name matches the shell-like pattern; 0 leaves
        a layer as it is.  The first that matches counts.
    """

    clusters: int
    init: str
    exceptions: Mapping[str, int]

    def of(self, name: str) -> int:
        """Return the number for a layer."""
        other = (n for wish, n in self.exceptions.items() if fnmatchcase(name, wish))
        return next(other, self.clusters)


def with_clustering(model: keras.Model, wish: Wish) -> keras.Model:
    """Return a twin of `model` whose kernels have few values, which move while it is trained.

    A kernel with zeros keeps them: 0 is then one of its values, and stays it.  One that has so few
    values already has no wrapper, and needs `preserving.unwrapped`.
    """
    refuse_nested(model)
    names = clusterable(model)
    for pattern in wish.exceptions:
        if not any(fnmatchcase(name, pattern) for name in names):
            problem = f"no layer to cluster matches {pattern!r}"
            raise UserError("layers", problem, did_you_mean(pattern, names))
    left = too_small(model, wish)
    found = {name: variable.numpy() for name, variable in kernels(model).items()}

    def wrapped(layer: keras.layers.Layer) -> keras.layers.Layer:
        count = wish.of(layer.name)
        if layer.name not in names or layer.name in left or not count:
            return layer
        kernel = found[layer.name]
        if np.unique(kernel).size <= count:
            return layer
        return cluster_weights(layer, count, STARTS[wish.init], preserve_sparsity=is_sparse(kernel))

    # Wrapping takes hold of the layers it is given; the caller's stay untouched.
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return keras.models.clone_model(twin, clone_function=wrapped)


def without_clustering(model: keras.Model) -> keras.Model:
    """Return the network without tfmot's wrappers; each weight is its cluster's value."""
    stripped = strip_clustering(model)
    # Layers that had no wrapper belong to both graphs.
    return for_one(stripped)


def clusterable(model: keras.Model) -> list[str]:
    """Name the layers that are clustered: those with a kernel, of the classes that tfmot knows.

    Depthwise kernels are not: tfmot knows them, and clusters none, for the accuracy's sake.
    """
    supports = clustering_registry.ClusteringRegistry.supports
    return [
        layer.name
        for layer in model.layers
        if layer.name in kernels(model)
        and not isinstance(layer, keras.layers.DepthwiseConv2D)
        and supports(layer)
    ]


def too_small(model: keras.Model, wish: Wish) -> list[str]:
    """Name the layers with too few weights beside 0 to share so many values."""
    counts = {name: np.count_nonzero(kernel) for name, kernel in kernels(model).items()}
    return [name for name in clusterable(model) if counts[name] < _WORTH * wish.of(name)]


def unclustered(model: keras.Model) -> dict[str, str]:
    """Name the layers whose matrices are left whole, such as LSTM's, each with its class."""
    matrix, names = 2, clusterable(model)
    return {
        layer.name: type(layer).__name__
        for layer in model.layers
        if layer.name not in names and any(len(weight.shape) >= matrix for weight in layer.weights)
    }
