"""What a stage is handed while it runs."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tfedge.plan.about import About
from tfedge.plan.refs import Ref
from tfedge.progress import Progress

if TYPE_CHECKING:
    from tfedge.data.dataset import Data
    from tfedge.training.distillation import Hints
    from tfedge.training.fitting import Session, Watch
    from tfedge.training.teaching import Joint, Teaching

MODEL = "model.h5"
TFLITE = "model.tflite"
FLOAT = "float.tflite"
"""What a network is measured by: as it would be on a board if nothing more were done to it."""
LESSONS = "lessons"
COMPILED = "model_edgetpu.tflite"
"""Of a `convert` for a Coral; named as Google's compiler does."""
EXAMPLES = "leaving.png"
"""Pictures of the data that leave at each exit, a row an exit."""
LOST = "lost.npz"
"""Pictures that only the float network has right: uint8 [count, height, width, channels]."""


@dataclass(frozen=True)
class Job:
    """What a stage works with while it runs.

    Attributes:
      name: The stage's own, in the pipeline file.
      out: Folder for the stage's files; empty, or as an interrupted run left it.
      scratch: Folder below `out` that is kept after a crash and removed after success.
      inputs: The folder of each Input setting's stage.
      data: The pipeline's data, normalised as the network of the input `of` takes it.
      augment: Names of augmentations and functions of the user's, see `training_batches`.
      seed: The same for every stage of a pipeline.
      code: Refs to all networks of the pipeline: a layer of the user's own is defined beside them.
      progress: Where to report.
      made_by: What a card says of its origin: versions, pipeline, stage, key.
      pipeline_mean: Of the [data] table's normalisation, which all networks of builders take.
      pipeline_std: As `pipeline_mean`.
      logs: Folder for TensorBoard's events; None if nobody wants them.
      lessons: Folder for what teachers answer to the data; in `scratch` unless stages share one.
      watch: Told of each epoch of the stage's trainings, see `Session`.
      untrained: Leave training out, see `Session`.
    """

    name: str
    out: Path
    scratch: Path
    inputs: Mapping[str, Path]
    data: Data
    augment: Sequence[str | Callable[..., Any]]
    seed: int
    code: Sequence[Ref]
    progress: Progress
    made_by: Mapping[str, str]
    pipeline_mean: tuple[float, ...]
    pipeline_std: tuple[float, ...]
    logs: Path | None = None
    lessons: Path | None = None
    watch: Watch | None = None
    untrained: bool = False

    def load(self, setting: str) -> Any:
        """Return the Keras model that the stage named by `setting` has saved.

        One that is fed otherwise than `data` says gets a layer in front that makes up for it.
        """
        from tfedge.networks.saving import load_model

        model = load_model(self.inputs[setting] / MODEL, self.layers())
        about = self.about(setting)
        own = (about.mean, about.std) if about else (self.pipeline_mean, self.pipeline_std)
        if own == (self.data.mean, self.data.std):
            return model
        from tfedge.networks.preparation.inputs import refed

        return refed(model, own, (self.data.mean, self.data.std))

    def layers(self) -> dict[str, type]:
        """Return the user's own layers by the name of their class."""
        from tfedge.networks.backend import layers_in

        custom: dict[str, type] = {}
        for ref in self.code:
            custom |= layers_in(ref.module())
        return custom

    def about(self, setting: str) -> About | None:
        """Return what the folder of an input says of the network in it."""
        return About.read(self.inputs[setting]) if setting in self.inputs else None

    def save(self, model: Any, about: About | None = None) -> None:
        """Save a Keras model as the stage's result.

        Args:
          about: How it is fed; as the network of the input `of`, unless given.
        """
        from tfedge.networks.saving import save_model

        about = about or self.about("of")
        if about:
            about.write(self.out)
        save_model(model, self.out / MODEL)

    def pass_on(self, network: Any = None) -> None:
        """Keep the network of the input `of` beside the .tflite that was made of it.

        Args:
          network: What the input's network became before the .tflite was made, if it was changed.
        """
        if network is None:
            shutil.copyfile(self.inputs["of"] / MODEL, self.out / MODEL)
        else:
            from tfedge.networks.saving import save_model

            save_model(network, self.out / MODEL)
        if about := self.about("of"):
            about.write(self.out)

    def construct(self, model: Ref, options: dict[str, Any]) -> Any:
        """Return a new Keras model from a builder, (input shape, number of classes) -> logits."""
        from tfedge.networks.backend import build, seed_everything

        seed_everything(self.seed)
        return build(model.guarded(), self.data.shape, len(self.data.labels), options)

    def session(self) -> Session:
        """Return what a training works with."""
        from tfedge.networks.backend import seed_everything
        from tfedge.training.fitting import Session

        seed_everything(self.seed)
        given = (self.name, self.data, self.augment, self.seed, self.scratch, self.progress)
        return Session(*given, logs=self.logs, watch=self.watch, untrained=self.untrained)

    def taught(
        self,
        model: Any,
        teaching: Teaching,
        *,
        joint: Joint | None = None,
        precision: str = "float32",
        hints: Hints | None = None,
    ) -> Any:
        """Return what `fit` is to train: `model`, and where one teaches it, its `Distiller`.

        Of a network with exits it is the `JointTraining`, whether one teaches it or not.

        Args:
          model: As it trains, with whatever wrappers.
          teaching: The stage's own; its setting `teacher` names one of the job's inputs.
          joint: How the exits of a network with exits count.
          precision: Of the stage, which is the teacher's unless it has another.
        """
        from tfedge.training.distillation import Hints, taught
        from tfedge.training.exits import jointly
        from tfedge.training.teaching import Joint

        joint = joint or Joint()
        count = len(model.outputs)
        joint.check_exits(count, f"[{self.name}]")
        if not teaching.teacher:
            return model if count == 1 else jointly(model, joint)
        if teaching.teacher_precision == "same":
            teaching = replace(teaching, teacher_precision=precision)
        lessons = self._lessons(teaching.teacher_precision)
        teacher = self.load("teacher")
        if count > 1:
            return jointly(model, joint, teacher, teaching, lessons)
        return taught(model, teacher, teaching, hints or Hints(), lessons)

    def _lessons(self, precision: str) -> Path:
        """Return the folder for what the teacher, computing in `precision`, answers to this data.

        One that its name alone tells apart, so that all stages which it teaches share it.
        """
        with (self.inputs["teacher"] / MODEL).open("rb") as stream:
            network = hashlib.file_digest(stream, "sha256").hexdigest()
        fed = (self.about("teacher"), self.data.mean, self.data.std)
        key = hashlib.sha256(repr((network, precision, fed)).encode()).hexdigest()
        return (self.lessons or self.scratch / LESSONS) / key[:16]

    def network_figures(self, model: Any) -> dict[str, Any]:
        """Measure a Keras model as the float32 .tflite that it would make, and keep that file."""
        from tfedge.tflite.conversion import to_float

        content = to_float(model)
        (self.out / FLOAT).write_bytes(content)
        return file_figures(content, self.name)


def file_figures(content: bytes, where: object) -> dict[str, Any]:
    """Measure a .tflite: parameters, multiply-accumulates, bytes, bytes when zipped, and arena."""
    from tfedge.tflite import arena
    from tfedge.tflite.facts import facts

    found = facts(content, where)
    names = {name for name, _ in found.operators}
    # What these multiply is not counted, and a figure that is wrong is worse than none.
    whole = not any(word in name for name in names for word in ("LSTM", "RNN", "SVDF", "WHILE"))
    return {
        "parameters": found.parameters,
        **({"macs": found.macs} if whole else {}),
        "raw_bytes": len(content),
        "zipped_bytes": len(zlib.compress(content, 9)),
        "arena_bytes": arena.peak(found.subgraphs),
    }


class Stage(Protocol):
    """What the builder asks of a stage; a user's own class needs no base class.

    The stages of tfedge also have a `version`.  Whoever changes what one of them makes raises it by
    one, and everybody's builds run that stage again.  A user's stage runs again when its file
    changes.  `makes` says what is found in the folder: "network", "clustered network",
    "8-bit network", "tflite", or nothing of these.  A stage that gives its network early exits
    says "network with exits"; of one that comes with exits, that goes without saying.
    """

    def run(self, job: Job) -> dict[str, Any]:
        """Write files into `job.out`; return figures for the report, as JSON values."""
