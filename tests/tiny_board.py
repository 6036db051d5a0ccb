"""What the tests of the board's script share: small models with cards, inputs, the process."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tiny_model import card_for, golden_file, tiny_model, with_card

DEVICE = Path(__file__).parent.parent / "device"
SCRIPT = DEVICE / "infer.py"


def write(folder: Path, shape=(4, 4, 3), classes=3, *, files=None, change=None, **scale) -> Path:
    """Write a tiny model with its card, which `change` may alter, and return its path."""
    flatbuffer = tiny_model(shape, classes, **scale)
    card = card_for(flatbuffer, shape, classes)
    if change:
        change(card)
    file = folder / "model.tflite"
    file.write_bytes(with_card(flatbuffer, card, files))
    return file


def interpreted(flatbuffer: bytes, tensor: np.ndarray) -> np.ndarray:
    """Run a model with the runtime alone: the tests' own road."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=flatbuffer)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def pixels(seed=0, shape=(4, 4, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_golden(folder: Path, *, tensor_off=0, output_off=0) -> Path:
    """Write a model with two golden vectors, right but for what is said to be off."""
    inputs, flatbuffer = np.stack([pixels(1), pixels(2)]), tiny_model()
    tensors = (inputs.astype(int) - 128).astype(np.int8)[:, None]
    outputs = np.stack([interpreted(flatbuffer, tensor) for tensor in tensors])
    outputs[1, 0] += output_off
    hashes = [hashlib.sha256((tensor + tensor_off).tobytes()).hexdigest() for tensor in tensors]

    def change(card):
        card["golden"] = {"count": 2, "tensors": hashes}

    return write(folder, files={"golden.npz": golden_file(inputs, outputs)}, change=change)


def script(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@contextlib.contextmanager
def running(*arguments, **options) -> Iterator[subprocess.Popen]:
    """Start the script with pipes to all three ends, and end it if the test does not."""
    command = [sys.executable, SCRIPT, *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **{**pipes, "text": True, **options}) as process:
        try:
            yield process
        finally:
            process.kill()


def messages(err: str) -> list[str]:
    """Return what the script wrote to stderr, without what the runtime did."""
    return [line for line in err.splitlines() if not line.startswith("INFO:")]
