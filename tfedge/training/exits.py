"""All exits of a network trained at once, each also to answer as the last one does.

The later exits see more, so they can teach the earlier ones (Phuong and Lampert 2019, section 3,
https://openaccess.thecvf.com/content_ICCV_2019/html/Phuong_Distillation-Based_Training_for_Multi-Exit_Architectures_ICCV_2019_paper.html;
Zhang et al. 2019, section 3.2, https://arxiv.org/abs/1905.08094).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfedge.networks.backend import keras
from tfedge.networks.exits import exit_names
from tfedge.training import replicas
from tfedge.training.distillation import mean_loss, soft_loss, teach_of
from tfedge.training.lessons import Lessons, Teach
from tfedge.training.teaching import Joint, Teaching

HARD = Teaching(alpha=1.0)
"""No teacher: the labels have it all."""


class JointTraining(keras.Model):
    """Train `network` at all its exits at once; `evaluate` measures each.

    With w_k an exit's weight, of which the mean is made 1, s the share of self-distillation and B_k
    the loss of its logits z_k against labels and teacher, the loss is the sum over exits of

        w_k * B_k                                            for the last exit,
        w_k * ((1 - s) * B_k + s * soft_loss(z_last, z_k))   for the others.

    It is a sum and no mean, as in Huang et al. 2018, section 4 (https://arxiv.org/abs/1703.09844):
    a head, which begins with nothing, then learns as fast as it would alone.  z_last is taken as it
    is: no gradient goes through it, so that the last exit learns nothing from the early ones but by
    the layers that they share.  B_k is the loss that the model is compiled with; with a teacher
    `alpha` of that and the rest `soft_loss` of the teacher's logits, as for a `Distiller`.

    ``loss`` and ``accuracy`` are the last exit's, the loss that of the labels alone; the others
    have an accuracy each, ``exit_0_accuracy`` and so on.

    Args:
      network: Functional, of several outputs, logits, float [batch, classes] each; with whatever
        wrappers it trains with.  Trained in place.
      joint: Weights and shares.
      teach: See `lessons.Teach`; None for no teacher.
      teaching: Of the teacher: its `temperature` and `alpha`.

    Attributes:
      lessons: As a `Distiller` has them.
    """

    lessons: Lessons | None = None

    def __init__(
        self,
        network: keras.Model,
        joint: Joint,
        teach: Teach | None = None,
        teaching: Teaching = HARD,
    ) -> None:
        super().__init__()
        self.network = network
        self.teach = teach
        self.teaching = teaching
        self.joint = joint
        names = exit_names(network)
        joint.check_exits(len(names), f"network {network.name!r}")
        weights = joint.exit_weights or (1.0,) * len(names)
        self.exit_weights = [len(weights) * weight / sum(weights) for weight in weights]
        self.accuracies = [
            keras.metrics.CategoricalAccuracy(name=f"{name}_accuracy") for name in names[:-1]
        ]

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.network(inputs, training=training)[-1]

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        taught = None
        if self.lessons is not None and self.teach is not None:
            x, *place = x
            taught = self.lessons.answer(self.teach, x, *place)
        elif self.teach is not None:
            taught = self.teach(x)[0]
        with tf.GradientTape() as tape:
            answers = self.network(x, training=True)
            loss = replicas.share(tf.add_n([tf.constant(0.0), *self.losses]))
            loss += self.loss_of(answers, y, taught, sample_weight)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self._measured(x, y, answers, sample_weight)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        answers = self.network(x, training=False)
        self.compiled_loss(y, answers[-1], sample_weight)
        return self._measured(x, y, answers, sample_weight)

    def loss_of(
        self,
        answers: Sequence[tf.Tensor],
        y: tf.Tensor,
        taught: tf.Tensor | None,
        sample_weight: tf.Tensor | None,
    ) -> tf.Tensor:
        """Return the loss of the exits' logits; the model must be compiled.

        Args:
          y: Float [batch, classes].
          taught: The teacher's logits, [batch, classes].
          sample_weight: [batch].
        """
        last = tf.stop_gradient(answers[-1])
        share, temperature = self.joint.self_distillation, self.joint.exit_temperature
        total = tf.constant(0.0)
        for number, (weight, logits) in enumerate(zip(self.exit_weights, answers, strict=True)):
            own = number == len(answers) - 1
            # Keras keeps what it is told of a loss for the metric that is called so.
            hard = (self.compiled_loss if own else self._hard)(y, logits, sample_weight)
            loss = self._of_labels_and_teacher(hard, logits, taught, sample_weight)
            if not own:
                soft = mean_loss(soft_loss(last, logits, temperature), sample_weight)
                loss = (1 - share) * loss + share * soft
            total += weight * loss
        return total

    def _hard(self, y: tf.Tensor, logits: tf.Tensor, sample_weight: tf.Tensor | None) -> tf.Tensor:
        if not replicas.are_several():
            return self.loss(y, logits, sample_weight)
        return mean_loss(self.loss.call(y, logits), sample_weight)  # Keras refuses the other here

    def _of_labels_and_teacher(
        self,
        hard: tf.Tensor,
        logits: tf.Tensor,
        taught: tf.Tensor | None,
        sample_weight: tf.Tensor | None,
    ) -> tf.Tensor:
        if taught is None:
            return hard
        losses = soft_loss(tf.cast(taught, tf.float32), logits, self.teaching.temperature)
        alpha = self.teaching.alpha
        return alpha * hard + (1 - alpha) * mean_loss(losses, sample_weight)

    def _measured(
        self, x: tf.Tensor, y: tf.Tensor, answers: Sequence[tf.Tensor], sample_weight: Any
    ) -> dict[str, tf.Tensor]:
        for metric, logits in zip(self.accuracies, answers, strict=False):
            metric.update_state(y, logits, sample_weight)
        return self.compute_metrics(x, y, answers[-1], sample_weight)

    def save(self, filepath: Any, **options: Any) -> None:
        """Save the network; the teacher is no part of it."""
        self.network.save(filepath, **options)


def jointly(
    network: keras.Model,
    joint: Joint,
    teacher: keras.Model | None = None,
    teaching: Teaching = HARD,
    lessons: Path | None = None,
) -> JointTraining:
    """Return what `fit` trains instead of a network with exits.

    Args:
      teacher: In float32; `teaching` says what it computes in.
      lessons: Folder for what the teacher answers to this data; see `Lessons`.
    """
    teach = teach_of(teacher, teaching) if teacher is not None else None
    training = JointTraining(network, joint, teach, teaching)
    if teach is not None and teaching.views and lessons is not None:
        training.lessons = Lessons(lessons, teaching.views)
    return training
