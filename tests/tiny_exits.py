"""Make a small staged .tflite of three exits in milliseconds, card and all, without TensorFlow."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tiny_board import interpreted, pixels
from tiny_conv import G, Op, T, model_of
from tiny_model import card_for, golden_file, with_card

from tfedge.tflite import staging

SHAPE, CLASSES, CHANNELS = (4, 4, 3), 3, 4
SCALES = ((0.05, 3), (0.06, -7), (0.08, 0))
COSTS = (0.3, 0.6, 1.0)


def exits_model(seed: int = 0) -> bytes:
    """Return a flatbuffer of conv 2x2 by 2, and two of 1x1, each with a dense layer behind it.

    It is staged: its first graph gives the last of the three answers.
    """
    rng = np.random.default_rng(seed)
    tensors = [T("image", "int8", (1, *SHAPE), None, (1 / 255,), (-128,))]
    operators, answers, image = [], [], 0

    def add(tensor: T) -> int:
        tensors.append(tensor)
        return len(tensors) - 1

    def weights(name: str, shape: tuple[int, ...], scale: float) -> int:
        data = rng.integers(-127, 128, shape, dtype=np.int8)
        return add(T(name, "int8", shape, data, (scale,), (0,)))

    def bias(name: str, count: int, scale: float) -> int:
        return add(T(name, "int32", (count,), np.zeros(count, np.int32), (scale,), (0,)))

    dims = add(T("dims", "int32", (2,), np.int32([1, 4 * CHANNELS])))
    last, step_of, channels = image, 1 / 255, SHAPE[-1]
    for number, logits in enumerate(SCALES):
        side, made = (2, 0.004) if number == 0 else (1, 0.004)
        kernel = weights(f"kernel_{number}", (CHANNELS, side, side, channels), 0.004)
        options = schema.Conv2DOptionsT(padding=schema.Padding.VALID, strideW=side, strideH=side)
        options.dilationWFactor = options.dilationHFactor = 1
        features = add(T(f"f_{number}", "int8", (1, 2, 2, CHANNELS), None, (made,), (0,)))
        own = bias(f"bias_{number}", CHANNELS, step_of * 0.004)
        operators.append(Op("CONV_2D", (last, kernel, own), (features,), 3, options))
        flat = add(T(f"flat_{number}", "int8", (1, 4 * CHANNELS), None, (made,), (0,)))
        shape = schema.ReshapeOptionsT(newShape=[1, 4 * CHANNELS])
        operators.append(Op("RESHAPE", (features, dims), (flat,), 1, shape))
        dense = weights(f"dense_{number}", (CLASSES, 4 * CHANNELS), 0.012)
        own = bias(f"dense_bias_{number}", CLASSES, made * 0.012)
        answer = add(T(f"logits_{number}", "int8", (1, CLASSES), None, *[(x,) for x in logits]))
        full = schema.FullyConnectedOptionsT()
        operators.append(Op("FULLY_CONNECTED", (flat, dense, own), (answer,), 4, full))
        answers.append(answer)
        last, step_of, channels = features, made, CHANNELS
    whole = G("main", tuple(tensors), tuple(operators), (image,), tuple(answers))
    return staging.staged(model_of(whole))


def exits_card(flatbuffer: bytes, never: float = 2.0, always: float = -1000.0) -> dict[str, Any]:
    """Return its card, with operating points of efforts 0, 0.5, 0.75 and 1."""
    card = card_for(flatbuffer, SHAPE, CLASSES)
    thresholds = ((always, always), (0.85, 0.64), (0.9, 0.72), (never, never))
    card["exits"] = {
        "signatures": ["exit_0", "exit_1", "exit_2"],
        "features": [["features_0"], ["features_0"]],
        "measure": "confidence",
        "temperatures": [1.0, 1.2, 1.5],
        "logits": [{"scale": scale, "zero": zero} for scale, zero in SCALES],
        "points": [
            {"effort": effort, "thresholds": list(each), "mean_cost": cost}
            for effort, each, cost in zip(
                (0, 0.5, 0.75, 1), thresholds, (0.3, 0.5, 0.8, 1), strict=True
            )
        ],
        "chosen": 1,
        "promise": {"max_drop": 0.01, "confidence": 0.95, "split": "tune", "inputs": 100},
    }
    return card


def write_exits(folder: Path, *, change=None, content: bytes = b"", output_off: int = 0) -> Path:
    """Write such a model with golden vectors; `change` may alter its card."""
    flatbuffer = content or exits_model()
    inputs = np.stack([pixels(seed, SHAPE) for seed in range(4)])
    tensors = (inputs.astype(int) - 128).astype(np.int8)[:, None]
    outputs = np.stack([interpreted(flatbuffer, tensor) for tensor in tensors])
    outputs[1, 0] += output_off
    card = copy.deepcopy(exits_card(flatbuffer))
    hashes = [hashlib.sha256(tensor.tobytes()).hexdigest() for tensor in tensors]
    card["golden"] = {"count": len(inputs), "tensors": hashes}
    if change:
        change(card)
    file = folder / "exits.tflite"
    file.write_bytes(with_card(flatbuffer, card, {"golden.npz": golden_file(inputs, outputs)}))
    return file
