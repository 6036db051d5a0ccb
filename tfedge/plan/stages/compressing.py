"""Stages that make a network smaller while it is trained."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from tfedge.declarations import Free, Plain, required, setting
from tfedge.errors import UserError
from tfedge.plan.job import Job
from tfedge.training.course import Course
from tfedge.training.teaching import Joint, Teaching
from tfedge.training.team import refuse

NOT_SPREAD = "tfmot takes for a batch's range the mean of those of each processor's part"
"""Of moving averages; tf.distribute averages what they are told (tfmot 0.8.1, TensorFlow 2.21)."""
RAMP = (0.0, 0.6, "polynomial")
"""Where pruning begins and ends unless told otherwise, in shares of the epochs, and its shape."""


@dataclass(frozen=True)
class Prune:
    """Turn the smallest weights into zeros while training goes on.

    Makes the zipped file smaller.  It makes nothing faster in int8, because no TFLite kernel for
    int8 skips zeros.
    """

    version: ClassVar[int] = 2
    makes: ClassVar[str] = "network"

    of: Free = required("stage whose network is pruned")
    sparsity: float = setting(
        0.5, "fraction of a layer's weights to end as zeros", low=0, high=0.99
    )
    ramp: str = setting(
        RAMP[2],
        "how the zeros come: along a cubic, or all at once",
        choices=("polynomial", "constant"),
    )
    begin: float = setting(
        RAMP[0], "when pruning begins, as a share of the epochs", low=0, high=0.99
    )
    end: float = setting(
        RAMP[1], "when the last weight falls, as a share of the epochs", low=0, high=1
    )
    every: int = setting(0, "steps between two prunings; 0 for 20 in all", low=0, high=100_000)
    pattern: str = setting(
        "free",
        "weights that fall together: any, two of each four, or whole blocks",
        choices=("free", "2:4", "block"),
    )
    block: tuple[int, int] = setting((1, 4), "a block's inputs and outputs", low=1, high=64)
    layers: dict[str, float] = setting(
        {},
        'other fractions by layer name, such as { "conv_1" = 0, "block_*" = 0.8 }',
        low=0,
        high=0.99,
    )
    teaching: Teaching = field(default=Teaching())
    joint: Joint = field(default=Joint())
    course: Course = field(default=Course(epochs=10, rate=3e-4))

    def check(self, where: str) -> None:
        """Refuse settings that contradict one another."""
        half = 0.5
        if self.pattern == "2:4" and self.sparsity != half:
            raise UserError(f"{where} sparsity", f"2:4 is 0.5 by its nature, got {self.sparsity}")
        if self.pattern == "2:4" and set(self.layers.values()) - {0.0, half}:
            raise UserError(f"{where} layers", f"2:4 is 0.5 or 0, got {self.layers}")
        if self.pattern == "2:4" and (self.begin, self.end, self.ramp) != RAMP:
            fix = "leave begin, end and ramp out: tfmot prunes 2:4 at once, at the first step"
            raise UserError(f"{where} pattern", "2:4 has no ramp", fix)
        if self.pattern != "block" and self.block != (1, 4):
            fix = 'write pattern = "block", or leave it out'
            raise UserError(f"{where} block", f"is for blocks, not for {self.pattern!r}", fix)
        if self.begin > self.end:
            raise UserError(f"{where} begin", f"must be at most end, {self.end}, got {self.begin}")

    def check_exits(self, count: int, where: str) -> None:
        """Refuse what does not fit the network's `count` exits."""
        self.joint.check_exits(count, where)

    def without_exits(self) -> Prune:
        """Return it for a network that might have had exits and has none."""
        return replace(self, joint=Joint())

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.networks.precision import trained_as
        from tfedge.training import pruning
        from tfedge.training.fitting import fit, tune_figures
        from tfedge.training.preserving import Preserving, unwrapped
        from tfedge.training.replicas import together

        network = job.load("of")
        schedule = pruning.Schedule.over(
            self.course, job.data, (self.begin, self.end), kind=self.ramp, every=self.every
        )
        pattern = pruning.Pattern(self.pattern, self.block)
        session = job.session()
        with together(self.course):
            twin = trained_as(network, "float32")
            wrapped = pruning.with_pruning(twin, self.sparsity, schedule, pattern, self.layers)
            history = fit(
                job.taught(wrapped, self.teaching, joint=self.joint),
                self.course,
                session,
                callbacks=[pruning.pruning_step(), Preserving(unwrapped(wrapped))],
                best_from=schedule.first_epoch,
            )
        pruned = pruning.without_pruning(wrapped)
        job.save(pruned)
        notes = ["zeros shorten the zipped file; int8 inference is no faster for them"]
        if self.pattern == "block" and (free := pruning.without_blocks(network, self.block)):
            notes.append(f"tfmot forms no blocks in {', '.join(free)}: single weights fell there")
        if whole := pruning.unpruned(network):
            notes.append(f"tfmot prunes no {', '.join(whole)}")
        return (
            tune_figures(pruned, job.data)
            | job.network_figures(pruned)
            | {"sparsity": pruning.sparsity_of(pruned), "zeros": pruning.zeros(pruned)}
            | {"epochs": len(history), "history": history, "notes": notes}
        )


@dataclass(frozen=True)
class Qat:
    """Train on with 8-bit weights and activations, so that int8 costs little accuracy."""

    version: ClassVar[int] = 4
    makes: ClassVar[str] = "8-bit network"

    of: Plain = required("stage whose network is trained on; its zeros and clusters are kept")
    leave: tuple[str, ...] = setting((), "layers, by name, that are not trained in 8 bits")
    calibrate: int = setting(200, "tune inputs that set the first ranges", low=1, high=100_000)
    batchnorm: str = setting(
        "hold",
        "its statistics while training: hold those there are, or learn on; with keep = best they"
        " are estimated anew in the end, if that helps on tune",
        choices=("hold", "learn"),
    )
    teaching: Teaching = field(default=Teaching())
    joint: Joint = field(default=Joint())
    course: Course = field(default=Course(epochs=5, rate=1e-4))

    def check(self, where: str) -> None:
        """Refuse to train on several processors: tfmot's wrappers cannot."""
        refuse(self.course.strategy, NOT_SPREAD, where)

    def check_exits(self, count: int, where: str) -> None:
        """Refuse what does not fit the network's `count` exits."""
        self.joint.check_exits(count, where)

    def without_exits(self) -> Qat:
        """Return it for a network that might have had exits and has none."""
        return replace(self, joint=Joint())

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.data.sampling import calibration
        from tfedge.networks.kernels import clusters, in_words, kernels
        from tfedge.networks.preparation.recurrence import refuse_never_int8
        from tfedge.tflite.conversion import check_becomes_int8
        from tfedge.training.batchnorm import held_statistics
        from tfedge.training.choosing import LAST, UNTRAINED, end_with_the_best
        from tfedge.training.fitting import fit, tune_figures
        from tfedge.training.preserving import Preserving
        from tfedge.training.pruning import sparsity_of
        from tfedge.training.quantization import (
            by_output,
            float_twin,
            kernel_ranges,
            left_alone,
            quantization_aware,
        )

        network = job.load("of")
        refuse_never_int8(network)
        session = job.session()
        samples = calibration(job.data, self.calibrate)
        aware = quantization_aware(network, samples, job.data.limits(), self.leave)
        check_becomes_int8(aware, samples, job.data.limits(), f"[{job.name}]")
        start = aware.get_weights()
        with held_statistics(aware) if self.batchnorm == "hold" else nullcontext():
            taught = job.taught(aware, self.teaching, joint=self.joint)
            callbacks = [Preserving(kernels(aware).values()), kernel_ranges(aware)]
            history = fit(taught, self.course, session, callbacks=callbacks)
        kept = LAST if self.course.keep == "last" else end_with_the_best(aware, start, session)
        job.save(aware)
        learned = float_twin(aware, network)
        shared = clusters(learned)
        left, partly = left_alone(network, self.leave), by_output(network, self.leave)
        notes = ["no epoch did better on tune than the network before it"] * (kept == UNTRAINED)
        notes += [f"weights share {in_words(shared)}, as before"] * bool(shared)
        return (
            tune_figures(aware, job.data)
            | job.network_figures(learned)
            | {"sparsity": sparsity_of(learned), "left_in_float": left, "by_output": partly}
            | {"epochs": len(history), "history": history, "kept": kept}
            | ({"clusters": shared} if shared else {})
            | {"notes": [*_left(left), *_partly(partly, network), *notes]}
        )


def _left(left: dict[str, str]) -> list[str]:
    """Say which layers were trained in float, a line a reason."""
    reasons = dict.fromkeys(left.values())
    names = {why: [name for name, reason in left.items() if reason == why] for why in reasons}
    return [f"{', '.join(names[why])} trained in float: {why}" for why in reasons]


def _partly(found: dict[str, str], network: Any) -> list[str]:
    """Say which layers were trained with their weights in float, a line a class."""
    kinds: dict[str, list[str]] = {}
    for name, kind in found.items():
        if network.get_layer(name).weights:
            kinds.setdefault(kind, []).append(name)
    how = "trained with outputs in 8 bits and weights in float: tfmot has no rule for"
    return [f"{', '.join(names)} {how} {kind}" for kind, names in kinds.items()]
