"""Compare tfedge's training loop with plain `keras.Model.fit` from arrays in memory.

    python benchmarks/training_speed.py FOLDER [--rounds 3] [--images 10000]

FOLDER holds train/<class>/*.jpg and test/<class>/*.jpg of 32 x 32 pixels.  The same ResNet-8 of
width 16, batch 128, no augmentation on either side: what is compared is the loop, its data path and
its checkpoints.  Rounds alternate, so that whatever else the machine does meets both; each round
times a whole epoch with its evaluation on the tune split.  Prints one line and a JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from models.resnet import resnet8
from tfedge.data.dataset import Data, Split
from tfedge.networks.backend import keras, seed_everything
from tfedge.plan import sources
from tfedge.progress import Silent
from tfedge.training.course import Course
from tfedge.training.fitting import Session, fit

BATCH = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000)
    args = parser.parse_args()
    table = {"use": "folder", "path": str(args.folder.resolve()), "size": [32, 32]}
    seed_everything(0)
    with tempfile.TemporaryDirectory() as cache:
        data = sources.read(table, "[data]", Path()).open(Path(cache), Silent())
        data = first_inputs(data, args.images)
        seconds = {"tfedge": [], "plain": []}
        ours, plain = _Ours(data), _Plain(data)
        for number in range(args.rounds + 1):
            for name, run in (("tfedge", ours), ("plain", plain)):
                started = time.perf_counter()
                run(number)
                if number:  # the first traces the graphs
                    seconds[name].append(time.perf_counter() - started)
    speed = {name: args.images / statistics.median(took) for name, took in seconds.items()}
    ratio = statistics.median(
        b / a for a, b in zip(seconds["tfedge"], seconds["plain"], strict=True)
    )
    print(
        f"tfedge {speed['tfedge']:,.0f} images/s, plain fit {speed['plain']:,.0f} images/s: "
        f"{100 * ratio:.1f} % (median of {args.rounds} pairs)"
    )
    print(json.dumps({"images_per_s": speed, "ratio": ratio, "seconds": seconds}))


class _Ours:
    """One more epoch at every call, as a resumed build does it."""

    def __init__(self, data):
        self.data, self.model = data, resnet8(data.shape, len(data.labels))
        self.scratch = Path(tempfile.mkdtemp())

    def __call__(self, number):
        session = Session("", self.data, (), 0, self.scratch, Silent())
        course = Course(epochs=number + 1, batch=BATCH, schedule="constant", keep="last")
        fit(self.model, course, session)


class _Plain:
    def __init__(self, data):
        self.x, self.tune = data.normalise(data.train.inputs), data.normalise(data.tune.inputs)
        self.y = np.eye(len(data.labels), dtype=np.float32)[data.train.classes]
        self.z = np.eye(len(data.labels), dtype=np.float32)[data.tune.classes]
        self.model = resnet8(data.shape, len(data.labels))

    def __call__(self, number):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        self.model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
        self.model.fit(
            self.x,
            self.y,
            batch_size=BATCH,
            validation_data=(self.tune, self.z),
            validation_batch_size=256,
            verbose=0,
        )


def first_inputs(data, count):
    """Return the data with so many inputs to train on, and a tenth of them to tune."""

    def cut(split, n):
        order = np.sort(np.random.default_rng(0).permutation(len(split.classes))[:n])
        return Split(split.inputs[order], split.classes[order])

    train, tune = cut(data.train, count), cut(data.tune, count // 10)
    return Data(train, tune, data.test, data.labels, data.kind, data.mean, data.std)


if __name__ == "__main__":
    main()
