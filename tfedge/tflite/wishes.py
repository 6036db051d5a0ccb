"""What a user can wish of a conversion."""

from __future__ import annotations

from dataclasses import dataclass

from tfedge.declarations import setting
from tfedge.errors import UserError


@dataclass(frozen=True)
class Wishes:
    """Settings of a conversion."""

    form: str = setting(
        "int8",
        "of the numbers: integers throughout, or float with small weights, or float",
        choices=("int8", "int16x8", "dynamic", "float16", "float32"),
    )
    calibrate: int = setting(
        200, "tune inputs that set the activations' ranges", low=1, high=100_000
    )
    repair: str = setting(
        "none",
        "what is done about a loss in int8 without training; auto keeps what helps on tune",
        choices=("none", "auto", "equalise", "equalise relu6", "clip", "ranges", "biases"),
    )
    max_drop: float = setting(
        1.0, "accuracy that may be lost on tune, as a share: 0.01 is one point", low=0, high=1
    )
    fallback: str = setting(
        "none",
        "what a layer becomes that int8 costs too much for max_drop",
        choices=("none", "int16x8", "float"),
    )
    strict: bool = setting(
        default=True, help="stop where the calibration inputs look wrong, instead of saying so"
    )

    def check(self, where: str) -> None:
        """Refuse settings that contradict one another."""
        whole = 1.0
        for name in ("repair", "fallback"):
            if getattr(self, name) != "none" and self.form != "int8":
                fix = 'write form = "int8", or leave it out'
                raise UserError(f"{where} {name}", f"is for int8, not for {self.form}", fix)
        if self.fallback != "none" and self.max_drop == whole:
            fix = "write max_drop = 0.01, say: what may be lost before a layer leaves int8"
            raise UserError(f"{where} fallback", "needs max_drop", fix)
