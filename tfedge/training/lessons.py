"""What a teacher has answered, kept in files, so that it need not answer twice.

With views that come back every K epochs, a teacher costs K epochs of its answers however long the
training.  TinyViT (Wu et al. 2022, section 3, https://arxiv.org/abs/2207.10666) keeps an
augmentation's seed and its logits, as here, and not its pixels.  Teacher and student see the same
view, which is what matters (Beyer et al. 2022, https://arxiv.org/abs/2106.05237).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfedge.data.maps import UNREADABLE, Rows, create
from tfedge.errors import UserError
from tfedge.training.batches import Order

Teach = Callable[[tf.Tensor], Sequence[tf.Tensor]]
"""Maps inputs to the teacher's logits, then its features, one tensor a pair."""


class Lessons:
    """A teacher's logits for the batches of the first epochs, each computed when it is first seen.

    A file an epoch, float32 [count, classes + 1], in the order of the batches; the last column is 1
    where the row is there.  What a killed process has written is not computed again, and neither
    is what another stage with the same teacher, data, augmentation, seed and batch has.

    Args:
      folder: Of one teacher, as it computes, and one data with its augmentation.
      views: Epochs after which batches come back, at least 1; see `Order`.
    """

    def __init__(self, folder: Path, views: int) -> None:
        self.folder = folder
        self.views = views

    def open(self, order: Order, classes: int, epochs: int) -> None:
        """Find or make the files for a training of so many epochs."""
        self._order = order
        folder = self.folder / f"seed{order.seed}-batch{order.batch}"
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"view-{view:04}.npy" for view in range(min(self.views, epochs))]
        shape = (order.count, classes + 1)
        missing = [file for file in files if not _is_whole(file, shape)]
        _refuse_too_large(len(missing) * shape[0] * shape[1] * 4, folder)
        for file in missing:
            _create(file, shape)
        self._kept = [np.load(file, mmap_mode="r") for file in files]

    def recall(self, number: np.int64) -> np.ndarray:
        """Return the rows of a batch, float32 [batch, classes + 1]."""
        view, rows = self._place(number)
        return np.array(self._kept[view][rows])

    def learn(self, number: np.int64, logits: np.ndarray, first: int = 0) -> np.ndarray:
        """Keep logits, float32 [rows, classes], of a batch from its row `first` on; return them."""
        view, rows = self._place(number)
        kept = self._kept[view]
        there = np.ones((len(logits), 1), np.float32)
        file = Rows(Path(kept.filename), kept.offset, kept.strides[0])
        file.put(rows.start + int(first), np.concatenate([logits, there], axis=1))
        return logits

    def answer(
        self, teach: Teach, inputs: tf.Tensor, number: tf.Tensor, first: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return the teacher's logits for a batch, float32 [batch, classes], running it if need be.

        Args:
          number: Of the batch, int64; see `Order`.
          first: Where `inputs` are a part of the batch, the first row of it, int64.
        """
        kept = tf.numpy_function(self.recall, [number], tf.float32)
        kept = tf.ensure_shape(kept, (None, self._kept[0].shape[1]))
        if first is not None:
            kept = kept[first : first + tf.shape(inputs, tf.int64)[0]]
        place = [] if first is None else [first]

        def live() -> tf.Tensor:
            logits = tf.cast(teach(inputs)[0], tf.float32)
            told = tf.numpy_function(self.learn, [number, logits, *place], tf.float32)
            return tf.ensure_shape(told, logits.shape)

        return tf.cond(tf.reduce_all(kept[:, -1] > 0), lambda: kept[:, :-1], live)

    def _place(self, number: np.int64) -> tuple[int, slice]:
        view, place = divmod(int(number), self._order.steps)
        start = place * self._order.batch
        return view, slice(start, min(start + self._order.batch, self._order.count))


def _create(file: Path, shape: tuple[int, ...]) -> None:
    """Make a file of zeros, unless another stage that begins at this moment has just done so.

    To empty a file that another process has mapped would kill that process.
    """
    mine = file.with_name(f".{file.name}.{os.getpid()}")
    create(mine, shape, np.float32)
    try:
        if file.exists() and not _is_whole(file, shape):
            mine.replace(file)
        else:
            with suppress(FileExistsError):
                file.hardlink_to(mine)
    except OSError:  # a file system without links
        mine.replace(file)
    finally:
        mine.unlink(missing_ok=True)


def _is_whole(file: Path, shape: tuple[int, ...]) -> bool:
    try:
        found = np.load(file, mmap_mode="r")
    except UNREADABLE:
        return False
    return found.shape == shape and found.dtype == np.float32


def _refuse_too_large(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        problem = f"needs {size:,} bytes for the teacher's answers, and has {free:,} left"
        raise UserError(folder, problem, "free some, or write views = 0, which keeps none")
