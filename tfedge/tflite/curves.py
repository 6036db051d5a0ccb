"""ELU in int8, which TFLite's kernel computes and TensorFlow's quantiser leaves in float.

The quantiser is shown a LEAKY_RELU in its place, to which it gives any scales on both sides, and
the file that it has made gets its ELU back.  In int8 the kernel looks each of the 256 values up in
a table that it makes of both scales.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_STANDING = np.float32(-0.7654321)  # a slope that no LEAKY_RELU of a network's has
_ELU, _LEAKY = schema.BuiltinOperator.ELU, schema.BuiltinOperator.LEAKY_RELU
_LEAKY_OPTIONS = schema.BuiltinOptions.LeakyReluOptions


def with_stand_ins(file: schema.ModelT) -> int:
    """Replace every ELU by its stand-in, in place; return how many there were."""
    found = [operator for operator in _operators(file) if _kind(file, operator) == _ELU]
    for operator in found:
        operator.opcodeIndex = _code(file, _LEAKY)
        operator.builtinOptionsType = _LEAKY_OPTIONS
        operator.builtinOptions = schema.LeakyReluOptionsT(alpha=float(_STANDING))
    return len(found)


def without_stand_ins(file: schema.ModelT) -> None:
    """Put ELU back in the place of its stand-ins, in place."""
    for operator in _operators(file):
        if _stands_in(file, operator):
            operator.opcodeIndex = _code(file, _ELU)
            operator.builtinOptionsType = schema.BuiltinOptions.NONE
            operator.builtinOptions = None
    _drop_unused_codes(file)


def _stands_in(file: schema.ModelT, operator: schema.OperatorT) -> bool:
    if _kind(file, operator) != _LEAKY or operator.builtinOptions is None:
        return False
    return bool(np.float32(operator.builtinOptions.alpha) == _STANDING)


def _operators(file: schema.ModelT) -> list[schema.OperatorT]:
    return [operator for graph in file.subgraphs for operator in graph.operators or ()]


def _kind(file: schema.ModelT, operator: schema.OperatorT) -> int:
    return int(file.operatorCodes[operator.opcodeIndex].builtinCode)


def _code(file: schema.ModelT, kind: int) -> int:
    """Return the place of a kind's code, which is added if the file has none."""
    for place, code in enumerate(file.operatorCodes):
        if code.builtinCode == kind:
            return place
    file.operatorCodes.append(
        schema.OperatorCodeT(deprecatedBuiltinCode=kind, builtinCode=kind, version=1)
    )
    return len(file.operatorCodes) - 1


def _drop_unused_codes(file: schema.ModelT) -> None:
    used = sorted({operator.opcodeIndex for operator in _operators(file)})
    file.operatorCodes = [file.operatorCodes[place] for place in used]
    for operator in _operators(file):
        operator.opcodeIndex = used.index(operator.opcodeIndex)
