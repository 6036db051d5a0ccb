"""Layers along time in a form that the converter quantises, and those that have none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import Call, Graph, Layer, Tensor

_K = keras.layers
_LOOPS = ("GRU", "SimpleRNN", "RNN", "LSTM")
_CONVOLUTIONAL = (_K.ConvLSTM1D, _K.ConvLSTM2D, _K.ConvLSTM3D)
_HELD = ("layer", "backward_layer")
_STEPS = 256

_ONE_OPERATOR = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "use_bias": True,
    "recurrent_dropout": 0.0,
}
"""The only LSTM that is one operator of TFLite's."""


def refuse_state(graph: Graph) -> None:
    """Refuse a layer that goes on where the input before ended."""
    for call in graph.calls:
        if any(config.get("stateful") for _, config in _recurrent(call)):
            fix = "build it with stateful = False and give it the weights: each input stands alone"
            problem = "carries its state from one input to the next"
            raise UserError(f"layer {call.layer}", problem, fix)


def unrolled(graph: Graph) -> int:
    """Unroll each recurrent layer whose loop TFLite's quantiser cannot follow.

    An LSTM as Keras makes it is one operator of TFLite's and stays.  Sequences of more than 256
    steps, or of any length, stay as well: unrolled they would be thousands of operators.
    """
    done = 0
    for call in graph.calls:
        if _loops(call) and (_steps(call) or _STEPS + 1) <= _STEPS:
            call.layer.config = _unroll(call.layer.kind.__name__, call.layer.config)
            done += 1
    return done


def never_int8(calls: Iterable[Call]) -> Iterator[tuple[str, str]]:
    """Yield each layer that no file in int8 can hold, and why."""
    for call in calls:
        if call.is_a(_K.Masking):
            yield str(call.layer), "a mask is computed in float"
        elif call.is_a(*_CONVOLUTIONAL):
            yield str(call.layer), "it is a loop of convolutions"
        elif _loops(call):
            steps = _steps(call)
            many = f"{steps} steps" if steps else "any number of steps"
            yield str(call.layer), f"it is a loop over {many}, and at most {_STEPS} are unrolled"


def refuse_never_int8(model: keras.Model) -> None:
    """Refuse a network to be trained in 8 bits that can never be int8."""
    kinds = (_K.Masking, _K.RNN, _K.Bidirectional)
    for layer in model.layers:
        if isinstance(layer, kinds):
            given = Tensor(tuple(layer.input_shape))
            call = Call(Layer(layer.name, type(layer), layer.get_config()), ((given,), {}), [])
            for name, why in never_int8([call]):
                fix = "take it out, or leave qat out and convert to float16 or dynamic"
                raise UserError(f"layer {name}", f"cannot be quantised: {why}", fix)


def at_once(graph: Graph) -> int:
    """Take each Dense out of its TimeDistributed: on more axes it does the same to each step."""
    done = 0
    for call in graph.calls:
        held = call.layer.config.get("layer") or {}
        if call.is_a(_K.TimeDistributed) and held.get("class_name") == "Dense":
            call.layer.kind = _K.Dense
            call.layer.config = {**held["config"], "dtype": "float32"}
            done += 1
    return done


def _recurrent(call: Call) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield class and config of each recurrent layer that a call is, or wraps."""
    config = call.layer.config
    yield call.layer.kind.__name__, config
    for held in (config.get(key) for key in _HELD):
        if isinstance(held, dict) and "config" in held:
            yield held["class_name"], held["config"]


def _loops(call: Call) -> bool:
    known = call.is_a(_K.GRU, _K.SimpleRNN, _K.RNN, _K.LSTM, _K.Bidirectional)
    return known and any(_is_loop(kind, config) for kind, config in _recurrent(call))


def _is_loop(kind: str, config: Mapping[str, Any]) -> bool:
    one = kind == "LSTM" and all(config.get(k, v) == v for k, v in _ONE_OPERATOR.items())
    return kind in _LOOPS and not one and not config.get("unroll")


def _unroll(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    new = {**config, "unroll": True} if _is_loop(kind, config) else dict(config)
    for key in _HELD:
        if isinstance(held := config.get(key), dict):
            new[key] = {**held, "config": _unroll(held["class_name"], held["config"])}
    return new


def _steps(call: Call) -> int | None:
    return call.inputs[0].shape[1]
