"""Run stages on one and on two processors of this machine, in a process of its own.

How many processors TensorFlow sees is fixed once it has begun.  Prints a line of JSON a result.
"""

import dataclasses
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf
from conftest import REPO
from small_data import stripes
from small_jobs import folders, job

from tfedge.errors import UserError
from tfedge.plan.job import MODEL, Job
from tfedge.plan.refs import Ref
from tfedge.plan.settings import Options
from tfedge.plan.stages import Cluster, Distill, Exits, Narrow, Prune, Train
from tfedge.progress import Silent
from tfedge.training.course import Course
from tfedge.training.teaching import Teaching

TRAIN, TUNE = 124, 61
UNEVEN = "uneven"  # one input more: the last step of an epoch has 29, of which one gets 14
EPOCHS = 3
COURSE = Course(epochs=EPOCHS, batch=48, rate=1e-2, keep="last", class_weights={"rows": 2.0})
STACK = Ref.parse("models/small.py:stack", REPO)
SMALL = Options({"widths": (4, 8)})


def stages(place):
    live = Teaching(teacher="teacher", views=0)
    kept = Teaching(teacher="teacher", views=2)
    wishes = dataclasses.replace(
        Narrow.__dataclass_fields__["wishes"].default, remove=0.3, multiple=1, least=1
    )
    return {
        "train": Train(model=STACK, options=SMALL, course=COURSE),
        UNEVEN: Train(model=STACK, options=SMALL, course=COURSE),
        "dropout": Train(
            model=STACK, options=Options({"widths": (4, 8), "dropout": 0.3}), course=COURSE
        ),
        "bfloat16": Train(model=STACK, options=SMALL, course=COURSE, precision="bfloat16"),
        "distill": Distill(model=STACK, options=SMALL, teaching=live, course=COURSE),
        "lessons": Distill(model=STACK, options=SMALL, teaching=kept, course=COURSE),
        "prune": Prune(of="of", course=COURSE, teaching=kept),
        "cluster": Cluster(of="of", clusters=8, course=COURSE, teaching=live),
        "exits": Exits(of="of", count=1, course=COURSE, teaching=kept),
        "narrow": Narrow(of="of", wishes=wishes, course=_recovery()),
    }


def _recovery():
    kind = type(Narrow.__dataclass_fields__["course"].default)
    return kind(**dataclasses.asdict(COURSE))


class Listening(Silent):
    """Keeps what the bar was told."""

    def __init__(self):
        self.words = []

    @contextmanager
    def bar(self, label, total):
        yield lambda done, words, total=None: self.words.append(words)


def run(stage, strategy, inputs, out, count=TRAIN):
    """Return a stage's epochs, the network that it made, and the loss that the bar told last."""
    from tfedge.networks.saving import load_model

    stage = dataclasses.replace(stage, course=dataclasses.replace(stage.course, strategy=strategy))
    data, heard = stripes(train=count, tune=TUNE), Listening()
    given = dataclasses.replace(job(inputs, out), data=data, progress=heard)
    figures = stage.run(given)
    return figures["history"], load_model(out / MODEL), float(heard.words[-1].split()[1])


GRAPHS = ("train", "lessons")
"""Trained as a user's are; the others step by step: to trace graphs takes most of the time."""


def compared(name, stage, inputs, place):
    """Return both histories, the largest difference of weights, and what BatchNormalization is."""
    tf.config.run_functions_eagerly(name not in GRAPHS)
    found, made = [], []
    for strategy in ("one", "mirrored"):
        count = TRAIN + (name == UNEVEN)
        history, network, told = run(stage, strategy, inputs, place / f"{name}-{strategy}", count)
        found.append(history)
        made.append(network)
    pairs = zip(*(network.get_weights() for network in made), strict=True)
    return {
        "name": name,
        "losses": [[row["loss"] for row in history] for history in found],
        "tune": [[row["val_loss"] for row in history] for history in found],
        "weights": max(float(np.abs(one - two).max()) for one, two in pairs),
        "told": told,
        "synchronized": [
            layer.name for layer in made[1].layers if getattr(layer, "synchronized", False)
        ],
    }


def parts():
    """Return the rows and weights that each of two processors gets of batches of 6 and of 5."""
    from tfedge.training.replicas import share, spread, together

    rows = tf.data.Dataset.from_tensor_slices([[0, 6], [6, 11]]).map(
        lambda ends: (tf.range(ends[0], ends[1]), tf.one_hot(tf.range(ends[0], ends[1]) % 2, 2))
    )
    with together(dataclasses.replace(COURSE, strategy="mirrored")):
        strategy = tf.distribute.get_strategy()
        batches = iter(spread(rows, weights={0: 1.0, 1: 3.0}, weigh=True))
        found = []
        for _ in range(2):
            inputs, _, weights = next(batches)
            local = [strategy.experimental_local_results(each) for each in (inputs, weights)]
            found.append([[part.numpy().tolist() for part in of] for of in local])
        shared = strategy.experimental_local_results(strategy.run(lambda: share(tf.constant(3.0))))
    return {"name": "parts", "parts": found, "share": [float(each) for each in shared]}


def refused(place):
    """Return what is said of a batch that cannot be split, and of a last one that is too small."""
    said = []
    for batch in (49, 62):  # with 125 inputs the second leaves 1
        course = dataclasses.replace(COURSE, batch=batch)
        try:
            run(Train(STACK, SMALL, course), "mirrored", {}, place / str(batch), TRAIN + 1)
        except UserError as error:
            said.append(str(error))
    return {"name": "refused", "said": said}


def tell(found):
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def main(place, names):
    processor = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, two)
    inputs = folders(place)
    Job.network_figures = lambda *_: {}  # no figures are looked at
    tell(parts())
    tell(refused(place))
    for name, stage in stages(place).items():
        if not names or name in names:
            tell(compared(name, stage, inputs, place))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
