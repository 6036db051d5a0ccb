"""Run the stages of a staged .tflite on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfedge.errors import CheckError
from tfedge.progress import quietly
from tfedge.tflite.container import split
from tfedge.tflite.running import quantised
from tfedge.tflite.staging import INPUTS, LOGITS, Stage, stages


@dataclass(frozen=True)
class Answers:
    """What each exit of a staged file answers.

    Attributes:
      logits: One int8 [count, classes] an exit, the earliest first, as the runtime gave them.
      quantisation: The scale and zero point of each.
    """

    logits: tuple[np.ndarray, ...]
    quantisation: tuple[tuple[float, int], ...]


def stage_outputs(
    content: bytes, inputs: Iterable[np.ndarray], tell: Callable[[int], None] = lambda _: None
) -> Answers:
    """Run every stage of a staged file on every input, with the runtime's fastest kernels.

    Args:
      content: From `staging.staged` or `staging.cascade`, with or without a card.
      inputs: Float32, normalised, one after the other, without the batch.
      tell: Called with how many are done, now and then.
    """
    flatbuffer, _ = split(content)
    known = stages(flatbuffer)
    runners = _runners(flatbuffer, known)
    detail = runners[0].get_input_details()[INPUTS]
    rows: list[list[np.ndarray]] = [[] for _ in known]
    for number, x in enumerate(inputs):
        answers = _one(runners, known, quantised(x[None], detail))
        for row, logits in zip(rows, answers, strict=True):
            row.append(logits)
        if not number % 100:
            tell(number)
    return Answers(
        tuple(np.concatenate(row) for row in rows),
        tuple((stage.scale, stage.zero_point) for stage in known),
    )


def check_stages(content: bytes, inputs: np.ndarray, where: object) -> None:
    """Hold the way through all stages to the whole network's answer, bit for bit.

    Args:
      content: As `stage_outputs` takes it.
      inputs: Float32 [count, ...], normalised.

    Raises:
      CheckError: They differ: the runtime computes a part in another way than the whole.
    """
    flatbuffer, _ = split(content)
    with quietly():
        whole = Interpreter(model_content=flatbuffer, num_threads=1)
        whole.allocate_tensors()
    (given,), (made,) = whole.get_input_details(), whole.get_output_details()
    last = stage_outputs(flatbuffer, inputs).logits[-1]
    for number, x in enumerate(inputs):
        whole.reset_all_variables()
        whole.set_tensor(given["index"], quantised(x[None], given))
        whole.invoke()
        if not np.array_equal(whole.get_tensor(made["index"])[0], last[number]):
            problem = f"input {number}: the stages answer otherwise than the whole network"
            raise CheckError(where, problem, "convert it without exits, and tell tfedge's authors")


def _runners(flatbuffer: bytes, known: tuple[Stage, ...]) -> list[Any]:
    # A signature's runner holds on to the interpreter's memory: the latter's own invoke() would
    # raise, so whatever runs stages runs them by their signatures alone.
    with quietly():
        interpreter = Interpreter(model_content=flatbuffer, num_threads=1)
        return [interpreter.get_signature_runner(stage.name) for stage in known]


def _one(runners: list[Any], known: tuple[Stage, ...], tensor: np.ndarray) -> list[np.ndarray]:
    answers, held = [], {INPUTS: tensor}
    for runner, stage in zip(runners, known, strict=True):
        made = runner(**{name: held[name] for name in stage.inputs})
        answers.append(made.pop(LOGITS))
        held = {INPUTS: tensor, **made}
    return answers
