"""The one Keras that tfedge uses.

tfmot (pruning, QAT) works on Keras 2 only, which is `tf_keras` beside TensorFlow 2.16 and later.
Every module, and every network in models/, takes `keras` from here, so that no object of one Keras
meets the other.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfedge.errors import UserError

__all__ = [
    "build",
    "classes_in",
    "keras",
    "layers_in",
    "refuse_nested",
    "reseed",
    "seed_everything",
]

tf.get_logger().setLevel("ERROR")
# Dropout then draws from a generator that `reseed` can set, not from a counter hidden in the graph.
keras.backend.experimental.enable_tf_random_generator()


def build(
    builder: Callable[..., Any], shape: tuple[int, ...], classes: int, options: dict[str, Any]
) -> keras.Model:
    """Call a user's builder and make sure that it gave a network for this data.

    Args:
      shape: Of one input, without the batch.
      classes: How many logits the network must answer with.
      options: The builder's own arguments.
    """
    keras.backend.clear_session()  # layer names count up: the same build must name them the same
    model = builder(shape, classes, **options)
    where = f"{getattr(builder, '__name__', builder)}()"
    if not isinstance(model, keras.Model):
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        fix = "tfmot knows Keras 2 only: write `from tfedge.networks.backend import keras`"
        raise UserError(where, f"must return a tf_keras.Model, got {kind}", fix)
    if not (isinstance(model, keras.Sequential) or model._is_graph_network) or not model.built:
        fix = "end in keras.Model(inputs, outputs); give a Sequential a keras.Input first"
        raise UserError(where, "must be a functional or Sequential network with an input", fix)
    if len(model.outputs) > 1:
        fix = 'build it with one, and give it exits afterwards: use = "exits"'
        raise UserError(where, f"answers with {len(model.outputs)} outputs", fix)
    if _ends_in_softmax(model):
        fix = "leave the softmax out: training and the board take it on the logits themselves"
        raise UserError(where, "ends in a softmax, and has to answer with logits", fix)
    if tuple(model.input_shape[1:]) != tuple(shape):
        raise UserError(where, f"takes {model.input_shape[1:]}, but the data is {shape}")
    if tuple(model.output_shape[1:]) != (classes,):
        problem = f"answers with {model.output_shape[1:]}, but the data has {classes} classes"
        raise UserError(where, problem, "end in Dense(classes), without softmax")
    return model


def refuse_nested(model: keras.Model) -> None:
    """Refuse a network with another in it, which tfmot would pass over or not take."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            problem = f"layer {layer.name!r} is a network in a network"
            fix = "tfmot takes flat networks: call the inner one's layers one by one"
            raise UserError(f"network {model.name!r}", problem, fix)


def layers_in(module: ModuleType) -> dict[str, type]:
    """Find the Keras layers that a module of the user's defines, under every name they save as."""
    found: dict[str, type] = {}
    for name, kind in vars(module).items():
        if isinstance(kind, type) and issubclass(kind, keras.layers.Layer):
            found |= {name: kind, keras.saving.get_registered_name(kind): kind}
    return found


def classes_in(module: ModuleType) -> dict[str, Any]:
    """Find layers and models, of either Keras, and functions that a user's module defines."""
    found: dict[str, Any] = {}
    for name, item in vars(module).items():
        bases = item.__mro__[1:] if isinstance(item, type) else ()
        layer = any(base.__name__ == "Layer" and "keras" in base.__module__ for base in bases)
        if layer or (inspect.isfunction(item) and item.__module__ == module.__name__):
            found[name] = item
    return found | layers_in(module)


def reseed(model: keras.Model, seed: int, epoch: int) -> None:
    """Set what Dropout and its like draw in an epoch, whatever was drawn before it.

    A training that goes on in its third epoch then drops what it would have dropped anyway.
    """
    layers = [item for item in model.submodules if isinstance(item, keras.layers.Layer)]
    for number, layer in enumerate(layers):
        generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
        if generator is not None:
            generator.reset_from_seed(_mixed(seed, epoch, number))


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and TensorFlow, and hold TensorFlow to operations that repeat."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - a user's builder may use it
    tf.random.set_seed(seed)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _ends_in_softmax(model: keras.Model) -> bool:
    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    return isinstance(last, keras.layers.Softmax) or activation is keras.activations.softmax


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint32)[0])
