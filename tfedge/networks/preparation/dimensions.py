"""Layers along one axis as their two-dimensional forms, on pictures of height 1.

tfmot trains no Conv1D in 8 bits, and TFLite makes a two-dimensional convolution of it anyway.
Tensors [batch, steps, channels] that such layers make are carried as [batch, 1, steps, channels]
for as long as what reads them can work on that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfedge.networks.backend import keras
from tfedge.networks.graph import Call, Graph, Layer, Tensor
from tfedge.networks.layers import Affine, HardSigmoid, HardSwish

_K = keras.layers
_SEQUENCE = 3

_LIFTED = {
    _K.Conv1D: _K.Conv2D,
    _K.SeparableConv1D: _K.SeparableConv2D,
    _K.DepthwiseConv1D: _K.DepthwiseConv2D,
    _K.MaxPooling1D: _K.MaxPooling2D,
    _K.AveragePooling1D: _K.AveragePooling2D,
    _K.ZeroPadding1D: _K.ZeroPadding2D,
    _K.Cropping1D: _K.Cropping2D,
    _K.UpSampling1D: _K.UpSampling2D,
    _K.SpatialDropout1D: _K.SpatialDropout2D,
    _K.GlobalAveragePooling1D: _K.GlobalAveragePooling2D,
    _K.GlobalMaxPooling1D: _K.GlobalMaxPooling2D,
}
_STARTS = (_K.Conv1D, _K.SeparableConv1D, _K.DepthwiseConv1D)
_ENDS = (_K.GlobalAveragePooling1D, _K.GlobalMaxPooling1D)
_OF_ANY_RANK = (
    *(_K.Activation, _K.ReLU, _K.LeakyReLU, _K.ELU, _K.Dropout, _K.BatchNormalization, _K.Dense),
    *(_K.Add, _K.Multiply, _K.Subtract, _K.Maximum, _K.Minimum, _K.Average, _K.Concatenate),
    *(Affine, HardSigmoid, HardSwish, _K.GaussianNoise, _K.GaussianDropout),
)
_ORDER_KEPT = (_K.Flatten, _K.Reshape)
"""Layers that see the numbers in their order, which an axis of length 1 does not change."""


def along_one_axis(graph: Graph) -> int:
    """Replace every Conv1D and its like, and all that can go along; return how many of them."""
    if not any(call.is_a(*_STARTS) for call in graph.calls):
        return 0
    lifter = _Lifter(graph)
    for call in graph.calls:
        lifter.take(call)
    graph.replace_all(lifter.calls, [lifter.flat(output) for output in graph.outputs])
    return lifter.done


class _Lifter:
    """Writes a graph anew, with tensors of height 1 beside those that they stand for."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.calls: list[Call] = []
        self.tall: dict[Tensor, Tensor] = {}
        self.flattened: set[Tensor] = set(graph.inputs)
        self.layers: dict[Layer, Layer] = {}
        self.done = 0

    def take(self, call: Call) -> None:
        """Write one call, in two dimensions if that is what it needs or its inputs have."""
        sequence = all(tensor.rank == _SEQUENCE for tensor in call.inputs)
        lifted = sequence and any(tensor in self.tall for tensor in call.inputs)
        if call.is_a(*_STARTS) or (lifted and call.is_a(*_LIFTED)):
            self._lift(call, self._two_dimensional(call.layer))
        elif lifted and call.is_a(*_OF_ANY_RANK) and self._fits(call):
            self._lift(call, call.layer)
        elif lifted and call.is_a(*_ORDER_KEPT):
            self.calls.append(Call(call.layer, ((self.high(call.input),), {}), call.outputs))
            self.flattened.update(call.outputs)
        else:
            for tensor in call.inputs:
                self.flat(tensor)
            self.calls.append(call)
            self.flattened.update(call.outputs)

    def flat(self, tensor: Tensor) -> Tensor:
        """Make sure that a tensor is there in its own shape."""
        if tensor not in self.flattened:
            self._reshape(self.tall[tensor], tensor, tensor.shape[1:])
            self.flattened.add(tensor)
        return tensor

    def high(self, tensor: Tensor) -> Tensor:
        """Return the tensor of height 1 that stands for this one."""
        if tensor not in self.tall:
            self.tall[tensor] = Tensor((None, 1, *tensor.shape[1:]))
            self._reshape(self.flat(tensor), self.tall[tensor], (1, *tensor.shape[1:]))
        return self.tall[tensor]

    def _lift(self, call: Call, layer: Layer) -> None:
        given = [self.high(tensor) for tensor in call.inputs]
        if call.layer.config.get("padding") == "causal":
            given = [self._padded(call.layer, tensor) for tensor in given]
        if call.is_a(*_ENDS) and not call.layer.config.get("keepdims"):
            made = call.output
            self.flattened.add(made)
        else:
            made = self.tall[call.output] = Tensor((None, 1, *call.output.shape[1:]))
        one = given[0] if len(given) == 1 and not _listed(call) else given
        self.calls.append(Call(layer, ((one,), {}), [made]))

    def _fits(self, call: Call) -> bool:
        axis = call.layer.config.get("axis", -1)
        axis = axis[0] if isinstance(axis, (list, tuple)) else axis
        channels = axis in (-1, _SEQUENCE - 1)
        return channels and not (call.arguments[1] or call.layer.config.get("noise_shape"))

    def _two_dimensional(self, layer: Layer) -> Layer:
        if layer not in self.layers:
            config = _config(layer)
            weights = [
                weight[None] if weight.ndim == _SEQUENCE else weight for weight in layer.weights
            ]
            self.layers[layer] = Layer(layer.name, _LIFTED[layer.kind], config, weights)
            self.done += 1
        return self.layers[layer]

    def _padded(self, layer: Layer, tensor: Tensor) -> Tensor:
        """Put the zeros before the first step that causal padding means."""
        kernel, dilation = (_number(layer.config[key]) for key in ("kernel_size", "dilation_rate"))
        before = (kernel - 1) * dilation
        config = {"padding": [[0, 0], [before, 0]]}
        made = Tensor(tensor.shape)
        pad = Layer(f"{layer.name}_pad_{len(self.calls)}", _K.ZeroPadding2D, config)
        self.calls.append(Call(pad, ((tensor,), {}), [made]))
        return made

    def _reshape(self, given: Tensor, made: Tensor, shape: tuple[Any, ...]) -> None:
        name = f"reshape_{len(self.calls)}"
        taken = {call.layer.name for call in (*self.graph.calls, *self.calls)}
        while name in taken:
            name += "_"
        target = [-1 if size is None else size for size in shape]
        layer = Layer(name, _K.Reshape, {"target_shape": target})
        self.calls.append(Call(layer, ((given,), {}), [made]))


def _listed(call: Call) -> bool:
    return bool(call.arguments[0]) and isinstance(call.arguments[0][0], (list, tuple))


def _config(layer: Layer) -> dict[str, Any]:
    """Return a layer's settings with a height of 1 before each length."""
    change: dict[str, Callable[[Any], Any]] = {
        "kernel_size": lambda value: (1, _number(value)),
        "dilation_rate": lambda value: (1, _number(value)),
        "strides": lambda value: (1, _number(value)),
        "pool_size": lambda value: (1, _number(value)),
        "size": lambda value: (1, _number(value)),
        "cropping": lambda value: ((0, 0), _pair(value)),
        "padding": lambda value: value if isinstance(value, str) else ((0, 0), _pair(value)),
    }
    keep = {key: value for key, value in layer.config.items() if not key.endswith(_OWN_TO_RANK)}
    config = {key: change[key](value) if key in change else value for key, value in keep.items()}
    if config.get("padding") == "causal":
        config["padding"] = "valid"
    if layer.kind in (_K.DepthwiseConv1D, _K.SeparableConv1D):
        # TensorFlow's depthwise kernels know square steps only; a height of 1 is one step anyway.
        for key in ("strides", "dilation_rate"):
            config[key] = (_number(layer.config[key]),) * 2
    return config


_OWN_TO_RANK = ("_initializer", "_regularizer", "_constraint", "batch_input_shape")


def _number(value: Any) -> int:
    return int(value[0]) if isinstance(value, (list, tuple)) else int(value)


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value, value)
