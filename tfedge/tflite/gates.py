"""What a converted file must be before anybody gets it."""

from __future__ import annotations

from tfedge.errors import UserError
from tfedge.tflite.facts import Facts, facts

INT8_STEPS = 255
TOLERANCE = 0.01


def check_int8(flatbuffer: bytes, limits: tuple[float, float], where: object) -> None:
    """Refuse a .tflite that is not int8 through and through.

    The converter leaves an operator in float, asks for TensorFlow's own, or takes another range for
    the input, and says nothing; on a board that is slow, does not load, or is wrong.

    Args:
      limits: Least and largest value of a normalised input.  The input's quantisation must cover
        just these; zero itself has to be exact, which moves the ends by up to half a step.
    """
    found = facts(flatbuffer, where)
    problems = [*_operators(found), *_tensors(found), *_input(found, limits)]
    if problems:
        fix = "replace the layers that these belong to; a convolution, ReLU, pooling or Add will do"
        raise UserError(where, "; ".join(problems), fix)


def _operators(found: Facts) -> list[str]:
    if not found.custom_operators:
        return []
    return [f"needs operators that no board has: {', '.join(found.custom_operators)}"]


def _tensors(found: Facts) -> list[str]:
    problems = []
    if found.float_tensors:
        problems.append(f"stays float in {', '.join(found.float_tensors[:5])}")
    ends = {tensor.dtype for tensor in (*found.inputs, *found.outputs)}
    if ends != {"int8"}:
        problems.append(f"takes or gives {', '.join(sorted(ends))} instead of int8")
    return problems


def _input(found: Facts, limits: tuple[float, float]) -> list[str]:
    (given,) = found.inputs
    low, high = limits
    span = high - low
    if not given.scales or abs(given.scales[0] * INT8_STEPS - span) > TOLERANCE * span:
        return [f"its input covers another range than {low:g} to {high:g}"]
    return []
