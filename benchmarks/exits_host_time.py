"""Time a file with exits through the board's runner, against its last exit alone.

    python benchmarks/exits_host_time.py MODEL.tflite FOLDER [--count 1000] [--effort E]

Pictures of a folder with a folder a class, evenly from all of it, are read first.  Each is then
answered in turn by the exits, at the effort that the card promises for unless another is asked for,
and by the whole network alone, `Classifier.classify` in both cases: what the runner adds is in.
Prints the mean of both, what is saved, and a JSON object.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from exits_on_boards import pictures

from tfedge import paths


def timed(model, x):
    began = time.perf_counter()
    model.classify(x)
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--effort", type=float)
    options = parser.parse_args()
    runner = paths.runner()
    inputs = pictures(options.model, options.folder, options.count)
    whole = runner.Classifier(str(options.model), threads=1)
    early = runner._beside("exits").Staged(
        runner.Classifier(str(options.model), threads=1), options.effort
    )
    for x in inputs[:50]:
        timed(whole, x), timed(early, x)
    both = 1e3 * np.array([(timed(early, x), timed(whole, x)) for x in inputs])
    mine, alone = both.mean(axis=0)
    saved = 1 - mine / alone
    print(f"{len(inputs):,} pictures: {mine:.4f} ms with exits, {alone:.4f} ms without,"
          f" {saved:.1%} saved")  # fmt: skip
    print(json.dumps({"count": len(inputs), "exits_ms": mine, "whole_ms": alone, "saved": saved}))


if __name__ == "__main__":
    main()
