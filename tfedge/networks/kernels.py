"""The kernels of a network, and what compression has made of them: zeros and shared values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfedge.networks.backend import keras

SPARSE = 0.05
"""From this share of exact zeros on, a kernel counts as pruned: none of them come by chance."""

SHARED = 0.75
"""Up to this many different values for each weight that is not 0, a kernel counts as clustered.

Among weights that were trained one by one hardly two are equal.
"""

CLUSTERS = 256
"""Clusters that a kernel has at most: more would be no fewer than int8 has numbers.

Weights that were float16 once share values as well, but thousands of them.
"""

_NAMED = 3
_FEW = 2  # one value alone is a builder's constant, such as of ones
_KERNELS = ("kernel", "pointwise_kernel", "depthwise_kernel")


def kernels(model: keras.Model) -> dict[str, tf.Variable]:
    """Return each layer's kernel, by the layer's name; of a separable layer the pointwise one.

    tfmot's wrappers may be round the layers: the name is then the wrapper's.
    """
    found = {layer.name: kernel_of(layer) for layer in model.layers}
    return {name: kernel for name, kernel in found.items() if kernel is not None}


def kernel_of(layer: keras.layers.Layer) -> tf.Variable | None:
    """Return the one kernel of a layer; None if it has none, or several, as attention has.

    That of an LSTM is four in one, and none of what makes networks small knows it.
    """
    names = [weight.name.split(":")[0].split("/")[-1] for weight in layer.weights]
    own = next((name for name in _KERNELS if names.count(name) == 1), None)
    return layer.weights[names.index(own)] if own and "recurrent_kernel" not in names else None


def is_sparse(kernel: np.ndarray) -> bool:
    """Whether a kernel was pruned."""
    return bool(np.mean(kernel == 0) > SPARSE)


def is_clustered(kernel: np.ndarray) -> bool:
    """Whether the weights of a kernel that are not 0 share few values."""
    others = kernel[kernel != 0]
    return bool(_FEW <= np.unique(others).size <= min(CLUSTERS, SHARED * others.size))


def clusters(model: keras.Model) -> dict[str, int]:
    """Count the different values, 0 among them, of each kernel that is clustered, by layer."""
    found = {name: kernel.numpy() for name, kernel in kernels(model).items()}
    return {name: np.unique(k).size for name, k in found.items() if is_clustered(k)}


def in_words(counts: Mapping[str, int]) -> str:
    """Say what `clusters` has counted, such as ``16 values in 28 layers; 8 in answer``."""
    parts: list[str] = []
    for count in sorted(set(counts.values()), reverse=True):
        names = [name for name, other in counts.items() if other == count]
        where = listed(names)
        parts.append(f"{count} in {where}" if parts else f"{count} values in {where}")
    return "; ".join(parts)


def listed(names: Sequence[str]) -> str:
    """Name a few layers, or say how many they are."""
    return ", ".join(names) if len(names) <= _NAMED else f"{len(names)} layers"
