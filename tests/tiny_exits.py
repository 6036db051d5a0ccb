"""Make a small staged .tflite of three exits in milliseconds, card and all, without TensorFlow."""

from __future__ import annotations

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
SCALES = ((0.01, 3), (0.012, -7), (0.02, 0))
_FEATURES = 0.01


def exits_model(
    seed: int = 0, shape: tuple[int, ...] = SHAPE, channels: int = 4, repeats: int = 1
) -> bytes:
    """Return a flatbuffer of conv 2x2 by 2, and of convs of 1x1, with a dense layer for each exit.

    It is staged: its first graph gives the last of the three answers.

    Args:
      channels: Of every convolution.
      repeats: Convolutions of a stage; but for the first of it they are of 3x3.
    """
    rng = np.random.default_rng(seed)
    tensors = [T("image", "int8", (1, *shape), None, (1 / 255,), (-128,))]
    operators, answers = [], []
    features = (1, shape[0] // 2, shape[1] // 2, channels)
    flat_size = int(np.prod(features))

    def add(tensor: T) -> int:
        tensors.append(tensor)
        return len(tensors) - 1

    def weighted(name: str, kernel: tuple[int, ...], fed: float) -> tuple[int, int]:
        """Add a kernel and a bias of zeros; the kernel keeps the size of what it is fed."""
        data, scale = rng.integers(-127, 128, kernel, dtype=np.int8), _scale(kernel)
        zeros = np.zeros(kernel[0], np.int32)
        return (
            add(T(name, "int8", kernel, data, (scale,), (0,))),
            add(T(f"{name}/bias", "int32", (kernel[0],), zeros, (fed * scale,), (0,))),
        )

    dims = add(T("dims", "int32", (2,), np.int32([1, flat_size])))
    last, fed, deep = 0, 1 / 255, shape[-1]
    for exit, logits in enumerate(SCALES):
        for turn in range(repeats):
            side, step = (3, 1) if turn else ((1, 1) if exit else (2, 2))
            name = f"kernel_{exit}" + ("" if turn == 0 else f"_{turn}")
            operands = weighted(name, (channels, side, side, deep), fed)
            made = add(T(f"f_{exit}_{turn}", "int8", features, None, (_FEATURES,), (0,)))
            options = schema.Conv2DOptionsT(padding=schema.Padding.SAME)
            options.strideW = options.strideH = step
            options.dilationWFactor = options.dilationHFactor = 1
            operators.append(Op("CONV_2D", (last, *operands), (made,), 3, options))
            last, fed, deep = made, _FEATURES, channels
        flat = add(T(f"flat_{exit}", "int8", (1, flat_size), None, (_FEATURES,), (0,)))
        reshape = schema.ReshapeOptionsT(newShape=[1, flat_size])
        operators.append(Op("RESHAPE", (last, dims), (flat,), 1, reshape))
        operands = weighted(f"dense_{exit}", (CLASSES, flat_size), _FEATURES)
        answers.append(add(T(f"logits_{exit}", "int8", (1, CLASSES), None, *_grid(logits))))
        full = schema.FullyConnectedOptionsT()
        operators.append(Op("FULLY_CONNECTED", (flat, *operands), (answers[-1],), 4, full))
    return staging.staged(
        model_of(G("main", tuple(tensors), tuple(operators), (0,), tuple(answers)))
    )


def _scale(kernel: tuple[int, ...]) -> float:
    return float(1 / (73 * np.sqrt(np.prod(kernel[1:]))))


def _grid(logits: tuple[float, int]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    return logits[:1], logits[1:]


def exits_card(
    flatbuffer: bytes,
    shape: tuple[int, ...] = SHAPE,
    some: tuple[float, float] = (0.6, 0.58),
    few: tuple[float, float] = (0.66, 0.62),
) -> dict[str, Any]:
    """Return its card, with operating points of efforts 0, 0.5, 0.75 and 1.

    Args:
      some, few: The thresholds of the two in the middle.
    """
    card = card_for(flatbuffer, shape, CLASSES)
    thresholds = ((-1000.0, -1000.0), some, few, (2.0, 2.0))
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


def write_exits(
    folder: Path, *, change=None, content: bytes = b"", shape: tuple[int, ...] = SHAPE
) -> Path:
    """Write such a model with golden vectors; `change` may alter its card."""
    flatbuffer = content or exits_model()
    inputs = np.stack([pixels(seed, shape) for seed in range(4)])
    tensors = (inputs.astype(int) - 128).astype(np.int8)[:, None]
    outputs = np.stack([interpreted(flatbuffer, tensor) for tensor in tensors])
    card = exits_card(flatbuffer, shape)
    hashes = [hashlib.sha256(tensor.tobytes()).hexdigest() for tensor in tensors]
    card["golden"] = {"count": len(inputs), "tensors": hashes}
    if change:
        change(card)
    file = folder / "exits.tflite"
    file.write_bytes(with_card(flatbuffer, card, {"golden.npz": golden_file(inputs, outputs)}))
    return file
