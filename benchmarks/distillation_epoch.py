"""Compare an epoch of distillation with an epoch of plain training of the same student.

    python benchmarks/distillation_epoch.py FOLDER [--images 40000] [--epochs 30] [--views 4]
        [--precision bfloat16]

FOLDER holds train/<class>/*.jpg and test/<class>/*.jpg of 32 x 32 pixels.  The student is ResNet-8
of width 16, the teacher an untrained one of width 48, which takes as long as a trained one; batch
128, flip and crop.  Three trainings take turns, an epoch each, so that whatever else the machine
does meets all of them: plain; taught, with the teacher's answers kept for some views; and taught by
a teacher that runs at every step.  An epoch is timed with all that belongs to it, its evaluation on
the tune split and its checkpoint, too.  The first traces the graphs, and is counted as long as the
second.  A ratio is that of the sums over all epochs.  Prints a table and a JSON object.
"""

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

from training_speed import first_inputs

from models.resnet import resnet8
from tfedge.networks.backend import keras, seed_everything
from tfedge.networks.precision import in_precision
from tfedge.plan import sources
from tfedge.progress import Silent
from tfedge.training.course import Course
from tfedge.training.distillation import Hints, taught
from tfedge.training.fitting import Session, fit
from tfedge.training.teaching import Teaching

BATCH = 128
AUGMENT = ("flip", "crop")


def main():
    args = _arguments()
    seed_everything(0)
    table = {"use": "folder", "path": str(args.folder.resolve()), "size": [32, 32]}
    with tempfile.TemporaryDirectory() as cache:
        data = sources.read(table, "[data]", Path()).open(Path(cache), Silent())
        data = first_inputs(data, args.images)
        networks = _networks(data, args, Path(cache) / "lessons")
        turns = _Turns(networks, args.epochs)
        threads = [
            threading.Thread(target=_train, args=(name, model, turns, data, Path(cache) / name))
            for name, model in networks.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    _show(turns.seconds, args)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--views", type=int, default=Teaching().views)
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    args = parser.parse_args()
    if min(args.epochs, args.views) < 2:
        parser.error("--epochs and --views must be 2 at least: the first epoch is not timed")
    return args


def _networks(data, args, lessons):
    def network(width):
        return in_precision(resnet8(data.shape, len(data.labels), width=width), args.precision)

    def pupil(views):
        teaching = Teaching(teacher="t", views=views, teacher_precision="float32")
        return taught(network(16), network(48), teaching, Hints(), lessons)

    return {"plain": network(16), "kept": pupil(args.views), "live": pupil(0)}


def _train(name, model, turns, data, scratch):
    course = Course(epochs=turns.epochs, batch=BATCH, keep="last")
    session = Session(name, data, AUGMENT, 0, scratch, Silent())
    fit(model, course, session, callbacks=[_Turn(turns, name)])


class _Turns:
    """Whose epoch it is, and how long each took."""

    def __init__(self, names, epochs):
        self.names, self.epochs = list(names), epochs
        self.seconds = {name: [] for name in names}
        self.taken = 0
        self.changed = threading.Condition()

    def wait(self, name):
        with self.changed:
            self.changed.wait_for(lambda: self.names[self.taken % len(self.names)] == name)

    def end(self, name, seconds):
        with self.changed:
            self.seconds[name].append(seconds)
            self.taken += 1
            self.changed.notify_all()


class _Turn(keras.callbacks.Callback):
    """Holds a training until it is its turn, from the beginning of an epoch to that of the next."""

    def __init__(self, turns, name):
        super().__init__()
        self.turns, self.name, self.started = turns, name, None

    def on_epoch_begin(self, epoch, logs=None):
        self._end()
        self.turns.wait(self.name)
        self.started = time.perf_counter()

    def on_train_end(self, logs=None):
        self._end()

    def _end(self):
        if self.started is not None:
            self.turns.end(self.name, time.perf_counter() - self.started)


def _show(seconds, args):
    counted = {name: [took[1], *took[1:]] for name, took in seconds.items()}
    plain = sum(counted["plain"])
    print(f"{args.images:,} images, {args.epochs} epochs, {args.views} views, {args.precision}")
    print(f"{'training':10} {'s an epoch':>10} {'first views':>12} {'after':>8} {'of plain':>9}")
    ratios = {}
    for name, took in counted.items():
        ratios[name] = sum(took) / plain
        first, after = took[: args.views], took[args.views :]
        ends = [f"{sum(part) / len(part):.2f}" if part else "-" for part in (first, after)]
        mean = sum(took) / len(took)
        print(f"{name:10} {mean:10.2f} {ends[0]:>12} {ends[1]:>8} {ratios[name]:9.3f}")
    print(json.dumps({**vars(args), "folder": str(args.folder), "ratios": ratios, "s": seconds}))


if __name__ == "__main__":
    main()
