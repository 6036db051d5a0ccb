"""Knowledge distillation: a small student learns from a large teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfedge.errors import UserError, did_you_mean
from tfedge.networks.backend import keras
from tfedge.networks.precision import in_precision
from tfedge.training.lessons import Lessons, Teach
from tfedge.training.replicas import share
from tfedge.training.teaching import Teaching


def soft_loss(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Measure how far a student's softened answer is from its teacher's.

    This is KL(teacher || student) between the two softmaxes at `temperature`, times its square.
    The square keeps the gradient's size when the temperature changes, so that one learning rate
    serves every temperature (Hinton et al. 2015, section 2, https://arxiv.org/abs/1503.02531).

    Args:
      teacher: Logits, float [batch, classes].
      student: Logits, float [batch, classes].
      temperature: Above 0; 1 compares the plain softmaxes.

    Returns:
      Float [batch], 0 where the two agree.
    """
    log_p = tf.nn.log_softmax(teacher / temperature)
    log_q = tf.nn.log_softmax(student / temperature)
    return temperature**2 * tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)


def hint_loss(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Measure how far features are from the teacher's: their mean squared difference.

    Romero et al. 2015, equation 3 (https://arxiv.org/abs/1412.6550), as a mean so that one weight
    serves layers of every size.

    Args:
      teacher: Float [batch, ...].
      student: The same shape, after the projection.

    Returns:
      Float [batch].
    """
    squares = tf.math.squared_difference(tf.cast(teacher, tf.float32), tf.cast(student, tf.float32))
    return tf.reduce_mean(squares, axis=list(range(1, len(squares.shape))))


class Distiller(keras.Model):
    """Train `student` on the labels, a teacher's logits and, if asked, its features at once.

    Only the loss of a training step differs from plain training, so only `train_step` does:
    compile it with the loss for the labels, and `evaluate`, `predict` and `save` are the student's.
    The student runs once a step, in training mode.

    Args:
      student: A functional model that maps inputs to logits, float [batch, classes].  Trained in
        place.
      teach: See `Teach`.  A function and not a layer, so that the teacher is neither trained nor
        saved along with the student.
      temperature: Softens both answers; see `soft_loss`.
      alpha: Share of the labels' loss, 0 to 1; the teacher's logits have the rest.
      hints: The student's layers whose output follows the teacher's features, in their order, with
        how many channels the teacher has there.  Where the student has others, a 1x1 convolution
        is learned between them (Romero's regressor) that is no part of the student.
      hint_weight: Of the mean `hint_loss`, added to the two others.

    Attributes:
      lessons: Where set, keeps the teacher's logits; it then takes batches with their number, and
        no hints.  None has the teacher run at every step.
    """

    lessons: Lessons | None = None

    def __init__(
        self,
        student: keras.Model,
        teach: Teach,
        *,
        temperature: float,
        alpha: float,
        hints: Mapping[str, int] | None = None,
        hint_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student = student
        self.teach = teach
        self.temperature = temperature
        self.alpha = alpha
        self.hint_weight = hint_weight
        outputs = [layer_named(student, name).output for name in hints or {}]
        self._student = keras.Model(student.inputs, [student.outputs[0], *outputs])
        self.projections = [
            _projection(output.shape[-1], channels)
            for output, channels in zip(outputs, (hints or {}).values(), strict=True)
        ]
        for projection, output in zip(self.projections, outputs, strict=True):
            projection.build(output.shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.student(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self.lessons is None:
            taught, *wanted = self.teach(x)
        else:
            x, *place = x
            taught, wanted = self.lessons.answer(self.teach, x, *place), []
        with tf.GradientTape() as tape:
            logits, *features = tf.nest.flatten(self._student(x, training=True))
            # Not `compute_loss`, which adds what regularisers ask for: that is no part of `alpha`.
            hard = self.compiled_loss(y, logits, sample_weight)
            loss = share(tf.add_n([tf.constant(0.0), *self.losses]))
            loss += self.alpha * hard + (1 - self.alpha) * mean_loss(
                soft_loss(tf.cast(taught, tf.float32), logits, self.temperature), sample_weight
            )
            for project, feature, target in zip(self.projections, features, wanted, strict=True):
                hint = mean_loss(hint_loss(target, project(feature)), sample_weight)
                loss += self.hint_weight * hint / len(features)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self.compute_metrics(x, y, logits, sample_weight)

    def save(self, filepath: Any, **options: Any) -> None:
        """Save the student; the teacher and the projections are no part of what was trained."""
        self.student.save(filepath, **options)


@dataclass(frozen=True)
class Hints:
    """Which of a teacher's features a student follows.

    Attributes:
      pairs: The student's layer to the teacher's.
      weight: See `Distiller`.
    """

    pairs: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0


def taught(
    student: keras.Model, teacher: keras.Model, teaching: Teaching, hints: Hints, lessons: Path
) -> Distiller:
    """Return what `fit` trains instead of `student`, so that `teacher` teaches it.

    Args:
      student: As it trains, with tfmot's wrappers if it is pruned or trained in 8 bits.
      teacher: In float32; `teaching` says what it computes in.
      lessons: Folder for what the teacher answers to this data; see `Lessons`.
    """
    channels = match_features(student, teacher, hints.pairs)
    distiller = Distiller(
        student,
        teach_of(teacher, teaching, list(hints.pairs.values())),
        temperature=teaching.temperature,
        alpha=teaching.alpha,
        hints=channels,
        hint_weight=hints.weight,
    )
    if teaching.views and not channels:
        distiller.lessons = Lessons(lessons, teaching.views)
    return distiller


def teach_of(teacher: keras.Model, teaching: Teaching, layers: Sequence[str] = ()) -> Teach:
    """Return `teacher_of` a network in the precision that `teaching` wants; float32 comes in."""
    if teaching.teacher_precision != "float32":
        teacher = in_precision(teacher, teaching.teacher_precision)
    return teacher_of(teacher, layers)


def teacher_of(model: keras.Model, layers: Sequence[str]) -> Teach:
    """Return a function that runs `model` for a `Distiller`, and leaves it as it is.

    A network with exits teaches with its last.

    Args:
      layers: Names of its layers whose output the student is to follow.
    """
    outputs = [layer_named(model, name).output for name in layers]
    seen = keras.Model(model.inputs, [model.outputs[-1], *outputs])

    def teach(inputs: tf.Tensor) -> Sequence[tf.Tensor]:
        return [
            tf.stop_gradient(tensor) for tensor in tf.nest.flatten(seen(inputs, training=False))
        ]

    return teach


def match_features(
    student: keras.Model, teacher: keras.Model, pairs: Mapping[str, str]
) -> dict[str, int]:
    """Check that each pair's features are of one height and width; return the teacher's channels.

    Args:
      pairs: The student's layer to the teacher's.
    """
    channels = {}
    for mine, theirs in pairs.items():
        small, large = (
            layer_named(*end).output.shape for end in ((student, mine), (teacher, theirs))
        )
        if small[1:-1] != large[1:-1]:
            problem = f"{mine!r} gives {tuple(small[1:])}, {theirs!r} gives {tuple(large[1:])}"
            raise UserError("hints", problem, "pair layers of the same height and width")
        channels[mine] = int(large[-1])
    return channels


def layer_named(model: keras.Model, name: str) -> keras.layers.Layer:
    """Return a layer, or say which there are."""
    names = [layer.name for layer in model.layers]
    if name not in names:
        raise UserError(f"network {model.name!r}", f"no layer {name!r}", did_you_mean(name, names))
    return model.get_layer(name)


def _projection(channels: int, wanted: int) -> keras.layers.Layer:
    if channels == wanted:
        return keras.layers.Activation("linear", dtype="float32")
    # A dense layer works on the last axis, whatever the rank: that is a 1x1 convolution.
    return keras.layers.Dense(wanted, use_bias=False, dtype="float32")


def mean_loss(losses: tf.Tensor, sample_weight: tf.Tensor | None) -> tf.Tensor:
    """Average [batch] as Keras does: weighted losses, divided by the batch's size.

    Where several processors have a part of the batch each, it is what the part adds to that.
    """
    if sample_weight is not None:
        losses = losses * tf.cast(tf.reshape(sample_weight, (-1,)), losses.dtype)
    return share(tf.reduce_mean(losses))
