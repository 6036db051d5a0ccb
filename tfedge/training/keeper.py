"""What an epoch leaves behind: a state to go on from, the best weights so far, and the history."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfedge import paths
from tfedge.errors import UserError
from tfedge.networks.backend import keras


class Keeper(keras.callbacks.Callback):
    """Keeps a training resumable, and its best weights.

    After every epoch the model with its optimiser is saved by `tf.train.CheckpointManager`, so that
    a killed process loses one epoch at most.

    Args:
      folder: Holds the state; a Keeper that finds one there goes on from it.
      patience: Stop after so many epochs without a better tune accuracy; 0 never stops.
      first: The first epoch whose weights may be the best; before it, a pruning that is still
        under way would win with weights that are not yet sparse.
    """

    def __init__(self, folder: Path, *, patience: int = 0, first: int = 0) -> None:
        super().__init__()
        self.folder = folder
        self.patience = patience
        self.first = first
        self.history: list[dict[str, float]] = []

    def resume(self, model: keras.Model) -> int:
        """Bring a compiled `model` to where it was; return the epoch to go on with."""
        model.optimizer.build(model.trainable_variables)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._epoch = tf.Variable(0, dtype=tf.int64)
        state = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epoch=self._epoch)
        self._manager = tf.train.CheckpointManager(state, str(self.folder), max_to_keep=1)
        if not self._manager.latest_checkpoint:
            return 0
        try:
            state.restore(self._manager.latest_checkpoint).expect_partial()
            history = json.loads((self.folder / "history.json").read_text("utf-8"))
        except (tf.errors.OpError, OSError, ValueError) as error:
            fix = "remove that folder; the training then begins anew"
            raise UserError(self.folder, f"holds a damaged state: {error}", fix) from None
        self.history = history[: int(self._epoch.numpy())]
        return int(self._epoch.numpy())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        if self.best == epoch:
            np.savez(self._weights(epoch), *self.model.get_weights())
        paths.replace(self.folder / "history.json", json.dumps(self.history))
        self._epoch.assign(epoch + 1)
        self._manager.save()
        # The file of an earlier best is dropped only now: up to here a kill would need it.
        for file in self.folder.glob("best-*.npz"):
            if file != self._weights(self.best):
                file.unlink()
        self.model.stop_training = self.spent

    @property
    def best(self) -> int:
        """The epoch of the highest tune accuracy, of equals the one with the lowest tune loss.

        Of a network with exits the mean of their accuracies counts.
        """
        ranks = [(_accuracy(row), -row["val_loss"]) for row in self.history[self.first :]]
        return self.first + ranks.index(max(ranks)) if ranks else len(self.history) - 1

    @property
    def spent(self) -> bool:
        """Whether patience has run out."""
        stale = len(self.history) - 1 - self.best
        return bool(self.patience and self.history and stale >= self.patience)

    def restore_best(self, model: keras.Model) -> None:
        """Give `model` the weights of the best epoch."""
        with np.load(self._weights(self.best)) as weights:
            model.set_weights([weights[name] for name in weights.files])

    def _weights(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch:04}.npz"


def _accuracy(row: dict[str, float]) -> float:
    """Return the mean of the tune accuracies of an epoch."""
    found = [
        number
        for name, number in row.items()
        if name.startswith("val_") and name.endswith("accuracy")
    ]
    return float(np.mean(found))
