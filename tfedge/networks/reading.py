"""From a Keras model, however it is made, to one flat graph.

Models in models are read through, layers that are made of layers taken apart where their `call` can
be traced, and functions said as layers.  What is called twice stays one layer.  `keras2` and
`keras3` say how either Keras stores what is read here.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Protocol

import tensorflow as tf

from tfedge.errors import UserError
from tfedge.networks.graph import Call, Graph, Layer, Tensor, mapped
from tfedge.networks.layers import Operation
from tfedge.networks.operators import Arguments, call_of, refuse_unknown

FIX = "write it as a functional model, keras.Model(inputs, outputs), of Keras's own layers"


_HALVES = ("float16", "bfloat16")


class Dialect(Protocol):
    """How one Keras stores a model."""

    def functional(self, layer: Any) -> Any | None:
        """Return the functional model that `layer` is, or holds; None if it is none."""

    def input(self, shape: tuple[int | None, ...]) -> Any:
        """Return a new symbolic input; `shape` is without the batch."""

    def model(self, inputs: Any, outputs: Any, name: str) -> Any:
        """Return a functional model of symbolic tensors."""

    def nodes(self, model: Any) -> Iterator[tuple[Any, Arguments, list[Any]]]:
        """Yield each call of a functional model in order: layer, arguments, outputs."""

    def key(self, tensor: Any) -> tuple[int, int, int] | None:
        """Return what names a symbolic tensor; None for anything else."""

    def is_model(self, layer: Any) -> bool:
        """Whether `layer` is a model of any kind."""

    def may_hold_others(self, layer: Any) -> bool:
        """Whether `layer` is of the user's own, so that its call is worth following."""

    def called_function(self, layer: Any) -> Any | None:
        """Return the user's function that a Lambda or Activation calls; None for other layers."""

    def own_activation(self, layer: Any) -> Any | None:
        """Return the user's function that one of Keras's layers calls on what it makes."""

    def function(self, layer: Any, arguments: Arguments) -> tuple[str, Arguments] | None:
        """Return TensorFlow's name and arguments of a function; None if `layer` is a layer."""

    def twin(self, layer: Any, name: str) -> list[Layer]:
        """Return the layer as tf_keras has it, and what comes behind it."""

    def is_variable(self, item: Any) -> bool:
        """Whether an argument is a weight."""


def read(model: Any, dialect: Dialect, shape: tuple[int, ...] | None = None) -> Graph:
    """Return the graph of a model; the model is not changed.

    Args:
      shape: Of one input, for a subclassed model that has never been called.

    Raises:
      UserError: A layer cannot be read; the message names it and its class.
    """
    return _Reader(dialect).graph(model, shape)


class _Reader:
    """Reads one model and what is in it."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.calls: list[Call] = []
        self.layers: dict[int, list[Layer]] = {}
        self.names: set[str] = set()
        self.half = False
        self.traced: dict[int, Any | None] = {}
        self.unsaid: dict[int, UserError] = {}

    def graph(self, model: Any, shape: tuple[int, ...] | None) -> Graph:
        flat = self.dialect.functional(model)
        if flat is None:
            where = f"network {model.name!r} ({type(model).__name__})"
            if shape is None:
                raise UserError(where, "does not say what it takes", "give it a keras.Input first")
            given = self.dialect.input(shape)
            answer = self._follow(model.call, (given,), {}, where)
            flat = self.dialect.model([given], answer, model.name)
        inputs = [Tensor(tuple(tensor.shape)) for tensor in flat.inputs]
        graph = Graph(_safe(model.name), inputs, self.inlined(flat, inputs, ""), self.calls)
        graph.half = self.half
        graph.of_bytes = _type(flat.inputs[0]) == "uint8"
        graph.drop_unread()
        return graph

    def inlined(self, model: Any, inputs: list[Tensor], prefix: str) -> list[Tensor]:
        """Read one call of a functional model; return what it makes of `inputs`."""
        key = self.dialect.key
        made: dict[Any, Tensor] = {
            key(tensor): given for tensor, given in zip(model.inputs, inputs, strict=True)
        }

        def known(item: Any) -> Tensor | None:
            return made.get(key(item))

        for layer, arguments, outputs in self.dialect.nodes(model):
            given = _substituted(arguments, known)
            results = self.called(layer, _without_defaults(given), outputs, prefix)
            made |= {key(tensor): new for tensor, new in zip(outputs, results, strict=True)}
        return [made[key(tensor)] for tensor in tf.nest.flatten(model.outputs)]

    def called(
        self, layer: Any, arguments: Arguments, outputs: list[Any], prefix: str
    ) -> list[Tensor]:
        """Read one call of a layer or function; return what it makes."""
        function = self.dialect.function(layer, arguments)
        if function is not None:
            refuse_unknown(function[0], layer.name)
            made = _made(outputs, layer)
            self.calls.append(call_of(function[0], self.name(layer, prefix), function[1], made))
            return made
        made = _made(outputs, layer)
        if id(layer) not in self.traced:
            self.traced[id(layer)] = self.inner(layer, arguments)
        if (inner := self.traced[id(layer)]) is not None:
            return self.through(layer, inner, arguments, prefix)
        self.half |= str(getattr(layer, "compute_dtype", "")) in _HALVES
        if id(layer) not in self.layers:
            self.layers[id(layer)] = self.whole(layer, prefix)
        for part in self.layers[id(layer)]:
            self.calls.append(Call(part, arguments, made))
            arguments, made = ((made[0],), {}), [Tensor(made[0].shape)]
        return self.activated(layer, self.calls[-1].outputs, prefix)

    def through(self, layer: Any, inner: Any, arguments: Arguments, prefix: str) -> list[Tensor]:
        """Read the network that a layer is, or was traced to."""
        given = [item for item in tf.nest.flatten(arguments) if isinstance(item, Tensor)]
        try:
            return self.inlined(inner, given, f"{prefix}{_safe(layer.name)}_")
        except UserError as error:
            if inner is self.dialect.functional(layer):
                raise
            raise error.within(f"{_where(layer)}, in it") from error

    def whole(self, layer: Any, prefix: str) -> list[Layer]:
        """Return a layer as tf_keras has it; one that has no twin could only be read through."""
        try:
            return self.dialect.twin(layer, self.name(layer, prefix))
        except UserError as error:
            if id(layer) not in self.unsaid:
                raise
            where, problem, fix = error.parts
            reason = self.unsaid[id(layer)].parts[1]
            raise UserError(where, f"{problem}, and in it {reason}", fix) from error

    def activated(self, layer: Any, made: list[Tensor], prefix: str) -> list[Tensor]:
        """Read the function of the user's own that a layer calls on what it makes, if there is one.

        The layer itself is read without it.
        """
        function = self.dialect.own_activation(layer)
        if function is None:
            return made
        given = self.dialect.input(made[0].shape[1:])
        answer = self._follow(function, (given,), {}, _where(layer))
        network = self.dialect.model([given], answer, layer.name)
        return self.inlined(network, made, f"{prefix}{_safe(layer.name)}_")

    def inner(self, layer: Any, arguments: Arguments) -> Any | None:
        """Return the network that a layer is, or that its call can be traced to."""
        flat = self.dialect.functional(layer)
        if flat is not None:
            return flat
        function = self.dialect.called_function(layer)
        must = self.dialect.is_model(layer) or function is not None
        if not (must or self.dialect.may_hold_others(layer)):
            return None
        tensors: list[Any] = []

        def fresh(item: Tensor) -> Any:
            tensors.append(self.dialect.input(item.shape[1:]))
            return tensors[-1]

        positional, named = mapped(arguments, fresh)
        try:
            outputs = self._follow(function or layer.call, positional, named, _where(layer))
            network = self.dialect.model(tensors, outputs, layer.name)
            return network if must or self._keeps_weights(network, layer) else None
        except UserError as error:
            if must:
                raise
            self.unsaid[id(layer)] = error
            return None

    def _keeps_weights(self, network: Any, layer: Any) -> bool:
        """Whether each weight of a layer is one of a layer in the network that it was traced to.

        Raises:
          UserError: A function in it cannot be said.
        """
        direct = {id(weight) for weight in layer.weights} - {id(w) for w in network.weights}
        for node, arguments, outputs in self.dialect.nodes(network):
            function = self.dialect.function(node, arguments)
            if function is None:
                continue
            refuse_unknown(function[0], node.name)
            used = {id(i) for i in tf.nest.flatten(arguments) if self.dialect.is_variable(i)}
            made = _made(outputs, node)
            places = _substituted(
                function[1],
                lambda item: Tensor(tuple(item.shape)) if self.dialect.key(item) else None,
            )
            if call_of(function[0], node.name, places, made).layer.kind is not Operation:
                direct -= used
        return not direct

    def _follow(
        self, call: Any, positional: tuple[Any, ...], named: dict[str, Any], where: str
    ) -> Any:
        """Run a `call` on symbolic tensors, so that the layers and functions in it make a graph."""
        given = {key: value for key, value in named.items() if key not in ("training", "mask")}
        if "training" in inspect.signature(call).parameters:
            given["training"] = False
        try:
            # A tf.function takes no symbolic tensor of Keras's; the function in it does.
            return getattr(call, "python_function", call)(*positional, **given)
        except Exception as error:
            line = (str(error).strip().splitlines() or [""])[0]
            line = textwrap.shorten(f"{type(error).__name__}: {line}", 200, placeholder=" ...")
            problem = f"its call cannot be followed: {line}"
            raise UserError(where, problem, FIX) from error

    def name(self, layer: Any, prefix: str) -> str:
        """Return a name that no other layer has."""
        wish = _safe(layer.name)
        more = (f"{prefix}{wish}_{number}" for number in range(1, len(self.names) + 2))
        name = next(n for n in (wish, prefix + wish, *more) if n not in self.names)
        self.names.add(name)
        return name


def _where(layer: Any) -> str:
    return f"layer {layer.name!r} ({type(layer).__name__})"


def _safe(name: str) -> str:
    """Replace what TensorFlow takes in no name, or would make layer/operator ambiguous."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name).strip("_-") or "layer"


def _type(tensor: Any) -> str:
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def _made(outputs: list[Any], layer: Any) -> list[Tensor]:
    """Return what stands for the tensors that a call makes."""
    shapes = [output.shape for output in outputs]
    if any(getattr(shape, "rank", 0) is None for shape in shapes):
        fix = "write it with functions of TensorFlow's that know their shape, without py_function"
        raise UserError(_where(layer), "makes a tensor of unknown shape", fix)
    return [Tensor(tuple(shape)) for shape in shapes]


def _substituted(structure: Any, change: Any) -> Any:
    """Return lists, tuples and dictionaries with each symbolic tensor in them replaced."""
    if isinstance(structure, dict):
        return {key: _substituted(item, change) for key, item in structure.items()}
    if type(structure) in (list, tuple):
        return type(structure)(_substituted(item, change) for item in structure)
    if hasattr(structure, "_keras_history"):
        found = change(structure)
        return structure if found is None else found
    return structure


def _without_defaults(arguments: Arguments) -> Arguments:
    """Leave out what Keras itself adds to a call."""
    positional, named = arguments
    own = {
        key: value
        for key, value in named.items()
        if value is not None and (key != "training" or isinstance(value, Tensor))
    }
    return positional, own
