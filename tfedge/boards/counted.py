"""Run on the emulated board: call .tflite files so that the plugin counts each call.

    python counted.py CALLS WARMING_FILE FILE...

`count_instructions.c` writes a line on stderr at each getsid(); `tfedge.boards.counting` reads
them.  It imports what a board has, and nothing of tfedge.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import numpy as np

WARMING_CALLS = 50
"""Python rewrites functions in their first calls to make them faster: the runtime's, too."""


def main(calls: int, files: list[str]) -> None:
    """Call each file's model `calls` times on the arrays in the .npz of its name.

    The first is any small model, whose counts are of no account: it only runs Python warm.
    """
    from ai_edge_litert.interpreter import Interpreter

    between(lambda: None, WARMING_CALLS)
    for number, file in enumerate(files):
        interpreter = Interpreter(model_path=file, num_threads=1)
        interpreter.allocate_tensors()
        with np.load(file + ".npz") as inputs:
            for detail, name in zip(interpreter.get_input_details(), inputs.files, strict=True):
                interpreter.set_tensor(detail["index"], inputs[name])
        sys.stderr.write("file\n")
        between(interpreter.invoke, calls if number else WARMING_CALLS)


def between(call: Callable[[], object], calls: int) -> None:
    """Make the plugin speak before and after every call."""
    speak = os.getsid
    for _ in range(calls):
        speak(0)
        call()
        speak(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
