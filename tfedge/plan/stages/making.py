"""Stages that make a network: train one, take one in, have one taught by another."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tfedge.declarations import required, setting
from tfedge.errors import UserError
from tfedge.plan.about import About
from tfedge.plan.job import Job
from tfedge.plan.refs import Ref
from tfedge.plan.settings import File, Options
from tfedge.training.course import PRECISION, Course
from tfedge.training.teaching import ALWAYS, Teaching

if TYPE_CHECKING:
    from tfedge.networks.importing import Doubt

LIVE = "hints are the teacher's features, which are not kept: it ran in every epoch, without views"


@dataclass(frozen=True)
class Train:
    """Train a network on the labels."""

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "network"

    model: Ref = required("function (input shape, classes) that builds the network", given=2)
    options: Options = field(default_factory=lambda: Options({}))
    course: Course = field(default=Course())
    precision: str = PRECISION

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.networks.precision import trained_as
        from tfedge.training.fitting import fit, tune_figures
        from tfedge.training.replicas import together

        network = job.construct(self.model, self.options)
        with together(self.course):
            twin = trained_as(network, self.precision)
            history = fit(twin, self.course, job.session())
        network.set_weights(twin.get_weights())
        job.save(network)
        figures = tune_figures(network, job.data) | job.network_figures(network)
        return figures | {"epochs": len(history), "history": history}


@dataclass(frozen=True)
class Import:
    """Take in a network that was trained elsewhere, of Keras 2 or Keras 3.

    It is rebuilt flat in tf_keras, as tfmot and the converter take it, and proved to answer the
    same.  Normalisation at its start goes to the card, a softmax or sigmoid at its end off.
    """

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "network"

    file: File | None = setting(None, "the .keras or .h5 file, or the SavedModel folder")
    model: Ref | None = setting(None, "or a function without arguments that returns the network")
    custom: Ref | None = setting(None, "a file, and a layer or model in it, that the network needs")
    trust: bool = setting(default=False, help="run code that the file holds, such as a Lambda's")
    takes: str = setting(
        "data",
        "what the network was trained on: as [data] normalises (or pixels, if the network begins"
        " with layers for them), 0 to 1, -1 to 1, 0 to 255, or as Keras's preprocess_input does",
        choices=("data", "unit", "symmetric", "pixels", "imagenet", "caffe"),
    )
    blue_first: bool = setting(
        default=False, help="it takes blue, green, red, as networks from OpenCV's pictures do"
    )
    batchnorm: str = setting(
        "fold",
        "fold it into the layers before it, or keep it for training to come",
        choices=("fold", "keep"),
    )
    strict: bool = setting(
        default=True, help="stop if it is right much more often when fed otherwise"
    )

    def check(self, where: str) -> None:
        """Refuse two networks, and none."""
        if (self.file is None) == (self.model is None):
            fix = 'write file = "my_model.keras", or model = "my_code.py:network"'
            raise UserError(where, "wants one of file and model", fix)

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.networks.backend import classes_in
        from tfedge.networks.files import made_by, opened
        from tfedge.networks.importing import doubt, taken_in
        from tfedge.training.fitting import tune_figures

        custom = classes_in(self.custom.module()) if self.custom is not None else {}
        if self.model is not None:
            graph, answers = made_by(self.model.guarded()(), job.data.shape)
        else:
            file, shape = self.file or Path(), job.data.shape
            graph, answers = opened(file, shape, trust=self.trust, custom=custom)
        prepared = taken_in(
            graph,
            answers,
            job.data,
            self.takes,
            fold=self.batchnorm == "fold",
            blue_first=self.blue_first,
        )
        about = About(prepared.feed.mean, prepared.feed.std, prepared.output)
        notes = [*prepared.notes]
        found = doubt(prepared.model, prepared.feed, job.data, sure=prepared.scaled_itself)
        if found:
            notes.append(self._doubted(found))
        job.save(prepared.model, about)
        return (
            tune_figures(prepared.model, about.view(job.data))
            | job.network_figures(prepared.model)
            | {"largest_difference": max(prepared.steps.values()), "rewrites": prepared.steps}
            | {"notes": notes}
        )

    def _doubted(self, found: Doubt) -> str:
        """Refuse a network that is right more often if it is fed otherwise, or say so."""
        problem = (
            f"answers {found.now:.1%} of tune inputs right as it is fed,"
            f" and {found.accuracy:.1%} with {found.takes}"
        )
        if not self.strict:
            return problem
        wish = f'takes = "{found.takes}"'
        if found.swapped:
            turned = self.blue_first or self.takes == "caffe"
            wish = "neither blue_first nor caffe" if turned else "blue_first = true"
        raise UserError("takes", problem, f"write {wish}, or strict = false to go on")


@dataclass(frozen=True)
class Distill:
    """Train a small network to answer as a trained one does."""

    version: ClassVar[int] = 2
    makes: ClassVar[str] = "network"

    model: Ref = required("function (input shape, classes) that builds the student", given=2)
    options: Options = field(default_factory=lambda: Options({}))
    teaching: Teaching = field(default=ALWAYS)
    hints: dict[str, str] = setting(
        {}, "the student's layers that follow one of the teacher's: { student = teacher }"
    )
    hint_weight: float = setting(1.0, "of the hints' loss beside the others", low=0, high=1e6)
    start: str = setting(
        "nothing",
        "what the student begins with: weights by chance, or the teacher's, of those channels that"
        " have the largest; both must be the same network but for their widths",
        choices=("nothing", "teacher"),
    )
    course: Course = field(default=Course())
    precision: str = PRECISION

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.networks.precision import trained_as
        from tfedge.training.distillation import Hints
        from tfedge.training.fitting import fit, tune_figures
        from tfedge.training.replicas import together

        student = job.construct(self.model, self.options)
        notes = [LIVE] if self.hints and self.teaching.views else []
        if self.start == "teacher":
            notes += [_inherited(student, job.load("teacher"))]
        hints = Hints(self.hints, self.hint_weight)
        with together(self.course):
            twin = trained_as(student, self.precision)
            distiller = job.taught(twin, self.teaching, precision=self.precision, hints=hints)
            history = fit(distiller, self.course, job.session())
        student.set_weights(twin.get_weights())
        job.save(student)
        figures = tune_figures(student, job.data) | job.network_figures(student)
        return figures | {"epochs": len(history), "history": history, "notes": notes}


def _inherited(student: Any, teacher: Any) -> str:
    """Let a student begin with its teacher's weights; say of how many channels."""
    from tfedge.networks.narrowing.inheriting import inherit

    fewer = inherit(student, teacher)
    went = ", ".join(f"{names} {had} to {has}" for names, (had, has) in fewer.items())
    return f"began with the teacher's weights: {went or 'all of them'}"
