"""Time `narrow` without its training, on a MobileNetV2 for 96 x 96 pixels.

    python benchmarks/narrowing_time.py [--score taylor] [--remove 0.5] [--samples 2000]

The network is that of tf_keras.applications, untrained, and the inputs are noise: neither changes
the time.  Counted is what the stage does from the network in memory to the narrower one in memory,
TensorFlow's import not.
"""

import argparse
import json
import time

import numpy as np

from tfedge.networks.backend import keras, seed_everything
from tfedge.networks.narrowing.cutting import cost_of, cut
from tfedge.networks.narrowing.scores import SCORES
from tfedge.networks.narrowing.wishes import Wishes

SHAPE = (96, 96, 3)
CLASSES = 10
BATCH = 32


def batches(count):
    """Yield noise, a batch at a time, with labels by chance."""
    rng = np.random.default_rng(0)
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, size)]
        yield rng.normal(size=(size, *SHAPE)).astype(np.float32), labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--score", default="taylor", choices=SCORES)
    parser.add_argument("--remove", type=float, default=0.5, help="share of the MACs")
    parser.add_argument("--samples", type=int, default=2000, help="inputs that taylor looks at")
    asked = parser.parse_args()
    seed_everything(0)
    network = keras.applications.MobileNetV2(weights=None, input_shape=SHAPE, classes=CLASSES)
    wishes = Wishes(remove=asked.remove, score=asked.score)
    started = time.perf_counter()
    full = cost_of(network, wishes, float)
    made = cut(network, wishes, (1 - asked.remove) * full, batches(asked.samples), float)
    seconds = time.perf_counter() - started
    left = cost_of(made.network, wishes, float) / full
    print(f"MobileNetV2 at 96 x 96, {asked.score}: {seconds:.1f} s; MACs left {100 * left:.1f} %")
    print(json.dumps({"seconds": round(seconds, 2), "macs_left": left, **vars(asked)}))


if __name__ == "__main__":
    main()
