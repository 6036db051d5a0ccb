"""Run in a process of its own: time .tflite files in turn, and read how large their arenas are.

    python timed.py ROUNDS FILE...

It writes a JSON object a file on stdout, in their order; `tfedge.boards.host` reads them.  In 0
rounds nothing is called and only the arenas are read.  It imports nothing of tfedge, so that
TensorFlow's threads and memory are not there to disturb.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

BLOCK_S = 0.01
"""How long one file is called in a round: long enough to have its weights in the caches again."""
MOST_CALLS = 50
LEAST_ROUNDS = 3
SECONDS = 2.0
"""How long a file is called in all, unless the least rounds take longer."""
CALL = "call"
_ALIGNMENT = 64


def main(rounds: int, files: Sequence[str]) -> None:
    """Print what is found of each file: its figures, or why there are none as ``failed``."""
    found = [opened(file, rounds) for file in files]
    for figures, times in timed([figures for figures in found if CALL in figures], rounds):
        figures["host_ms_p50"] = float(f"{1e3 * median(times):.4g}")
        figures["host_calls"] = len(times)
    for figures in found:
        figures.pop(CALL, None)
        sys.stdout.write(json.dumps(figures) + "\n")


def opened(file: str, rounds: int) -> dict[str, Any]:
    """Return ``arena_measured_bytes`` and what calls the file, or why the runtime cannot."""
    try:
        return {"arena_measured_bytes": arena(file)} | ({CALL: call(file)} if rounds else {})
    except (ValueError, RuntimeError) as error:
        return {"failed": str(error).strip().splitlines()[0]}


def timed(
    files: Sequence[dict[str, Any]], rounds: int
) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Yield each file with the seconds that its calls took."""
    yield from zip(files, interleaved([one[CALL] for one in files], rounds), strict=True)


def interleaved(calls: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Call all in turn, `rounds` times, every other round backwards; return each one's seconds.

    What else the machine does then slows all alike.  In a round each is called for `BLOCK_S`; the
    first of these calls is not counted: it finds the caches full of another's weights.
    """
    sizes = [block(one) for one in calls]
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + SECONDS * len(calls)
    for number in range(rounds):
        if number >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        for one in range(len(calls))[:: 1 if number % 2 else -1]:
            calls[one]()
            times[one] += [seconds(calls[one]) for _ in range(sizes[one])]
    return times


def block(run: Callable[[], object]) -> int:
    """Return how many calls fit into a block, from 1 to `MOST_CALLS`."""
    run()
    once = max(seconds(run), BLOCK_S / MOST_CALLS)
    return max(1, int(BLOCK_S / once))


def seconds(run: Callable[[], object]) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def call(file: str) -> Callable[[], object]:
    """Return what runs a file once on one thread, as a board would, on the same random input."""
    interpreter = Interpreter(model_path=file, num_threads=1)
    interpreter.allocate_tensors()
    random = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        shape, kind = detail["shape"], np.dtype(detail["dtype"])
        # Of wider integers a network looks something up, and 0 is there in every table.
        most = 127 if kind.itemsize == 1 else 1
        given = random.random(shape) if kind.kind == "f" else random.integers(0, most, shape)
        interpreter.set_tensor(detail["index"], given.astype(kind))
    run: Callable[[], object] = interpreter.invoke
    run()
    return run


def arena(file: str) -> int:
    """Return the bytes of all memory that the runtime gave to what the first graph works out.

    They are those of TFLite's own kernels, with what these need for themselves; XNNPACK keeps its
    own memory and tells nobody.  The addresses of the tensors tell: those that share a place count
    once, those that lie in the file not at all.
    """
    content = Path(file).read_bytes()
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_content=content, num_threads=1, experimental_op_resolver_type=kernels
    )
    held = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    interpreter.allocate_tensors()
    spans = []
    for detail in interpreter.get_tensor_details():
        try:
            tensor = interpreter.tensor(detail["index"])()
        except ValueError:  # it has no memory: it is absent, or in no memory before a call
            continue
        start = tensor.__array_interface__["data"][0]
        if not held <= start < held + len(content):
            spans.append((start, start + tensor.nbytes))
    return covered(spans)


def covered(spans: Sequence[tuple[int, int]]) -> int:
    """Return how many bytes lie in at least one of the spans, each from a multiple of 64 to one."""
    count, top = 0, 0
    for start, last in sorted(spans):
        end = -(-last // _ALIGNMENT) * _ALIGNMENT
        count += max(0, end - max(start, top))
        top = max(top, end)
    return count


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
