"""Pythons for tests that stand for an engine's, and a float .tflite whose answers are known."""

import sys
from pathlib import Path

import numpy as np
from tiny_conv import G, Op, T, model_of

KERNEL = np.float32([[1, -2, 3, 0.5], [0.25, 1, -1, 2], [-3, 0.5, 1, 1]])
BIAS = np.float32([0.5, -1, 2])

_DIES_IN_A_TURN = """\
#!{python}
import json, sys
import numpy as np
print(json.dumps({{"version": "1"}}), flush=True)
left = {turns}
for line in sys.stdin:
    asked = json.loads(line)
    if "answer" in asked:
        np.save(asked["answer"], np.zeros((2, 1, {classes}), np.float32))
        print(json.dumps({{"done": True}}), flush=True)
    elif left:
        left -= 1
        print(json.dumps({{"seconds": [0.001]}}), flush=True)
    else:
        sys.exit("out of memory")
"""


def dense_model():
    """Return float32 [1, 4] -> dense -> [1, 3]: KERNEL @ x + BIAS."""
    from ai_edge_litert import schema_py_generated as schema

    tensors = (
        T("x", "float32", (1, 4)),
        T("kernel", "float32", (3, 4), KERNEL),
        T("bias", "float32", (3,), BIAS),
        T("y", "float32", (1, 3)),
    )
    dense = Op("FULLY_CONNECTED", (0, 1, 2), (3,), 1, schema.FullyConnectedOptionsT())
    return model_of(G("main", tensors, (dense,), (0,), (3,)))


def _program(file: Path, text: str) -> Path:
    file.write_text(text)
    file.chmod(0o755)
    return file


def bare_python(folder):
    """Write a Python that has numpy and nothing else."""
    only = folder / "only"
    only.mkdir()
    site = Path(np.__file__).parent.parent
    for name in ("numpy", "numpy.libs"):
        (only / name).symlink_to(site / name)
    start = f'#!/bin/sh\nPYTHONPATH="{only}" exec "{sys.executable}" -S "$@"\n'
    return _program(folder / "bare", start)


def crashing_python(folder):
    """Write a program that ends as a runtime with a bug does."""
    return _program(folder / "crashes", "#!/bin/sh\nkill -SEGV $$\n")


def tiring_python(folder, turns, classes=3):
    """Write a program that is an engine for some turns, and then ends."""
    text = _DIES_IN_A_TURN.format(python=sys.executable, turns=turns, classes=classes)
    return _program(folder / "tires", text)
