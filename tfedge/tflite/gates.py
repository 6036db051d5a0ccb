"""What a converted file must be before anybody gets it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Sequence

import numpy as np

from tfedge.errors import UserError
from tfedge.tflite import names
from tfedge.tflite.facts import Facts, facts, used
from tfedge.tflite.graph import Tensor
from tfedge.tflite.names import Layers

ENDS = {
    "int8": "int8",
    "int16x8": "int16",
    "dynamic": "float32",
    "float16": "float32",
    "float32": "float32",
}
"""What a form takes and gives; the first two hold nothing in float, either."""

WIDER = 0.01
"""By how much the input's range may be wider than it must be: zero is put on the grid."""

_NARROWER = 1e-4  # as much as float32 may round
_SHOWN = 5


def check(
    flatbuffer: bytes,
    form: str,
    limits: tuple[float, float],
    where: object,
    layers: Layers = (),
    kept: Collection[str] = (),
) -> None:
    """Refuse a .tflite that is not what its form promises.

    The converter leaves an operator in float, asks for TensorFlow's own, or takes another range for
    the input, and says nothing; on a board that is slow, does not load, or is wrong.

    Args:
      form: One of `ENDS`.  In ``int8`` and ``int16x8`` no tensor is float, and input and output,
        those of every signature too, are int8 or int16; the others take and give float32.  None
        has an operator that plain runtimes lack.
      limits: Least and largest value of a normalised input.  An integer input must cover these, and
        zero, by up to half a step and `WIDER` more.
      layers: The network's, see `names.of_network`; a message then names the one at fault.
      kept: Layers that were kept out of int8 on purpose, in float or int16, see `mixing`.

    Raises:
      UserError: Something is otherwise; it names all that is.
    """
    found = facts(flatbuffer, where)
    problems = _operators(found, layers)
    if ENDS[form] != "float32":
        problems += [*_tensors(found, layers, kept), *_input(found, form, limits)]
    problems += _ends(found, form)
    if problems:
        raise UserError(where, "; ".join(text for text, _ in problems), _fix(problems, form))


_REPLACE = "replace the layer by others; a convolution, ReLU, pooling or Add will do"
_CONVERT = "convert it again with tfedge, which sets both"

_Problem = tuple[str, str]


def check_runs(flatbuffer: bytes, form: str, where: object, untried: Sequence[str] = ()) -> None:
    """Refuse a .tflite over which the runtime dies, which some kernels do without a message.

    Args:
      untried: Settings that may help, as one writes them.

    Raises:
      UserError: It does not run.
    """
    why = why_not(flatbuffer)
    if why:
        problem = f"the runtime cannot run what the network became in {form}: {why}"
        wishes = [*untried, *(() if form == "int8" else ('form = "int8"',))]
        fix = f"write {' or '.join(wishes)}; or " if wishes else ""
        fix += "take out the layers that are no convolution or dense one"
        raise UserError(where, problem, fix)


def why_not(flatbuffer: bytes) -> str:
    """Say why the runtime does not run a .tflite; nothing if it does.

    It runs in a process of its own, on zeros.
    """
    code = (
        "import sys; from ai_edge_litert.interpreter import Interpreter;"
        "model = Interpreter(model_content=sys.stdin.buffer.read(), num_threads=1);"
        "model.allocate_tensors(); model.invoke()"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=flatbuffer, capture_output=True, check=False)
    if not done.returncode:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["without a word"]
    return lines[-1][:300]


def _fix(problems: list[_Problem], form: str) -> str:
    fixes = dict.fromkeys(fix for _, fix in problems)
    more = ', or write form = "float16" for a board that computes in float'
    return "; ".join(fix + (more if fix == _REPLACE and form in ("int8", "int16x8") else "")
                     for fix in fixes)  # fmt: skip


def _operators(found: Facts, layers: Layers) -> list[_Problem]:
    problems = []
    for subgraph in found.subgraphs:
        owners = names.of_operators(subgraph, layers)
        for operator, own in zip(subgraph.operators, owners, strict=True):
            if operator.custom:
                of = f", which {names.described(own[0], layers)} is made of" if own else ""
                text = f"needs operators that no board has: {operator.name}{of}"
                problems.append((text, "replace the layer by others of Keras's own"))
    return list(dict.fromkeys(problems))


def _tensors(found: Facts, layers: Layers, kept: Collection[str]) -> list[_Problem]:
    """Name the layers that compute in float; where none does, those that hand float numbers on."""
    at_fault: dict[str, None] = {}
    handed_on: dict[str, None] = {}
    for subgraph in found.subgraphs:
        owners = names.of_tensors(subgraph, layers)
        by_operator = names.of_operators(subgraph, layers)
        steps = list(zip(subgraph.operators, by_operator, strict=True))
        meant = {
            index
            for operator, own in steps
            if own and own[0] in kept
            for index in (*operator.inputs, *operator.outputs)
        }
        in_float = {
            index for index in used(subgraph) - meant if "float" in subgraph.tensors[index].dtype
        }
        for operator, own in steps:
            if operator.name not in names.SEAMS and in_float & {
                *operator.inputs,
                *operator.outputs,
            }:
                made = subgraph.tensors[operator.outputs[0]].name if operator.outputs else ""
                at_fault[names.described(own[0], layers) if own else made] = None
        for index in sorted(in_float):
            tensor, own = subgraph.tensors[index], owners[index]
            handed_on[names.described(own[0], layers) if own else tensor.name] = None
    if not handed_on:
        return []
    of = list(at_fault or handed_on)
    more = f" and {len(of) - _SHOWN} more" if len(of) > _SHOWN else ""
    return [(f"stays float in {', '.join(of[:_SHOWN])}{more}", _REPLACE)]


def _ends(found: Facts, form: str) -> list[_Problem]:
    tensors: list[Tensor] = [*found.inputs, *found.outputs]
    for signature in found.signatures:
        tensors += [*signature.inputs.values(), *signature.outputs.values()]
    kinds = {tensor.dtype for tensor in tensors}
    if kinds == {ENDS[form]}:
        return []
    return [(f"takes or gives {', '.join(sorted(kinds))} instead of {ENDS[form]}", _CONVERT)]


def _input(found: Facts, form: str, limits: tuple[float, float]) -> list[_Problem]:
    if len(found.inputs) != 1:
        return [(f"has {len(found.inputs)} inputs", "give a network with one")]
    (given,) = found.inputs
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    if form == "int16x8":  # symmetric: its zero point is 0
        high = max(-low, high)
        low = -high
    span = high - low
    if given.dtype == ENDS[form] and given.scales:
        bounds, scale, zero = np.iinfo(given.dtype), given.scales[0], given.zero_points[0]
        lowest = bounds.min + (form == "int16x8")
        slack = scale / 2 + _NARROWER * span
        covers = (lowest - zero) * scale <= low + slack and (
            bounds.max - zero
        ) * scale >= high - slack
        if covers and (bounds.max - lowest) * scale <= (1 + WIDER) * span:
            return []
    fix = "calibrate with inputs that are normalised as [data] says"
    return [(f"its input covers another range than {limits[0]:g} to {limits[1]:g}", fix)]
