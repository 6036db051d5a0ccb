"""What the owner of the data decides, and whom to tell how it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tfedge.errors import UserError


@dataclass(frozen=True)
class Choices:
    """Decisions that photos and arrays share.

    Attributes:
      tune_share: Share of the examples that becomes the tune split where none is given, 0 to 1.
      test_share: The same for the test split.
      normalise: See `dataset.normalisation`; empty takes the default for the kind of data.
      skip_unreadable: Leave out photos that cannot be read instead of refusing the folder.
      skip_duplicates: Of an example in several splits, keep the copies in test, else in tune,
        instead of refusing the data.
    """

    tune_share: float = 0.1
    test_share: float = 0.1
    normalise: str = ""
    skip_unreadable: bool = False
    skip_duplicates: bool = False

    def __post_init__(self) -> None:
        total = self.tune_share + self.test_share
        if min(self.tune_share, self.test_share) < 0 or total >= 1:
            raise UserError(
                "[data] tune_share and test_share",
                f"must leave something to train on, got {self.tune_share} and {self.test_share}",
                "write shares such as 0.1 and 0.1",
            )


@dataclass(frozen=True)
class Says:
    """Whom to tell.

    Attributes:
      progress: Is told how many photos are decoded, of how many, a few times a second.
      message: Is told what was left out, in one sentence.
    """

    progress: Callable[[int, int], None] = lambda done, total: None  # noqa: ARG005
    message: Callable[[str], None] = lambda text: None  # noqa: ARG005
