"""What compression has made of a network's weights, kept while they are trained on.

Pruned weights stay 0, and those that share a value go on to share one, as in Han et al. 2016,
section 3.3 (https://arxiv.org/abs/1510.00149): which weights belong together stays as it was, and
training moves the value that they share.  tfmot's own schemes for training in 8 bits are of no use
here: with clusters, one layer without zeros switches off the keeping of zeros in all layers, a
convolution gets other clusters for each channel where such are found, and a channel without zeros
loses its smallest value to 0; and no scheme keeps what is in layers that are trained in float.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from tensorflow_model_optimization.python.core.clustering.keras.cluster_wrapper import (
    ClusterWeights,
)
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import (
    PruneLowMagnitude,
)

from tfedge.networks.backend import keras
from tfedge.networks.kernels import is_clustered, is_sparse, kernel_of


def unwrapped(model: keras.Model) -> list[tf.Variable]:
    """List the kernels that no wrapper of pruning or clustering looks after."""
    wrappers = (ClusterWeights, PruneLowMagnitude)
    plain = [layer for layer in model.layers if not isinstance(layer, wrappers)]
    return [kernel for layer in plain if (kernel := kernel_of(layer)) is not None]


class Preserving(keras.callbacks.Callback):
    """After each step, puts pruned weights back to 0 and clustered ones to their cluster's mean.

    Args:
      kernels: With the weights that they have before they are trained.
    """

    def __init__(self, kernels: Iterable[tf.Variable]) -> None:
        super().__init__()
        self._kept = [kept for kernel in kernels if (kept := _kept(kernel))]
        self._restore = tf.function(self._restored)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._restore()

    def _restored(self) -> None:
        for kept in self._kept:
            kept.restore()


class _Zeros:
    """A kernel some of whose weights stay 0."""

    def __init__(self, kernel: tf.Variable) -> None:
        self.kernel = kernel
        self.free = tf.constant(np.float32(kernel.numpy() != 0))

    def restore(self) -> None:
        self.kernel.assign(self.kernel * self.free)


class _Clusters:
    """A kernel whose weights go on to be equal where they were, and 0 where they were 0."""

    def __init__(self, kernel: tf.Variable) -> None:
        self.kernel = kernel
        values, members, sizes = np.unique(
            kernel.numpy().ravel(), return_inverse=True, return_counts=True
        )
        self.members = tf.constant(members.astype(np.int32))
        self.shares = tf.constant(np.float32(np.where(values == 0, 0, 1 / sizes)))

    def restore(self) -> None:
        weights = tf.reshape(self.kernel, [-1])
        sums = tf.math.unsorted_segment_sum(weights, self.members, len(self.shares))
        means = tf.gather(sums * self.shares, self.members)
        self.kernel.assign(tf.reshape(means, self.kernel.shape))


def _kept(kernel: tf.Variable) -> _Zeros | _Clusters | None:
    weights = kernel.numpy()
    if is_clustered(weights):
        return _Clusters(kernel)
    return _Zeros(kernel) if is_sparse(weights) else None
