"""What a model file may bring without being trusted: numbers, and Keras's own classes.

Both Kerases import modules that a file names, call functions that it names and run bytecode that it
holds.  Everything here looks at the file's config as JSON, before a Keras sees the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.layers import OWN
from tfedge.networks.operators import is_known

TRUST = (
    "if you trust whoever made the file, write trust = true; or replace the layer by Keras's own"
)

_CODE = frozenset(
    (
        *("Lambda", "__lambda__", "function_type", "TFSMLayer", "TorchModuleWrapper", "JaxLayer"),
        *("FlaxLayer", "TensorFlowOpLayer", "ClassMethod"),
    )
)
_OF_FUNCTIONS = ("TFOpLambda", "Operation")
_OWN_MODULES = ("keras", "tf_keras", "tensorflow_model_optimization", "builtins")
_COMPUTING = re.compile(r"(tf_)?keras(\.src)?\.(activations|ops|backend\.[a-z]+)(\.|$)")
_OF_PRUNING_AND_QAT = (
    *("PruneLowMagnitude", "QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2"),
    *("QuantizeAnnotate", "TFOpLambda", "SlicingOpLambda", "InstanceProperty", "InstanceMethod"),
)


def refuse_code(file: Path, config: Any) -> None:
    """Refuse a file whose config holds code, or the name of a function that is not arithmetic.

    Raises:
      UserError: It names the layer.
    """
    for name, part in _parts(config, ""):
        kind = re.split(r"[.>]", part["class_name"])[-1]  # as "layers.Lambda" and "Keras>Lambda"
        if kind in _CODE:
            problem = f"layer {name!r} ({kind}) holds code, which could do anything"
            raise UserError(file, problem, TRUST)
        inner = part.get("config")
        function = inner.get("function") if isinstance(inner, dict) else None
        if kind in _OF_FUNCTIONS and not (isinstance(function, str) and is_known(function)):
            problem = f"layer {name!r} ({kind}) calls tf.{function}, which is not known here"
            raise UserError(file, problem, TRUST)


def refuse_strangers(file: Path, config: Any, custom: Mapping[str, Any]) -> None:
    """Refuse classes and functions that are neither Keras's nor given.

    tf_keras would import the modules that they are said to be in.

    Args:
      custom: What the user gave, by name.

    Raises:
      UserError: It names the layer.
    """
    known = {*custom, *OWN}
    for name, part in _parts(config, ""):
        kind = part["class_name"]
        if {kind, part.get("registered_name")} & known:
            continue
        if kind == "function":
            _refuse_function(file, name, part, known)
        elif not _is_kerass(part):
            problem = f"layer {name!r} ({kind}) is not Keras's own"
            raise UserError(file, problem, f'name the file that defines it: custom = "{_as(kind)}"')


def _refuse_function(file: Path, name: str, part: Mapping[str, Any], known: set[str]) -> None:
    word = str(part.get("config"))
    computes = _COMPUTING.match(part.get("module") or "") or hasattr(keras.activations, word)
    if word not in known and not computes:
        problem = f"layer {name!r} calls a function {word!r}, which is not Keras's own"
        fix = f'name the file that defines it: custom = "{_as(word)}"'
        raise UserError(file, problem, fix)


def _as(word: str) -> str:
    return f"layers.py:{word.split('>')[-1]}"


def _is_kerass(part: Mapping[str, Any]) -> bool:
    """Whether a class is of Keras or tfmot; without a module it is looked up by its name."""
    module, kind = part.get("module"), part["class_name"]
    if module:
        return str(module).split(".")[0] in _OWN_MODULES
    config = part.get("config")
    is_layer = isinstance(config, dict) and "name" in config and not kind.startswith("__")
    places = (keras.layers, keras.models, keras.metrics, keras.losses, keras.optimizers)
    known = any(hasattr(place, kind) for place in (*places, keras.optimizers.legacy))
    return not is_layer or known or kind in ("Functional", *_OF_PRUNING_AND_QAT)


def _parts(config: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what in a config would become an object, with the name of the layer that it is in."""
    if isinstance(config, dict):
        inner = config.get("config")
        if isinstance(inner, dict):
            name = str(inner.get("name", name))
        if isinstance(config.get("class_name"), str):
            yield name, config
        for value in config.values():
            yield from _parts(value, name)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _parts(value, name)
