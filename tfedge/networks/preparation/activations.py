"""Activations: those that are spelled out recognised, those inside of layers taken out."""

from __future__ import annotations

from tfedge.networks.backend import keras
from tfedge.networks.graph import Call, Graph, Layer, Tensor
from tfedge.networks.layers import Affine, HardSigmoid, HardSwish
from tfedge.networks.operators import affine

_K = keras.layers
_WITH_ACTIVATION = (
    *(_K.Conv1D, _K.Conv2D, _K.Conv3D, _K.DepthwiseConv1D, _K.DepthwiseConv2D, _K.Dense),
    *(_K.SeparableConv1D, _K.SeparableConv2D, _K.Conv2DTranspose, _K.Conv1DTranspose),
)
_SIX, _THREE = 6.0, 3.0
_ALIKE = 1e-5


def without_idle_layers(graph: Graph) -> int:
    """Take out linear activations, which do nothing."""
    done = 0
    for call in [call for call in graph.calls if _is_linear(call)]:
        if graph.producer(call.input) or graph.readers(call.output):  # else nothing would be left
            graph.bypass(call)
            done += 1
    return done


def outside_of_layers(graph: Graph) -> int:
    """Put an activation that tfmot does not expect in a layer behind it; linear and ReLU stay."""
    done = 0
    for call in list(graph.calls):
        name = _activation(call.layer)
        if not call.is_a(*_WITH_ACTIVATION) or name in ("linear", "relu"):
            continue
        if not graph.shared(call.layer):
            given = call.layer.config["activation"]
            call.layer.config = {**call.layer.config, "activation": "linear"}
            wish = graph.new_name(f"{call.layer.name}_{name}")
            graph.insert_after(call.output, Layer(wish, _K.Activation, {"activation": given}))
            done += 1
    return done


def as_layers(graph: Graph) -> int:
    """Recognise hard-sigmoid, hard-swish and swish in their arithmetic."""
    done = 0
    for call in list(graph.calls):
        if call.is_a(_K.Activation) and call.layer.config["activation"] == "hard_sigmoid":
            _straight(graph, call)
            done += 1
    for call in list(graph.calls):
        done += _hard_sigmoid(graph, call)
    for call in list(graph.calls):
        done += _gated(graph, call)
    graph.drop_unread()
    return done


def _straight(graph: Graph, call: Call) -> None:
    """Say tf_keras's hard-sigmoid, clip(0.2 x + 0.5), with the one of slope 1/6."""
    name = call.layer.name
    middle = Tensor(call.output.shape)
    steeper = affine(graph.new_name(f"{name}_slope"), 1.2, 0.0, int(call.output.shape[-1] or 1))
    graph.replace(
        call,
        [
            Call(steeper, ((call.input,), {}), [middle]),
            Call(Layer(name, HardSigmoid), ((middle,), {}), call.outputs),
        ],
    )


def _hard_sigmoid(graph: Graph, call: Call) -> int:
    """Recognise relu6(x + 3) / 6 by its last operator."""
    if not _is_affine(call, 1 / _SIX, 0.0):
        return 0
    relu = graph.producer(call.input)
    if relu is None or not _is_relu6(relu) or graph.only_reader(relu.output) is not call:
        return 0
    shift = graph.producer(relu.input)
    if shift is None or not _is_affine(shift, 1.0, _THREE):
        return 0
    layer = Layer(call.layer.name, HardSigmoid)
    graph.replace(call, [Call(layer, ((shift.input,), {}), call.outputs)])
    return 1


def _gated(graph: Graph, call: Call) -> int:
    """Recognise x * hard_sigmoid(x), (x * relu6(x + 3)) / 6 and x * sigmoid(x)."""
    if not call.is_a(_K.Multiply) or len(call.inputs) != 2:  # noqa: PLR2004
        return 0
    for x, gate in (call.inputs, call.inputs[::-1]):
        maker = graph.producer(gate)
        if maker is None or graph.only_reader(gate) is not call:
            continue
        if maker.is_a(HardSigmoid) and maker.input is x:
            _become(graph, call, Layer(call.layer.name, HardSwish), x)
            return 1
        if _is_sigmoid(maker) and maker.input is x:
            _become(graph, call, Layer(call.layer.name, _K.Activation, {"activation": "swish"}), x)
            return 1
        sixth = graph.only_reader(call.output)
        shift = graph.producer(maker.input) if _is_relu6(maker) else None
        shifted = shift is not None and _is_affine(shift, 1.0, _THREE) and shift.input is x
        if shifted and sixth and _is_affine(sixth, 1 / _SIX, 0.0):
            _become(graph, sixth, Layer(call.layer.name, HardSwish), x)
            return 1
    return 0


def _become(graph: Graph, call: Call, layer: Layer, x: Tensor) -> None:
    graph.replace(call, [Call(layer, ((x,), {}), call.outputs)])


def _is_affine(call: Call, scale: float, offset: float) -> bool:
    if not call.is_a(Affine):
        return False
    ends = zip(call.layer.weights, (scale, offset), strict=True)
    return all(abs(float(x) - wanted) < _ALIKE for values, wanted in ends for x in values)


def _is_relu6(call: Call) -> bool:
    config = call.layer.config
    plain = not config.get("negative_slope") and not config.get("threshold")
    return call.is_a(_K.ReLU) and plain and config.get("max_value") == _SIX


def _is_sigmoid(call: Call) -> bool:
    return call.is_a(_K.Activation) and call.layer.config["activation"] == "sigmoid"


def _is_linear(call: Call) -> bool:
    return call.is_a(_K.Activation) and call.layer.config["activation"] == "linear"


def _activation(layer: Layer) -> str:
    """Return the name of a layer's own activation."""
    given = layer.config.get("activation") or "linear"
    return given if isinstance(given, str) else str(given.get("class_name", "other")).lower()
