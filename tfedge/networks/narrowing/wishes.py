"""Which channels a user wants out of a network: settings of the stage that narrows."""

from __future__ import annotations

from dataclasses import dataclass

from tfedge.declarations import required, setting
from tfedge.errors import UserError

BOARDS = ("pi4", "pi5")


@dataclass(frozen=True)
class Wishes:
    """How much goes, and by what rule.

    Attributes are the settings that a user writes; `tfedge stages` prints their help.
    """

    remove: float = required("share that goes, above 0 and below 1, of what share_of says")
    share_of: str = setting(
        "macs",
        "what the share is of: multiply-accumulates, bytes in int8, channels, or the Arm"
        " instructions of a board",
        choices=("macs", "bytes", "channels", *BOARDS),
    )
    score: str = setting(
        "taylor",
        "what a channel is worth: the loss without it, to first order, on tune inputs; or by its"
        " weights alone",
        choices=("taylor", "l1", "l2", "batchnorm", "geometric_median"),
    )
    scope: str = setting(
        "global",
        "whether layers compete, worth for cost, for what is left, or each loses the same share",
        choices=("global", "layer"),
    )
    samples: int = setting(2000, "tune inputs that taylor looks at", low=8, high=100_000)
    multiple: int = setting(
        8,
        "a layer keeps a multiple of so many channels, or all; XNNPACK makes 8 at once",
        low=1,
        high=256,
    )
    least: int = setting(8, "channels that a layer keeps at least", low=1, high=4096)
    protect: tuple[str, ...] = setting(
        (), 'layers that keep all their channels, such as ["stem", "block_1_*"]'
    )

    def check(self, where: str) -> None:
        """Refuse shares that leave all or nothing."""
        if not 0 < self.remove < 1:
            raise UserError(f"{where} remove", f"must be between 0 and 1, got {self.remove}")
