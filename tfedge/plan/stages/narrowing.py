"""The stage that takes whole channels out of a network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from tfedge import paths
from tfedge.declarations import Network, Plain, required, setting
from tfedge.errors import UserError
from tfedge.networks.narrowing.wishes import BOARDS, Wishes
from tfedge.plan.job import MODEL, Job
from tfedge.training.course import PRECISION, Course
from tfedge.training.teaching import Joint, Teaching
from tfedge.training.team import MULTI_WORKER, refuse

if TYPE_CHECKING:
    from tfedge.training.fitting import Session

_BATCH = 32
_COUNTED_ON = 16
"""Calibration inputs of the files whose instructions are counted: their ranges change no count."""

_CUT = "cut.json"
_MUST_BE_GIVEN: Any = dataclasses.MISSING


@dataclass(frozen=True)
class Recovery(Course):
    """How a narrowed network is trained; see `Course`."""

    epochs: int = setting(
        10,
        "passes over the training split after channels went; 0 trains nothing",
        low=0,
        high=10_000,
    )


@dataclass(frozen=True)
class FromItself(Teaching):
    """Who teaches a narrowed network: unless told otherwise, what it was before."""

    teacher: Network = setting(
        "", "stage whose network teaches; left out, the one that is narrowed"
    )

    def check(self, where: str) -> None:
        """Allow settings without a named teacher: there always is one."""


@dataclass(frozen=True)
class Narrow:
    """Take whole channels out of a network, and let the network before teach what is left.

    That makes the file smaller and the network faster on every processor.  Channels that are tied
    together, by an addition for instance, go together.
    """

    version: ClassVar[int] = 2
    makes: ClassVar[str] = "network"

    of: Plain = required("stage whose network is narrowed")
    wishes: Wishes = field(default=Wishes(remove=_MUST_BE_GIVEN))
    rounds: int = setting(
        1,
        "times that channels go, the same share each time, with training between",
        low=1,
        high=100,
    )
    between: int = setting(
        1, "epochs, of all, that follow each round but the last", low=1, high=10_000
    )
    teaching: FromItself = field(default=FromItself())
    joint: Joint = field(default=Joint())
    course: Recovery = field(default=Recovery(epochs=10, rate=3e-4))
    precision: str = PRECISION

    def check(self, where: str) -> None:
        """Refuse settings that contradict one another, and counting where it cannot be done."""
        if self.rounds > 1 and self.between * (self.rounds - 1) >= self.course.epochs:
            problem = f"{self.rounds - 1} rounds of {self.between} leave no epoch for the last"
            raise UserError(f"{where} rounds", problem, "write more epochs, or fewer rounds")
        if self.course.strategy == MULTI_WORKER:
            refuse(MULTI_WORKER, "one process chooses the channels", where)
        if self.wishes.share_of in BOARDS:
            from tfedge.boards.counting import check_tools

            try:
                check_tools()
            except UserError as error:
                raise error.within(f"{where} share_of") from None

    def check_exits(self, count: int, where: str) -> None:
        """Refuse what does not fit the network's `count` exits."""
        self.joint.check_exits(count, where)

    def without_exits(self) -> Narrow:
        """Return it for a network that might have had exits and has none."""
        return replace(self, joint=Joint())

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.networks.narrowing.cutting import cost_of
        from tfedge.networks.precision import trained_as
        from tfedge.training.fitting import fit, tune_figures
        from tfedge.training.replicas import together

        network = job.load("of")
        self._refuse_compressed(network, f"[{job.name}]")
        before = tune_figures(network, job.data)["accuracy"]
        full = cost_of(network, self.wishes, _instructions(job, self.wishes.share_of))
        history: list[dict[str, float]] = []
        widths: dict[str, list[int]] = {}
        said: dict[str, Any] = {}
        for number, left, course in self._rounds():
            session = job.session()
            logs = session.logs and session.logs / f"round-{number}"
            session = replace(session, scratch=session.scratch / f"round-{number}", logs=logs)
            network, said = self._cut_once(job, network, full * left, session)
            for names, (had, has) in said["widths"].items():
                widths[names] = [widths.get(names, [had])[0], has]
            if course.epochs:
                with together(course):
                    twin = trained_as(network, self.precision)
                    history += fit(self._taught(job, twin), course, session)
                network.set_weights(twin.get_weights())
        job.save(network)
        return (
            tune_figures(network, job.data)
            | job.network_figures(network)
            | {"before": before, "untrained": said["untrained"], "widths": widths}
            | {"whole": said["whole"], "epochs": len(history), "history": history}
            | {"notes": _notes(widths, said)}
        )

    def _refuse_compressed(self, network: Any, where: str) -> None:
        from tfedge.networks.kernels import clusters, is_sparse, kernels

        pruned = [name for name, kernel in kernels(network).items() if is_sparse(kernel.numpy())]
        for names, what, do in (
            (pruned, "zeros", "prune"),
            (list(clusters(network)), "shared values", "cluster"),
        ):
            if names and self.course.epochs:
                problem = f"{', '.join(names)}: the {what} there would not outlast the training"
                fix = f"narrow first and {do} what is left, or write epochs = 0"
                raise UserError(f"{where} of", problem, fix)

    def _rounds(self) -> Iterator[tuple[int, float, Recovery]]:
        """Yield each round's number, the share of the cost that it leaves, and its training."""
        for number in range(1, self.rounds + 1):
            left = (1 - self.wishes.remove) ** (number / self.rounds)
            last = number == self.rounds
            epochs = self.course.epochs - self.between * (self.rounds - 1)
            yield number, left, replace(self.course, epochs=epochs if last else self.between)

    def _cut_once(
        self, job: Job, network: Any, budget: float, session: Session
    ) -> tuple[Any, dict[str, Any]]:
        """Narrow a network, or take what an interrupted run has made of it."""
        from tfedge.networks.narrowing.cutting import cut
        from tfedge.networks.saving import load_model, save_model
        from tfedge.training.fitting import tune_figures

        file, done = session.scratch / MODEL, session.scratch / _CUT
        if not done.is_file():
            session.scratch.mkdir(parents=True, exist_ok=True)
            counting = _instructions(job, self.wishes.share_of)
            batches = _batches(job, self.wishes.samples)
            made = cut(network, self.wishes, budget, batches, counting)
            save_model(made.network, file)
            accuracy = tune_figures(made.network, job.data)["accuracy"]
            said = {"widths": made.widths, "whole": made.whole, "untrained": accuracy}
            paths.replace(done, json.dumps(said))
        return load_model(file, job.layers()), json.loads(done.read_text())

    def _taught(self, job: Job, network: Any) -> Any:
        """Return what is to be trained: by the labels alone where they are all that counts."""
        if self.teaching.alpha == 1:
            return job.taught(network, Teaching(), joint=self.joint)
        if self.teaching.teacher:
            return job.taught(network, self.teaching, joint=self.joint, precision=self.precision)
        job = replace(job, inputs={**job.inputs, "teacher": job.inputs["of"]})
        own = replace(self.teaching, teacher=Network("of"))
        return job.taught(network, own, joint=self.joint, precision=self.precision)


def _batches(job: Job, count: int) -> Iterator[tuple[Any, Any]]:
    """Yield labelled tune inputs of all classes, normalised, the labels one-hot."""
    import numpy as np

    from tfedge.data.sampling import stratified

    tune, classes = job.data.tune, len(job.data.labels)
    chosen = stratified(tune.classes, count)
    for start in range(0, len(chosen), _BATCH):
        rows = np.sort(chosen[start : start + _BATCH])
        labels = np.eye(classes, dtype=np.float32)[tune.classes[rows]]
        yield job.data.normalise(tune.inputs[rows]), labels


def _instructions(job: Job, board: str) -> Callable[[Any], float]:
    """Return what counts an inference of a network, as an int8 file, on `board`."""

    def count(network: Any) -> float:
        from tfedge.boards.cost import costs
        from tfedge.data.sampling import calibration
        from tfedge.tflite.conversion import to_int8

        samples = calibration(job.data, _COUNTED_ON)
        content = to_int8(network, samples, job.data.limits())
        (found,) = costs(content, (board,), f"[{job.name}]", job.progress)
        return found.instructions

    return count


def _notes(widths: Mapping[str, list[int]], said: Mapping[str, Any]) -> list[str]:
    """Say in plain words what went, and of what layers nothing could go."""
    from tfedge.networks.narrowing.rules import ANSWER

    went = ", ".join(f"{names} {had} to {has}" for names, (had, has) in widths.items())
    lines = [f"channels: {went}" if went else "no channel went: the network was small enough"]
    reasons: dict[str, list[str]] = {}
    for name, why in said["whole"].items():
        if why != ANSWER:
            reasons.setdefault(why, []).append(name)
    return lines + [f"{', '.join(names)} kept all: {why}" for why, names in reasons.items()]
