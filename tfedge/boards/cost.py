"""What one inference costs a Raspberry Pi, in Arm instructions, without the Pi."""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfedge.boards import counting, emulation, pi
from tfedge.boards.cache import cached
from tfedge.boards.counting import Model
from tfedge.progress import Progress, quietly
from tfedge.tflite.container import split
from tfedge.tflite.facts import facts
from tfedge.tflite.parts import part
from tfedge.tflite.staging import stage, stages

NEITHER = (
    "Neither is a Pi's clock.  The instructions come nearer: they are those of the kernels that the"
    " Pi itself runs, chosen for its processor, while host ms are other kernels on a processor with"
    " other strengths.  How many instructions a Pi does in a millisecond differs with what they do."
)
_HOST_RUNS = 200
_HOST_SECONDS = 2.0


@dataclass(frozen=True)
class Step:
    """An operator: its name, the tensor that it makes, and the instructions that it takes."""

    name: str
    makes: str
    instructions: int


@dataclass(frozen=True)
class Cost:
    """Arm instructions of one inference on one thread.

    Attributes:
      instructions: Of the whole.
      call: What a call costs beside its operators; 0 where it was not measured.
      steps: The operators, each counted in a model of its own; empty where that was not asked for.
    """

    board: str
    instructions: int
    call: int = 0
    steps: tuple[Step, ...] = ()

    @property
    def covered(self) -> float:
        """What the call and the operators add up to, as a share of the whole."""
        return (self.call + sum(step.instructions for step in self.steps)) / self.instructions


def costs(
    blob: bytes,
    boards: Sequence[str],
    where: object,
    progress: Progress,
    *,
    by_operator: bool = False,
) -> list[Cost]:
    """Count the instructions of one inference on each of `boards`.

    Args:
      blob: A .tflite with or without a card.
      boards: Of `pi.BOARDS`.
      where: What an error calls the file.
      by_operator: Count every operator as well.

    Raises:
      UserError: The file is no model, or what the counting needs is missing.
    """
    facts(blob, where)
    flatbuffer = split(blob)[0]
    models = [Model(flatbuffer, _some_input(flatbuffer))]
    models += _pieces(models[0], where) if by_operator else ()
    userland = emulation.userland(progress)
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda board: counting.instructions(userland, board, models), boards)
        counts = dict(zip(boards, found, strict=True))
    if not by_operator:
        return [Cost(board, whole) for board, (whole,) in counts.items()]
    return [_cost(board, of, flatbuffer, where) for board, of in counts.items()]


def counted_once(file: Path, board: str, progress: Progress) -> int:
    """Return the instructions of one inference of a .tflite, kept for other calls.

    Raises:
      UserError: As `costs` does.
    """
    flatbuffer = split(file.read_bytes())[0]

    def make(folder: Path) -> None:
        progress.say(f"{'targets':12} counts Arm instructions for {board}")
        (found,) = costs(flatbuffer, (board,), file, progress)
        (folder / "instructions").write_text(str(found.instructions))

    decides = {"model": hashlib.sha256(flatbuffer).hexdigest(), "board": board}
    decides |= {"runtime": importlib.metadata.version("ai-edge-litert")}
    return int((cached("cost", decides, make) / "instructions").read_text())


def stage_costs(
    blob: bytes, boards: Sequence[str], where: object, progress: Progress
) -> dict[str, tuple[int, list[int]]]:
    """Count the instructions of a file of stages on each of `boards`.

    Args:
      blob: With or without a card.
      boards: As in `costs`.
      where: What an error calls the file.

    Returns:
      By board: those of the whole network, and of each stage alone.

    Raises:
      UserError: As `costs` does.
    """
    if not boards:
        return {}
    count = len(stages(blob, where))
    files = [split(blob)[0], *(stage(blob, number, where) for number in range(count))]
    models = [Model(file, _some_input(file)) for file in files]
    userland = emulation.userland(progress)
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda board: counting.instructions(userland, board, models), boards)
        counts = list(found)
    return {board: (one[0], one[1:]) for board, one in zip(boards, counts, strict=True)}


def summary(blob: bytes, found: Sequence[Cost]) -> dict[str, Any]:
    """Return the costs beside this machine's milliseconds, as JSON takes them."""
    flatbuffer = split(blob)[0]
    return {
        **host(Model(flatbuffer, _some_input(flatbuffer))),
        "threads": 1,
        "boards": {
            cost.board: {
                "cpu": pi.BOARDS[cost.board].cpu,
                "instructions": cost.instructions,
                "call": cost.call,
                "operators": [vars(step) for step in cost.steps],
                "covered": round(cost.covered, 4),
            }
            for cost in found
        },
        "note": NEITHER,
    }


def host(model: Model) -> dict[str, Any]:
    """Return ``host_ms_p50``, the median time of a call on this machine, on one thread."""
    interpreter = _ran(model, num_threads=1)
    times: list[float] = []
    end = time.perf_counter() + _HOST_SECONDS
    while len(times) < _HOST_RUNS and (not times or time.perf_counter() < end):
        began = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - began)
    return {"host_ms_p50": round(1e3 * median(times), 4), "host_runs": len(times)}


def _pieces(whole: Model, where: object) -> list[Model]:
    """Return the two halves, then each operator alone; nothing of a model of one operator.

    They are fed what they read in the whole: an operator may be told a shape by another.
    """
    count = len(facts(whole.flatbuffer, where).subgraphs[0].operators)
    if count < 2:  # noqa: PLR2004 - one cannot be halved
        return []
    run = _ran(
        whole,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    ranges = [range(count // 2), range(count // 2, count)]
    ranges += [range(number, number + 1) for number in range(count)]
    parts = [part(whole.flatbuffer, operators) for operators in ranges]
    return [
        Model(one.flatbuffer, tuple(run.get_tensor(index) for index in one.inputs)) for one in parts
    ]


def _some_input(flatbuffer: bytes) -> tuple[np.ndarray, ...]:
    """Return random numbers for every input; kernels take the same way whatever they are."""
    random = np.random.default_rng(0)
    return tuple(
        random.random(detail["shape"]).astype(detail["dtype"])
        if np.dtype(detail["dtype"]).kind == "f"
        else random.integers(0, 127, detail["shape"]).astype(detail["dtype"])
        for detail in Interpreter(model_content=flatbuffer).get_input_details()
    )


def _ran(model: Model, **options: Any) -> Any:
    """Return an interpreter that has run once, on this machine."""
    with quietly():
        interpreter = Interpreter(model_content=model.flatbuffer, **options)
        interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), model.inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return interpreter


def _cost(board: str, counts: Sequence[int], flatbuffer: bytes, where: object) -> Cost:
    """Take from what each operator costs alone what a call costs without any.

    The halves together are the whole and one call more; so a call costs what they are more.
    """
    subgraph = facts(flatbuffer, where).subgraphs[0]
    whole, *pieces = counts
    call = sum(pieces[:2]) - whole if pieces else 0
    alone = pieces[2:] or [whole]
    steps = tuple(
        Step(one.name, subgraph.tensors[one.outputs[0]].name, max(count - call, 0))
        for one, count in zip(subgraph.operators, alone, strict=True)
    )
    return Cost(board, whole, call, steps)
