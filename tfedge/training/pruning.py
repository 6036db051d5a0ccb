"""Magnitude pruning with tfmot: small weights become zeros and stay so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_model_optimization.python.core.sparsity.keras import prune_registry
from tensorflow_model_optimization.sparsity import keras as sparsity

from tfedge.data.dataset import Data
from tfedge.errors import UserError, did_you_mean
from tfedge.networks.backend import keras, refuse_nested
from tfedge.networks.kernels import clusters, kernel_of
from tfedge.networks.precision import for_one
from tfedge.training.batches import steps_per_epoch
from tfedge.training.course import Course

SLACK = 0.01
"""A share of zeros is kept up to this: tfmot rounds to whole weights, or whole blocks."""

_RANKS_OF_FOURS = (2, 4)


@dataclass(frozen=True)
class Schedule:
    """When how many weights are zero.

    Attributes:
      kind: "polynomial" rises from 0 along a cubic (Zhu and Gupta 2017, equation 1,
        https://arxiv.org/abs/1710.01878); "constant" is there from the first step.
      begin: The step after which pruning starts; tfmot counts steps from 1.
      end: The step of the last pruning.
      every: Steps between two choices of the smallest weights.
      first_epoch: The first, from 0, that begins when all have fallen.
    """

    kind: str
    begin: int
    end: int
    every: int
    first_epoch: int

    @classmethod
    def over(
        cls, course: Course, data: Data, span: tuple[float, float], *, kind: str, every: int
    ) -> Schedule:
        """Place a schedule in a course.

        Args:
          span: Where it begins and ends, as shares of the course's epochs.
          every: Steps between two prunings; 0 makes 20 of them.
        """
        steps = steps_per_epoch(data, course.batch)
        begin, end = (round(share * course.epochs * steps) for share in span)
        begin = min(begin, course.epochs * steps - 1)  # at least the very last step prunes
        if every > max(1, end - begin):
            problem = f"must be at most the {max(1, end - begin)} steps of the ramp, got {every}"
            raise UserError("every", problem, "leave it out for 20 prunings in all")
        every = every or max(1, (end - begin) // 20)
        end = begin + max(1, (end - begin) // every) * every  # the last pruning is on the grid
        first = min(-(-end // steps), course.epochs - 1)
        return cls(kind, begin, end, every, first)

    def reaching(self, target: float, start: float = 0.0) -> Any:
        """Return tfmot's schedule from `start` up to `target`, fractions of the weights."""
        if self.kind == "constant":
            return sparsity.ConstantSparsity(target, self.begin + 1, self.end, self.every)
        return sparsity.PolynomialDecay(start, target, self.begin, self.end, 3, self.every)


@dataclass(frozen=True)
class Pattern:
    """Which weights fall together.

    Attributes:
      kind: "free", "2:4" (two of each four along the input axis, all at the first step; of one or
        two inputs none) or "block".
      block: Height and width of a block, in the weight's [inputs, outputs] matrix.
    """

    kind: str
    block: tuple[int, int]

    def options(self) -> dict[str, Any]:
        """Return tfmot's own arguments."""
        if self.kind == "2:4":
            return {"sparsity_m_by_n": (2, 4)}
        return {"block_size": self.block} if self.kind == "block" else {}


def with_pruning(
    model: keras.Model,
    target: float,
    schedule: Schedule,
    pattern: Pattern,
    exceptions: Mapping[str, float],
) -> keras.Model:
    """Return a twin of `model` that loses weights while it is trained.

    Args:
      target: Fraction of each layer's weights that end as zeros.
      exceptions: Another fraction for the layers whose name matches the shell-like pattern; 0
        leaves a layer as it is.  The first that matches counts.
    """
    refuse_nested(model)
    _refuse_clustered(model)
    names = [layer.name for layer in prunable(model)]
    for wish in exceptions:
        if not any(fnmatchcase(name, wish) for name in names):
            raise UserError(
                "layers", f"no layer to prune matches {wish!r}", did_you_mean(wish, names)
            )

    if pattern.kind == "2:4":
        _refuse_other_ranks(model, exceptions)
    single = without_blocks(model, pattern.block) if pattern.kind == "block" else []
    there = zeros(model)

    def wrapped(layer: keras.layers.Layer) -> keras.layers.Layer:
        share = next((s for wish, s in exceptions.items() if fnmatchcase(layer.name, wish)), target)
        if layer.name not in names or not share:
            return layer
        if pattern.kind == "2:4":
            share = 0.5
        if share < there[layer.name] - SLACK:
            problem = f"{layer.name} has {there[layer.name]:.0%} zeros, and would have {share:.0%}"
            raise UserError("sparsity", problem, "ask for at least as many: none is lost silently")
        options = pattern.options() if layer.name not in single else {}
        reaching = schedule.reaching(share, there[layer.name])
        return sparsity.prune_low_magnitude(layer, reaching, **options)

    # Wrapping copies the layer's config; the copy of the whole model keeps the caller's untouched.
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return keras.models.clone_model(twin, clone_function=wrapped)


def pruning_step() -> keras.callbacks.Callback:
    """Return the callback that tfmot's wrappers need while they are trained."""
    return sparsity.UpdatePruningStep()


def without_pruning(model: keras.Model) -> keras.Model:
    """Return the network without tfmot's wrappers; the zeros stay in the weights."""
    stripped = sparsity.strip_pruning(model)
    # Its layers are still those inside the wrappers, and belong to both graphs.
    return for_one(stripped)


def prunable(model: keras.Model) -> list[keras.layers.Layer]:
    """List the layers that tfmot prunes: those with a kernel, not biases or BatchNormalization."""
    supports = prune_registry.PruneRegistry.supports
    pruned = ("kernel", "pointwise_kernel")  # tfmot knows depthwise kernels, but prunes none
    return [
        layer
        for layer in model.layers
        if supports(layer) and any(_is_weight(layer, name) for name in pruned)
    ]


def unpruned(model: keras.Model) -> list[str]:
    """Name the layers, with their class, whose matrices tfmot leaves whole, such as LSTM's.

    Depthwise kernels, which are few numbers, are not among them.
    """
    pruned, matrix = {layer.name for layer in prunable(model)}, 2
    return [
        f"{layer.name} ({type(layer).__name__})"
        for layer in model.layers
        if layer.name not in pruned
        and not isinstance(layer, keras.layers.DepthwiseConv2D)
        and any(len(weight.shape) >= matrix for weight in layer.weights)
    ]


def without_blocks(model: keras.Model, block: tuple[int, int]) -> list[str]:
    """Name the layers in which no blocks can fall.

    tfmot knows blocks in matrices only, and only in those of at least two blocks each way.
    """
    matrix = 2
    return [
        layer.name
        for layer in prunable(model)
        if (kernel := _kernel(layer)) is not None
        and (
            kernel.ndim != matrix
            or any(size <= side for size, side in zip(kernel.shape, block, strict=True))
        )
    ]


def zeros(model: keras.Model) -> dict[str, float]:
    """Measure the fraction of weights that are exactly 0, by layer, in its kernel."""
    return {
        layer.name: float(np.mean(kernel == 0))
        for layer in model.layers
        if (kernel := _kernel(layer)) is not None
    }


def sparsity_of(model: keras.Model) -> float:
    """Measure the fraction of all kernels' weights that are exactly 0."""
    kernels = [kernel for layer in model.layers if (kernel := _kernel(layer)) is not None]
    count = sum(kernel.size for kernel in kernels)
    return float(sum(int((kernel == 0).sum()) for kernel in kernels) / count) if count else 0.0


def _refuse_clustered(model: keras.Model) -> None:
    """Refuse kernels whose weights share values: each weight is trained for itself from here on."""
    if found := clusters(model):
        problem = f"the weights of {', '.join(found)} share values, which pruning would undo"
        raise UserError("of", problem, "prune first and cluster then: that keeps the zeros")


def _refuse_other_ranks(model: keras.Model, exceptions: Mapping[str, float]) -> None:
    """Refuse kernels in which tfmot forms no fours: those of 1-D and 3-D convolutions."""
    for layer in prunable(model):
        kernel = _kernel(layer)
        spared = any(fnmatchcase(layer.name, wish) and not s for wish, s in exceptions.items())
        if not spared and kernel is not None and kernel.ndim not in _RANKS_OF_FOURS:
            problem = f"{layer.name} is a {type(layer).__name__}, where tfmot knows no 2:4"
            raise UserError("pattern", problem, f'add layers = {{ "{layer.name}" = 0 }}')


def _kernel(layer: keras.layers.Layer) -> np.ndarray | None:
    variable = kernel_of(layer)
    return None if variable is None else variable.numpy()


def _is_weight(layer: keras.layers.Layer, name: str) -> bool:
    return isinstance(getattr(layer, name, None), tf.Variable)
