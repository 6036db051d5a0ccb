"""What a stage is handed while it runs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tfedge.plan.refs import Ref
from tfedge.progress import Progress

if TYPE_CHECKING:
    from tfedge.data.dataset import Data
    from tfedge.training.fitting import Session

MODEL = "model.h5"
TFLITE = "model.tflite"


@dataclass(frozen=True)
class Job:
    """What a stage works with while it runs.

    Attributes:
      name: The stage's own, in the pipeline file.
      out: Folder for the stage's files; empty, or as an interrupted run left it.
      scratch: Folder below `out` that is kept after a crash and removed after success.
      inputs: The folder of each Input setting's stage.
      data: The pipeline's data.
      augment: Names of augmentations and functions of the user's, see `training_batches`.
      seed: The same for every stage of a pipeline.
      code: Refs to all networks of the pipeline: a layer of the user's own is defined beside them.
      progress: Where to report.
      made_by: What a card says of its origin: versions, pipeline, stage, key.
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

    def load(self, setting: str) -> Any:
        """Return the Keras model that the stage named by `setting` has saved."""
        from tfedge.networks.backend import layers_in, load_model

        custom: dict[str, type] = {}
        for ref in self.code:
            custom |= layers_in(ref.module())
        return load_model(self.inputs[setting] / MODEL, custom)

    def save(self, model: Any) -> None:
        """Save a Keras model as the stage's result."""
        from tfedge.networks.backend import save_model

        save_model(model, self.out / MODEL)

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
        return Session(self.name, self.data, self.augment, self.seed, self.scratch, self.progress)

    def network_figures(self, model: Any) -> dict[str, Any]:
        """Measure a Keras model's size, as the float32 .tflite that it would make."""
        from tfedge.tflite.conversion import to_float

        return file_figures(to_float(model), self.name)


def file_figures(content: bytes, where: object) -> dict[str, Any]:
    """Measure a .tflite: parameters, multiply-accumulates, bytes, and bytes when zipped."""
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
    }


class Stage(Protocol):
    """What the builder asks of a stage; a user's own class needs no base class.

    The stages of tfedge also have a `version`.  Whoever changes what one of them makes raises it by
    one, and everybody's builds run that stage again.  A user's stage runs again when its file
    changes.  `makes` says what is found in the folder: "network", "tflite", or nothing of these.
    """

    def run(self, job: Job) -> dict[str, Any]:
        """Write files into `job.out`; return figures for the report, as JSON values."""
