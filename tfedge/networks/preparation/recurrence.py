"""Layers along time in a form that the converter quantises."""

from __future__ import annotations

from tfedge.networks.backend import keras
from tfedge.networks.graph import Graph

_LOOPS = (keras.layers.GRU, keras.layers.SimpleRNN)
_STEPS = 256


def unrolled(graph: Graph) -> int:
    """Unroll each GRU and SimpleRNN, whose loops TFLite's quantiser cannot follow.

    An LSTM is one operator of TFLite's and stays.  Sequences of more than 256 steps, or of any
    length, stay as well: unrolled they would be thousands of operators.
    """
    done = 0
    for call in graph.calls:
        config = call.layer.config
        if call.is_a(*_LOOPS) and not config.get("unroll"):
            steps = call.inputs[0].shape[1]
            if steps is not None and steps <= _STEPS:
                call.layer.config = {**config, "unroll": True}
                done += 1
    return done


def at_once(graph: Graph) -> int:
    """Take each Dense out of its TimeDistributed: on more axes it does the same to each step."""
    done = 0
    for call in graph.calls:
        held = call.layer.config.get("layer") or {}
        if call.is_a(keras.layers.TimeDistributed) and held.get("class_name") == "Dense":
            call.layer.kind = keras.layers.Dense
            call.layer.config = {**held["config"], "dtype": "float32"}
            done += 1
    return done
