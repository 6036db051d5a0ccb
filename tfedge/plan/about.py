"""What a stage's folder says of the network in it, where the pipeline's data does not say it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfedge.data.dataset import Data

FILE = "network.json"


@dataclass(frozen=True)
class About:
    """How a network that was trained elsewhere is fed, and what it answers.

    Attributes:
      mean: It takes (x - mean) / std, x as recorded; one number a channel.
      std: As `mean`, above 0.
      output: What turns its logits into probabilities, "softmax" or "sigmoid".
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str = "softmax"

    @classmethod
    def read(cls, folder: Path) -> About | None:
        """Return what a stage's folder says; None where the pipeline's data says it all."""
        file = folder / FILE
        if not file.is_file():
            return None
        found = json.loads(file.read_text("utf-8"))
        return cls(tuple(found["mean"]), tuple(found["std"]), found["output"])

    def write(self, folder: Path) -> None:
        """Write it into a stage's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    def view(self, data: Data) -> Data:
        """Return the data as this network takes it."""
        return replace(data, mean=self.mean, std=self.std)
