"""What workers are handed, and what they hand back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOK, TRAIN, WHOLE = "look", "train", "whole"


@dataclass(frozen=True)
class Task:
    """A piece of work; the same one done twice costs little the second time.

    Attributes:
      kind: `LOOK` at the untrained network, `TRAIN` it up to its .tflite, or build the `WHOLE`
        pipeline, the test split's evaluation included.
      number: The candidate's.
      file: The pipeline's.
      changes: What makes it this candidate, as --set takes it.
      root: The build folder.
      data: What stands for the data in recipes.
      answer: The stage whose .tflite counts.
      judged: The stage that is trained in rungs.
      epoch: Where the judged stage pauses; 0 for nowhere.
      boards: Whose instructions are counted of an untrained network.
      log: Where the worker tells how it goes.
      store: An URL where machines without a common folder share stages; empty for none.
    """

    kind: str
    number: int
    file: Path
    changes: tuple[str, ...]
    root: Path
    data: Mapping[str, Any]
    answer: str
    judged: str = ""
    epoch: int = 0
    boards: tuple[str, ...] = ()
    log: Path | None = None
    store: str = ""


@dataclass
class Outcome:
    """What came of a task.

    Attributes:
      figures: Of a look: what is known of the file.  Of a training: accuracy and count on tune, and
        the file's bytes if there is one already.
      epochs: That the judged stage has trained.
      paused: Whether it has more to train.
      made: Seconds of each stage that this task made, by the stage's name and key.
      shared: Names and keys of the stages that it found made.
      refused: Why it cannot be, if it cannot.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    paused: bool = False
    made: dict[str, float] = field(default_factory=dict)
    shared: list[str] = field(default_factory=list)
    refused: str = ""
