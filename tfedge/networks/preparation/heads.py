"""The end of a classifier: logits, one for each class, whatever it ended in."""

from __future__ import annotations

import numpy as np

from tfedge.networks.backend import keras
from tfedge.networks.graph import Call, Graph, Layer, Tensor

_K = keras.layers
_MATRIX = 2


def without_probabilities(graph: Graph) -> str:
    """Take the softmax or sigmoid at the network's end off.

    Returns:
      What gives probabilities from its answer, "softmax" or "sigmoid"; empty if nothing was taken
      off, because it ended in logits.
    """
    call = graph.producer(graph.outputs[0])
    while call and call.is_a(_K.Reshape, _K.Flatten) and graph.only_reader(call.input) is call:
        call = graph.producer(call.input)
    kind = _probability(call) if call else ""
    if call and kind:
        graph.bypass(call)
    return kind


def two_logits(graph: Graph) -> bool:
    """Make the one number z with which a network tells two classes apart two logits, -z/2 and z/2.

    Their softmax is 1 - sigmoid(z) and sigmoid(z): exactly what it said before.
    """
    answer = graph.outputs[0]
    if answer.shape[1:] != (1,):
        return False
    half = np.array([[-0.5, 0.5]], np.float32)
    maker = graph.producer(answer)
    plain = maker is not None and maker.is_a(_K.Dense) and not graph.shared(maker.layer)
    if maker and plain and maker.layer.config.get("activation", "linear") == "linear":
        layer = maker.layer
        layer.weights = [
            layer.weights[0] @ half,
            *(w * half[0] for w in layer.weights[1:]),
        ]
        layer.config = {**layer.config, "units": 2}
        answer.shape = (None, 2)
        return True
    layer = Layer(graph.new_name("two_logits"), _K.Dense, {"units": 2, "use_bias": False}, [half])
    made = Tensor((None, 2))
    graph.calls.append(Call(layer, ((answer,), {}), [made]))
    graph.outputs = [made]
    return True


def _probability(call: Call) -> str:
    last = call.output.rank - 1
    if call.is_a(_K.Softmax):
        axis = call.layer.config.get("axis", -1)
        return "softmax" if axis in (-1, last) else ""
    name = call.layer.config.get("activation") if call.is_a(_K.Activation) else ""
    return name if name in ("softmax", "sigmoid") else ""
