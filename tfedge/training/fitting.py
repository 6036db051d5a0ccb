"""Fit a model in the same way in every stage that trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfedge.data.dataset import Data, Split
from tfedge.errors import UserError, did_you_mean
from tfedge.figures import accuracy_figures
from tfedge.networks.backend import keras, reseed
from tfedge.networks.exits import exit_names
from tfedge.progress import Advance, Progress
from tfedge.training.batches import (
    EVALUATION_BATCH,
    Order,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from tfedge.training.course import Course
from tfedge.training.distillation import Distiller
from tfedge.training.exits import JointTraining
from tfedge.training.keeper import Keeper
from tfedge.training.replicas import are_several, check_rest, spread, synchronise

Watch = Callable[[int, dict[str, float]], None]
"""Is told the epochs that are done and saved, and what the last of them came to."""

_EVERY = 20
"""Batches after which TensorBoard is told."""


@dataclass(frozen=True)
class Session:
    """What a training works with.

    Attributes:
      label: Names the training in progress lines.
      augment: See `training_batches`.
      seed: Decides the order of the inputs and their augmentation.
      scratch: Where each epoch's state is saved; a fit that finds one there goes on from it.
      logs: Where TensorBoard's events go; None for none.
      watch: Called after each epoch, and of a training that goes on once before; it may raise
        `Paused`, and the next fit in `scratch` goes on from there.
      untrained: Do not train at all: only what comes of the network's shape is wanted.
    """

    label: str
    data: Data
    augment: Sequence[str | Callable[..., Any]]
    seed: int
    scratch: Path
    progress: Progress
    logs: Path | None = None
    watch: Watch | None = None
    untrained: bool = False


def fit(
    model: keras.Model,
    course: Course,
    session: Session,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    best_from: int = 0,
) -> list[dict[str, float]]:
    """Train `model` in place and return its history, a row an epoch.

    Within `replicas.together` all processors train it, made there, each on a part of every batch.

    Args:
      callbacks: Of the caller's, such as tfmot's pruning step.
      best_from: The first epoch whose weights may be kept as the best.
    """
    if session.untrained:
        return []
    data = session.data
    steps = steps_per_epoch(data, course.batch)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=course.label_smoothing
    )
    model.compile(_optimizer(course, steps), loss, metrics=["accuracy"])
    if are_several():
        # Within an epoch Keras would tell callbacks the sum over processors of their means.
        model.distribute_reduction_method = "first"
        synchronise(model)
    keeper = Keeper(session.scratch / "fit", patience=course.patience, first=best_from)
    first = keeper.resume(model)
    if first:
        session.progress.say(f"{session.label:12} goes on after epoch {first}")
        if session.watch:
            session.watch(first, keeper.history[-1])
    if first < course.epochs and not keeper.spent:
        batches, others = _batches(model, course, session, first)
        meter = _Meter(session, course, first)
        told = [meter, *_told(session, keeper)]
        with session.progress.bar(session.label, (course.epochs - first) * steps) as meter.advance:
            model.fit(
                batches,
                epochs=course.epochs,
                initial_epoch=first,
                steps_per_epoch=steps,
                **others,
                callbacks=[_reseeding(session.seed), *callbacks, keeper, *told],
                verbose=0,
            )
    if course.keep == "best":
        keeper.restore_best(model)
    return keeper.history


def logits_of(model: keras.Model, data: Data, split: Split) -> np.ndarray:
    """Return what `model` answers to each input of a split, float32 [count, classes].

    Of a network with exits that is its last exit's answer.
    """
    return answers_of(model, data, split)[-1]


def answers_of(model: keras.Model, data: Data, split: Split) -> list[np.ndarray]:
    """Return the logits of each exit, float32 [count, classes]; of one answer, a list of one."""
    answer = tf.function(lambda inputs: tf.nest.flatten(model(inputs, training=False)))
    parts = [answer(inputs) for inputs, _ in evaluation_batches(data, split)]
    return [np.concatenate([logits.numpy() for logits in of]) for of in zip(*parts, strict=True)]


def tune_figures(model: keras.Model, data: Data) -> dict[str, Any]:
    """Measure accuracy on the tune split: the last exit's, and of a network with exits each."""
    answers = answers_of(model, data, data.tune)
    rights = [logits.argmax(axis=-1) == data.tune.classes for logits in answers]
    found = [accuracy_figures(int(right.sum()), len(right), "tune") for right in rights]
    if len(found) == 1:
        return found[0]
    return found[-1] | {"exits": dict(zip(exit_names(model), found, strict=True))}


def _batches(
    model: keras.Model, course: Course, session: Session, first: int
) -> tuple[Any, dict[str, Any]]:
    """Return what is left to train on, and the other arguments of `fit` that say of what data.

    For a teacher whose answers are kept, the batches come with their numbers.
    """
    count = len(session.data.train.classes)
    lessons = model.lessons if isinstance(model, (Distiller, JointTraining)) else None
    order = Order(count, course.batch, session.seed, lessons.views if lessons else 0)
    if lessons:
        lessons.open(order, len(session.data.labels), course.epochs)
    batches = training_batches(
        session.data,
        session.augment,
        order,
        first_epoch=first,
        epochs=course.epochs,
        numbered=lessons is not None,
    )
    tune = evaluation_batches(session.data, session.data.tune)
    weights = _class_weights(course, session.data)
    if not are_several():
        return batches, {"validation_data": tune, "class_weight": weights}
    check_rest(count, course.batch)
    steps = -(-len(session.data.tune.classes) // EVALUATION_BATCH)
    others = {"validation_data": spread(tune), "validation_steps": steps}
    return spread(batches, weights=weights, weigh=True), others


def _told(session: Session, keeper: Keeper) -> list[keras.callbacks.Callback]:
    """Return who is told of an epoch once its state is saved: TensorBoard, then the watch."""
    told: list[keras.callbacks.Callback] = []
    if session.logs is not None:
        logs = str(session.logs)
        told.append(
            keras.callbacks.TensorBoard(
                logs, write_graph=False, update_freq=_EVERY, profile_batch=0
            )
        )
    if watch := session.watch:
        last = keras.callbacks.LambdaCallback()
        last.on_epoch_end = lambda epoch, logs: watch(epoch + 1, keeper.history[-1])  # noqa: ARG005
        told.append(last)
    return told


def _reseeding(seed: int) -> keras.callbacks.Callback:
    callback = keras.callbacks.LambdaCallback()
    callback.on_epoch_begin = lambda epoch, logs: reseed(callback.model, seed, epoch)  # noqa: ARG005
    return callback


class _WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rise from 0 in a straight line, then follow another schedule."""

    def __init__(self, steps: int, then: Callable[[tf.Tensor], tf.Tensor]) -> None:
        self.steps = steps
        self.then = then

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rising = self.then(tf.constant(0.0)) * (step + 1) / self.steps
        return tf.where(step < self.steps, rising, self.then(tf.maximum(step - self.steps, 0.0)))

    def get_config(self) -> dict[str, Any]:
        return {"steps": self.steps, "then": self.then}


def _optimizer(course: Course, steps: int) -> keras.optimizers.Optimizer:
    rising = round(course.warmup * steps)
    rate: Any = course.rate
    if course.schedule == "cosine":
        falling = max(1, course.epochs * steps - rising)
        rate = keras.optimizers.schedules.CosineDecay(course.rate, falling)
    if rising:
        constant = tf.constant(course.rate)
        rate = _WarmUp(rising, rate if callable(rate) else lambda _: constant)
    decay = course.weight_decay or None
    if course.optimizer == "sgd":
        return keras.optimizers.SGD(
            rate, momentum=course.momentum, nesterov=course.momentum > 0, weight_decay=decay
        )
    return keras.optimizers.Adam(rate, weight_decay=decay)


def _class_weights(course: Course, data: Data) -> dict[int, float] | None:
    if not course.balance and not course.class_weights:
        return None
    counts = np.bincount(data.train.classes, minlength=len(data.labels))
    weights = counts.sum() / (len(counts) * counts) if course.balance else np.ones(len(counts))
    for label, weight in course.class_weights.items():
        if label not in data.labels:
            fix = did_you_mean(label, data.labels)
            raise UserError("class_weights", f"{label!r} is no class of the data", fix)
        weights[data.labels.index(label)] *= weight
    return dict(enumerate(weights.tolist()))


class _Meter(keras.callbacks.Callback):
    """Tells the progress bar how the training goes."""

    def __init__(self, session: Session, course: Course, first: int) -> None:
        super().__init__()
        self.session, self.course, self.first = session, course, first
        self.steps = steps_per_epoch(session.data, course.batch)
        self.advance: Advance | None = None
        self.done, self.busy_s = 0, 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.busy_s += time.perf_counter() - self.started
        self.done += 1
        if self.advance and self.done % max(1, self.steps // 50) == 0:
            self.advance(self.done, self._words(logs))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        exits = (f"val_exit_{number}_accuracy" for number in range(len(logs)))
        names = [*(name for name in exits if name in logs), "val_accuracy"]
        words = f"{self._words(logs)}  tune {' '.join(f'{logs[name]:.4f}' for name in names)}"
        text = f"epoch {epoch + 1}/{self.course.epochs}  {words}"
        self.session.progress.say(f"{self.session.label:12} {text}")

    def _words(self, logs: dict[str, float]) -> str:
        speed = self.done * self.course.batch / max(self.busy_s, 1e-9)
        return f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.4f}  {speed:,.0f} inputs/s"
