"""Compare evaluating through device/infer.py with the bare `invoke` calls.

    python benchmarks/evaluation_overhead.py MODEL.tflite [--inputs 5000] [--rounds 5]

Random inputs of the model's own shape, one thread.  Rounds alternate: all inputs through tfedge's
evaluation loop, loading included, then as many bare `invoke` calls of ai-edge-litert.
Prints one line and a JSON object.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from tfedge import paths
from tfedge.data.dataset import Split
from tfedge.progress import Silent
from tfedge.tflite.evaluation import evaluate


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = paths.runner().Classifier(str(args.model), threads=1)
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (args.inputs, *model.shape)).astype(np.uint8)
    if model.card["input"]["kind"] == "array":
        inputs = rng.normal(size=inputs.shape).astype(np.float32)
    split = Split(inputs, np.arange(args.inputs) % len(model.labels))
    from ai_edge_litert.interpreter import Interpreter

    bare = Interpreter(str(args.model), num_threads=1)
    bare.allocate_tensors()
    seconds = {"evaluation": [], "bare": []}
    for _ in range(args.rounds):
        started = time.perf_counter()
        evaluate(args.model, split, tuple(model.labels), "test", Silent())
        seconds["evaluation"].append(time.perf_counter() - started)
        started = time.perf_counter()
        for _ in range(args.inputs):
            bare.invoke()
        seconds["bare"].append(time.perf_counter() - started)
    ratio = statistics.median(
        a / b for a, b in zip(seconds["evaluation"], seconds["bare"], strict=True)
    )
    each = {name: 1e6 * statistics.median(took) / args.inputs for name, took in seconds.items()}
    print(
        f"evaluation {each['evaluation']:.1f} us an input, bare invoke {each['bare']:.1f} us: "
        f"{ratio:.2f} times (median of {args.rounds} pairs)"
    )
    print(json.dumps({"us_per_input": each, "ratio": ratio, "seconds": seconds}))


if __name__ == "__main__":
    main()
