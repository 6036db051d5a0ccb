"""A network as a list of calls that surgery can cut, and the way back to Keras.

Keras builds a network by calling layers and hides the graph in them; to change one means to call
all of them anew.  Here a network is data: layers with their configs and weights as numpy arrays,
and the calls between them in order.  Both Kerases are read into it (`reading`, `keras3`), passes
rewrite it in place (`preparation`), and `build` makes a flat functional tf_keras model of it.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfedge.errors import UserError
from tfedge.networks.backend import keras

Shape = tuple[int | None, ...]


@dataclass(eq=False)
class Tensor:
    """What one call makes and others read.

    Attributes:
      shape: With the batch's axis first, which is None like any other that is not fixed.
    """

    shape: Shape

    @property
    def rank(self) -> int:
        """Axes, the batch's among them."""
        return len(self.shape)


@dataclass(eq=False)
class Layer:
    """A layer; all calls of a shared layer hold the same one.

    Attributes:
      kind: Its class, of tf_keras, of `networks.layers` or of the user's own.
      config: As `kind.from_config` takes it, but without the name.
      weights: In the order of `keras.layers.Layer.get_weights`.
    """

    name: str
    kind: type
    config: dict[str, Any] = field(default_factory=dict)
    weights: list[np.ndarray] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name!r} ({self.kind.__name__})"


@dataclass(eq=False)
class Call:
    """One call of a layer.

    Attributes:
      arguments: Positional and named arguments, with a `Tensor` wherever one is handed in.
      outputs: What it makes, flattened.
    """

    layer: Layer
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    outputs: list[Tensor]

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors among the arguments, in order."""
        return list(_tensors(self.arguments))

    @property
    def input(self) -> Tensor:
        """The only tensor that it reads."""
        (only,) = self.inputs
        return only

    @property
    def output(self) -> Tensor:
        """The only tensor that it makes."""
        (only,) = self.outputs
        return only

    def is_a(self, *kinds: type) -> bool:
        """Whether its layer's class is one of these; a class derived from them is not."""
        return self.layer.kind in kinds


@dataclass(eq=False)
class Graph:
    """A network.

    Attributes:
      calls: In an order in which each reads only what is already made.
      half: Whether it computed in 16 bits where it comes from; here it computes in float32.
      of_bytes: Whether its input was uint8 where it comes from; here it is float32.
    """

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    calls: list[Call]
    half: bool = False
    of_bytes: bool = False
    _found: _Index | None = None

    def producer(self, tensor: Tensor) -> Call | None:
        """Return the call that makes `tensor`; None for an input of the network."""
        return self._index().producers.get(tensor)

    def readers(self, tensor: Tensor) -> list[Call]:
        """Return the calls that read `tensor`; being an output of the network is no reading."""
        return list(self._index().readers.get(tensor, ()))

    def only_reader(self, tensor: Tensor) -> Call | None:
        """Return the one call that reads `tensor` if nothing else needs it."""
        readers = self.readers(tensor)
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def shared(self, layer: Layer) -> bool:
        """Whether the layer is called more than once."""
        return self._index().uses[layer] > 1

    def replace_tensor(self, old: Tensor, new: Tensor) -> None:
        """Let all that reads `old` read `new` instead."""
        for call in self.readers(old):
            call.arguments = mapped(call.arguments, lambda item: new if item is old else item)
        self.outputs = [new if output is old else output for output in self.outputs]
        self._found = None

    def bypass(self, call: Call) -> None:
        """Take out a call of one input; what read its output reads its input."""
        self.replace_tensor(call.output, call.input)
        self.calls.remove(call)
        self._found = None

    def replace(self, call: Call, calls: Iterable[Call]) -> None:
        """Put `calls` in the place of a call; the last of them must make what it made."""
        position = self.calls.index(call)
        self.calls[position : position + 1] = list(calls)
        self._found = None

    def replace_all(self, calls: list[Call], outputs: list[Tensor]) -> None:
        """Take other calls and outputs."""
        self.calls, self.outputs, self._found = calls, outputs, None

    def insert_after(self, tensor: Tensor, layer: Layer) -> Call:
        """Put a call between `tensor` and all that reads it."""
        made = Tensor(tensor.shape)
        self.replace_tensor(tensor, made)
        maker = self.producer(tensor)
        call = Call(layer, ((tensor,), {}), [made])
        self.calls.insert(self.calls.index(maker) + 1 if maker else 0, call)
        self._found = None
        return call

    def drop_unread(self) -> None:
        """Drop every call whose outputs nothing reads."""
        needed = set(self.outputs)
        kept: list[Call] = []
        for call in reversed(self.calls):
            if needed.intersection(call.outputs):
                needed.update(call.inputs)
                kept.append(call)
        self.calls = kept[::-1]
        self._found = None

    def new_name(self, wish: str) -> str:
        """Return `wish`, or it with a number behind where a layer has that name already."""
        taken = {call.layer.name for call in self.calls}
        names = (wish, *(f"{wish}_{number}" for number in range(1, len(taken) + 2)))
        return next(name for name in names if name not in taken)

    def _index(self) -> _Index:
        """Return who makes and who reads what; looked up anew after each change."""
        if self._found is None:
            self._found = _Index(self.calls)
        return self._found


class _Index:
    """Who makes and who reads each tensor, and how often a layer is called."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self.producers: dict[Tensor, Call] = {}
        self.readers: defaultdict[Tensor, list[Call]] = defaultdict(list)
        self.uses: Counter[Layer] = Counter()
        for call in calls:
            self.uses[call.layer] += 1
            for tensor in call.outputs:
                self.producers[tensor] = call
            for tensor in dict.fromkeys(call.inputs):
                self.readers[tensor].append(call)


def build(graph: Graph) -> keras.Model:
    """Make a functional tf_keras model of a graph, in float32, with the weights set."""
    inputs = [keras.Input(tensor.shape[1:]) for tensor in graph.inputs]
    made: dict[int, Any] = {id(t): x for t, x in zip(graph.inputs, inputs, strict=True)}
    layers: dict[int, keras.layers.Layer] = {}
    for call in graph.calls:
        layer = layers.get(id(call.layer))
        if layer is None:
            layer = layers[id(call.layer)] = _instance(call.layer)
        positional, named = mapped(call.arguments, lambda tensor: made[id(tensor)])
        try:
            answer = tf.nest.flatten(layer(*positional, **named))
        except (TypeError, ValueError) as error:
            fix = "replace it by a layer of Keras's, or by one of your own"
            problem = f"cannot be called again: {_line(error)}"
            raise UserError(f"layer {call.layer}", problem, fix) from error
        for tensor, value in zip(call.outputs, answer, strict=True):
            made[id(tensor)] = value
            tensor.shape = tuple(value.shape)
    outputs = [made[id(tensor)] for tensor in graph.outputs]
    model = keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs, name=graph.name)
    for call in graph.calls:
        _set_weights(layers[id(call.layer)], call.layer)
    return model


def mapped(structure: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return lists, tuples and dictionaries with each `Tensor` in them changed."""
    if isinstance(structure, Tensor):
        return change(structure)
    if isinstance(structure, dict):
        return {key: mapped(item, change) for key, item in structure.items()}
    if type(structure) in (list, tuple):
        return type(structure)(mapped(item, change) for item in structure)
    return structure


def _tensors(structure: Any) -> Iterator[Tensor]:
    if isinstance(structure, Tensor):
        yield structure
    elif isinstance(structure, (list, tuple, dict)):
        for item in structure.values() if isinstance(structure, dict) else structure:
            yield from _tensors(item)


def _instance(layer: Layer) -> keras.layers.Layer:
    try:
        kind: Any = layer.kind
        config = copy.deepcopy(layer.config)  # some of Keras's take parts out of theirs
        made: keras.layers.Layer = kind.from_config({**config, "name": layer.name})
    except (TypeError, ValueError) as error:
        fix = "its __init__ must take **kwargs, and its get_config() return all other arguments"
        raise UserError(f"layer {layer}", f"cannot be made again: {_line(error)}", fix) from error
    return made


def _line(error: Exception) -> str:
    """Return what an error of Keras's says, without the levels that it came through."""
    text = str(error).split("Exception encountered: ")[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(("TypeError: ", "ValueError: "))]
    return (*named, *lines, type(error).__name__)[0][:300]


def _set_weights(made: keras.layers.Layer, layer: Layer) -> None:
    shapes = [tuple(weight.shape) for weight in made.weights]
    given = [weight.shape for weight in layer.weights]
    if shapes != given:
        problem = f"has weights {given}, and its tf_keras twin wants {shapes}"
        fix = "write it as a layer of your own for tf_keras, with its weights in this order"
        raise UserError(f"layer {layer}", problem, fix)
    made.set_weights(layer.weights)
