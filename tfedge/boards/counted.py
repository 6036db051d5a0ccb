"""Run on the emulated board: call .tflite files so that the plugin counts each call.

    python counted.py CALLS MOST_CALLS WARMING_FILE FILE...

`count_instructions.c` writes a line on stderr at each getsid(); `tfedge.boards.counting` reads
them.  It imports what a board has, and nothing of tfedge.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import numpy as np

WARMING_CALLS = 50
"""Python rewrites functions in their first calls to make them faster: the runtime's, too."""


SECONDS = 0.5
"""How long a file is called, between the least and the most calls."""


def main(calls: int, most: int, files: list[str]) -> None:
    """Call each file's model on the arrays in the .npz of its name, from `calls` to `most` times.

    The first is any small model, whose counts are of no account: it only runs Python warm.
    """
    from ai_edge_litert.interpreter import Interpreter

    between(lambda: None, WARMING_CALLS, WARMING_CALLS)
    for number, file in enumerate(files):
        interpreter = Interpreter(model_path=file, num_threads=1)
        interpreter.allocate_tensors()
        with np.load(file + ".npz") as inputs:
            for detail, name in zip(interpreter.get_input_details(), inputs.files, strict=True):
                interpreter.set_tensor(detail["index"], inputs[name])
        sys.stderr.write("file\n")
        if number:
            between(interpreter.invoke, calls, most)
        else:
            between(interpreter.invoke, WARMING_CALLS, WARMING_CALLS)


def between(call: Callable[[], object], calls: int, most: int) -> None:
    """Make the plugin speak before and after every call."""
    speak = os.getsid
    end = time.monotonic() + SECONDS
    for number in range(most):
        speak(0)
        call()
        speak(0)
        if number + 1 >= calls and time.monotonic() > end:
            break


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
