"""What a network costs with so many channels in each group, without building it."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import Call, Layer
from tfedge.networks.narrowing.groups import Groups

_K = keras.layers
_TRANSPOSED = (_K.Conv1DTranspose, _K.Conv2DTranspose, _K.Conv3DTranspose)
_SEPARABLE = (_K.SeparableConv1D, _K.SeparableConv2D)
_DEPTHWISE = (_K.DepthwiseConv1D, _K.DepthwiseConv2D)
_CONVOLUTIONS = (_K.Conv1D, _K.Conv2D, _K.Conv3D, *_DEPTHWISE, *_SEPARABLE, *_TRANSPOSED)
_RANK = 6

_BIAS_BYTES = 4
_RANGE_BYTES = 12
"""A float32 scale and an int64 zero point, of which a .tflite has one a channel, and one more for
each number of its bias."""


class Costs:
    """Counts of a network's kernels, as functions of how many channels its groups have.

    Each takes an int array [groups], in the order of `groups.all`, of channels that stay.  Kernels
    of convolutions, depthwise, separable and transposed ones, and of dense layers count; what other
    layers multiply is the same for every choice and left out.

    Raises:
      UserError: A layer's output has a size that is not fixed.
    """

    def __init__(self, groups: Groups) -> None:
        self.widths = np.array([group.width for group in groups.all], int)
        self.at_once = np.array([group.made_at_once for group in groups.all], int)
        found = list(_kernels(groups))
        self._places = np.array([positions for _, _, positions in found], float)
        self._shapes = np.ones((len(found), _RANK))
        # How many indices of a kernel's axis one channel of a group has.
        self._each = np.zeros((len(found), _RANK, len(groups.all)))
        self._made = np.array([_makes_at(layer, of) for layer, of, _ in found], int)
        self._by_channel = np.array([layer.kind is not _K.Dense for layer, _, _ in found])
        rows = {(layer.name, of): row for row, (layer, of, _) in enumerate(found)}
        for row, (layer, of, _) in enumerate(found):
            shape = layer.weights[of].shape
            self._shapes[row, _RANK - len(shape) :] = shape
        for column, group in enumerate(groups.all):
            for part in group.slices:
                if (part.layer, part.of) in rows:
                    row = rows[part.layer, part.of]  # type: ignore[index]
                    self._each[row, _RANK + part.axis, column] = part.per_channel

    def channels(self, counts: np.ndarray) -> float:
        """Count the channels that layers make, those of a group once."""
        return float(counts @ self.at_once)

    def macs(self, counts: np.ndarray) -> float:
        """Count multiply-accumulates; products with padding count as well."""
        return float(self._places @ self._sizes(counts).prod(axis=1))

    def bytes(self, counts: np.ndarray) -> float:
        """Count what an int8 .tflite spends on kernels, their biases and ranges.

        The names, the graph and the card come on top, and are much the same for every choice.
        """
        sizes = self._sizes(counts)
        made = np.take_along_axis(sizes, self._made[:, None], axis=1)[:, 0]
        a_channel = np.where(self._by_channel, _BIAS_BYTES + 2 * _RANGE_BYTES, _BIAS_BYTES)
        return float(sizes.prod(axis=1).sum() + a_channel @ made)

    def _sizes(self, counts: np.ndarray) -> np.ndarray:
        return self._shapes - self._each @ (self.widths - counts)


def macs(call: Call) -> float:
    """Count the multiply-accumulates of one call of a layer with a kernel; 0 for other layers."""
    if not call.is_a(_K.Dense, *_CONVOLUTIONS):
        return 0.0
    kernels = call.layer.weights[: 2 if call.is_a(*_SEPARABLE) else 1]
    return sum(kernel.size for kernel in kernels) * _positions(call)


def uncounted(call: Call) -> bool:
    """Whether a layer multiplies with matrices that `macs` does not know, as an LSTM does."""
    matrix = 2
    known = call.is_a(_K.Dense, *_CONVOLUTIONS)
    return not known and any(weight.ndim >= matrix for weight in call.layer.weights)


def _kernels(groups: Groups) -> Iterator[tuple[Layer, int, float]]:
    """Yield each kernel once: its layer, which weight it is, and how often it is applied."""
    places: dict[tuple[str, int], float] = {}
    layers: dict[str, Layer] = {}
    for call in groups.graph.calls:
        if not call.is_a(_K.Dense, *_CONVOLUTIONS):
            continue
        layers[call.layer.name] = call.layer
        for of in range(2 if call.is_a(*_SEPARABLE) else 1):
            key = call.layer.name, of
            places[key] = places.get(key, 0.0) + _positions(call)
    for (name, of), positions in places.items():
        yield layers[name], of, positions


def _positions(call: Call) -> float:
    """Return at how many places of its output, or of a transposed one's input, a kernel stands."""
    sizes = (call.input if call.is_a(*_TRANSPOSED) else call.output).shape[1:-1]
    if any(size is None for size in sizes):
        problem = f"{call.layer} has an output of no fixed size: {call.output.shape}"
        raise UserError("network", problem, "give its Input a shape without None")
    return float(prod(size or 1 for size in sizes))


def _makes_at(layer: Layer, of: int) -> int:
    """Return the axis of a kernel, in `_RANK` axes, along which what it makes lies."""
    turned = layer.kind in _TRANSPOSED or layer.kind in _DEPTHWISE
    return _RANK - (2 if turned or (layer.kind in _SEPARABLE and of == 0) else 1)
