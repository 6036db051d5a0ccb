"""What a user can wish of a conversion."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tfedge.declarations import setting
from tfedge.errors import UserError

MAX_DROP = 0.005
"""What leaving early may cost unless a user says otherwise: half a point."""


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

    def check_exits(self, where: str) -> None:
        """Refuse what a network with exits cannot be: its stages hand on int8 alone."""
        if self.form != "int8":
            problem = f"a network with exits becomes int8 alone, got {self.form}"
            raise UserError(f"{where} form", problem, 'write form = "int8", or leave it out')
        for name in ("repair", "fallback"):
            if getattr(self, name) != "none":
                fix = "leave it out, and put a qat stage before this one if int8 costs too much"
                raise UserError(f"{where} {name}", "is for networks without exits", fix)


@dataclass(frozen=True)
class Leaving:
    """Settings of the thresholds at which a network with exits, or a cascade, is left early."""

    exit_max_drop: float | None = setting(
        None,
        "accuracy that leaving early may cost against the last exit, as a share, with 95 %"
        f" confidence, for as little work as that allows; {MAX_DROP} if neither is given",
        low=0,
        high=1,
    )
    exit_mean_cost: float | None = setting(
        None,
        "mean work of an input as a share of the whole network's, for as little loss of accuracy as"
        " that allows; in place of exit_max_drop",
        low=0,
        high=1,
    )
    exit_cost: str = setting(
        "macs",
        "what work is measured by: multiply-accumulates, or Arm instructions on an emulated board",
        choices=("macs", "pi4", "pi5"),
    )

    def check(self, where: str) -> None:
        """Refuse both bounds at once."""
        if self.exit_max_drop is not None and self.exit_mean_cost is not None:
            fix = "write exit_max_drop or exit_mean_cost: the other one is made as small as it goes"
            raise UserError(f"{where} exit_mean_cost", "stands beside exit_max_drop", fix)

    @property
    def written(self) -> str:
        """The first of the settings that a user has written; empty if none was."""
        default = Leaving()
        names = (field.name for field in fields(self))
        return next((name for name in names if getattr(self, name) != getattr(default, name)), "")

    def bounds(self) -> dict[str, float]:
        """Return ``max_drop`` or ``mean_cost``, whichever holds."""
        if self.exit_mean_cost is not None:
            return {"mean_cost": self.exit_mean_cost}
        return {"max_drop": MAX_DROP if self.exit_max_drop is None else self.exit_max_drop}
