"""A network that several processors train at once, each on its part of every batch.

What is made within `together` has its weights on all of them.  Gradients are summed over the whole
batch before any weight moves, so that a step is the one which a single processor would have made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import tensorflow as tf

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.training.course import Course
from tfedge.training.team import MIRRORED, MULTI_WORKER, ONE, check, check_batch, member

LOST = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError),
    *(tf.errors.CancelledError, tf.errors.DeadlineExceededError),
)
"""What TensorFlow raises where another process is gone: which, depends on what it was doing."""


@contextmanager
def together(course: Course) -> Iterator[None]:
    """Put the weights of what is made within on all processors of a course's strategy.

    With the strategy "one" nothing changes.  Where another process is gone, it is a UserError.
    """
    if course.strategy == ONE:
        yield
        return
    strategy = _strategy(course.strategy)
    check_batch(course.batch, strategy.num_replicas_in_sync, "")
    try:
        with strategy.scope():
            yield
    except LOST as error:
        if course.strategy != MULTI_WORKER:
            raise
        raise lost() from error


def lost() -> UserError:
    """Say that another process is gone."""
    mine = member()
    which = f"one of {', '.join(mine.others)}" if mine.others[1:] else ", ".join(mine.others)
    fix = "start all processes with the same commands: they go on after the last epoch"
    return UserError(mine, f"another process is gone, {which}", fix)


def replicas() -> int:
    """Count the processors that take part, within `together`; 1 outside of it."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def are_several() -> bool:
    """Whether weights are on several processors here, or would be if there were more."""
    return bool(tf.distribute.has_strategy())


def share(loss: tf.Tensor) -> tf.Tensor:
    """Return what a replica's mean loss adds to that of the whole batch.

    Keras does this to the loss that a model is compiled with, and to none else: gradients are
    summed over the replicas.
    """
    count = replicas()
    return loss / count if count > 1 else loss


def synchronise(model: keras.Model) -> None:
    """Have BatchNormalization take its statistics over the whole batch while `model` is trained.

    A layer's config does not hold this: copies, such as those in tfmot's wrappers, lose it.
    """
    for layer in model.submodules:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized, layer.fused = True, False


def spread(
    batches: tf.data.Dataset, *, weights: Mapping[int, float] | None = None, weigh: bool = False
) -> Any:
    """Give each replica its part of every batch; return what `fit` and `evaluate` of Keras take.

    Every process makes the whole batch and keeps its own part, because what is in a batch depends
    on the batch: its augmentation, above all mixup, and its seed.

    Args:
      batches: Of (inputs, targets), inputs float32 [batch, ...] or that and the batch's number;
        the number then comes with that of the part's first row.
      weights: Of the classes in the loss.
      weigh: Whether to add weights, float32 [part], by which the mean over the replicas of the
        means over their parts is the mean over the batch, also where the parts are not equal.
        (Keras tells a loss in which such parts, of an epoch's last step, count a little otherwise.)

    Returns:
      Never ends, so that no process has to ask the others whether there is more.
    """

    def parts(context: tf.distribute.InputContext) -> tf.data.Dataset:
        own = context.num_replicas_in_sync // context.num_input_pipelines
        first, of = context.input_pipeline_id * own, context.num_replicas_in_sync

        def split(inputs: Any, targets: tf.Tensor) -> tf.data.Dataset:
            numbers = tf.data.Dataset.range(first, first + own)
            return numbers.map(lambda number: part(inputs, targets, number))

        def part(inputs: Any, targets: tf.Tensor, number: tf.Tensor) -> tuple[Any, ...]:
            count = tf.shape(targets, tf.int64)[0]
            start, end = count * number // of, count * (number + 1) // of
            mine = targets[start:end]
            if isinstance(inputs, tuple):
                taken: Any = (inputs[0][start:end], inputs[1], start)
            else:
                taken = inputs[start:end]
            if not weigh:
                return taken, mine
            even = tf.cast((end - start) * of, tf.float32) / tf.cast(count, tf.float32)
            return taken, mine, even * _class_weights(mine, weights)

        return batches.repeat().flat_map(split).prefetch(2 * own)

    return tf.distribute.get_strategy().distribute_datasets_from_function(parts)


def check_rest(count: int, batch: int) -> None:
    """Refuse an epoch whose last step would leave a replica without inputs.

    Args:
      count: Inputs of the training split.
    """
    rest = count % batch
    if 0 < rest < replicas():
        problem = f"{batch} leaves {rest} of {count} inputs for an epoch's last step"
        fix = f"write another: each of {replicas()} processors must get one at least"
        raise UserError("batch", problem, fix)


def meet() -> int:
    """Meet the other processes, before TensorFlow does anything else: later it cannot.

    Returns:
      How many processors they have in all.
    """
    return int(_strategy(MULTI_WORKER).num_replicas_in_sync)


def _class_weights(targets: tf.Tensor, weights: Mapping[int, float] | None) -> tf.Tensor:
    if weights is None:
        return tf.ones(tf.shape(targets)[:1])
    table = tf.constant([weights[number] for number in range(len(weights))], tf.float32)
    return tf.gather(table, tf.argmax(targets, axis=-1))


@cache
def _strategy(name: str) -> tf.distribute.Strategy:
    if name == MIRRORED:
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    check("")
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except LOST as error:
        raise lost() from error
    except RuntimeError as error:  # "must be configured at program startup"
        fix = "let tfedge build, which meets the others first, run the stage"
        raise UserError("strategy", f"TensorFlow is at work already: {error}", fix) from None
