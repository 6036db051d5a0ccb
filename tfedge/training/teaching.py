"""What a teacher adds to a training: settings of every stage that one can teach in."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tfedge.declarations import Network, setting
from tfedge.errors import UserError


@dataclass(frozen=True)
class Teaching:
    """Whose answers a network is trained to give beside the labels, and how much they count.

    Attributes are the settings that a user writes; `tfedge stages` prints their help.

    On 5,391 images of CIFAR-10, a ResNet-8 of width 16 taught for 24 epochs got 71.0 % of 5,000
    test images right with new views in every epoch, 71.2 % with 8, 70.3 % with 4 and 69.5 % with 2
    (95 % intervals of 1.3 points).  An epoch with a teacher at work took 1.7 plain ones there, one
    with kept answers 1.0: over 30 epochs, 4 views cost 9 % and 8 cost 19 %.
    """

    teacher: Network = setting("", "stage whose network teaches")
    temperature: float = setting(
        4.0, "softens both answers; 1 leaves them as they are", low=0.1, high=100
    )
    alpha: float = setting(
        0.1, "share of the labels' loss; the teacher's is the rest", low=0, high=1
    )
    teacher_precision: str = setting(
        "same",
        "of the teacher's arithmetic; bfloat16 is faster where the processor has AMX, same is the"
        " stage's own precision",
        choices=("same", "float32", "bfloat16"),
    )

    views: int = setting(
        4,
        "so many epochs of augmented inputs come back in turn, each time in another order, with the"
        " teacher's answers kept: it runs in the first ones alone, and in none where a stage before"
        " had it answer; more show a small data set in more ways; 0 shows new ones in every epoch,"
        " and runs the teacher for them",
        low=0,
        high=10_000,
    )

    def check(self, where: str) -> None:
        """Refuse settings of a teaching without a teacher: nothing would come of them."""
        for field in dataclasses.fields(self):
            if not self.teacher and getattr(self, field.name) != field.default:
                fix = 'write teacher = "stage", or leave it out'
                raise UserError(f"{where} {field.name}", "is for a teacher's answers", fix)


@dataclass(frozen=True)
class Joint:
    """How much the exits of a network count while they are trained together.

    Attributes are the settings that a user writes; `tfedge stages` prints their help.
    """

    exit_weights: tuple[float, ...] = setting(
        (),
        "of a network with exits: what each exit's loss counts, from the first exit to the last;"
        " only the proportion matters; if left out, all count alike",
        low=0,
        high=1e6,
    )
    self_distillation: float = setting(
        0.5,
        "of a network with exits: the share that answering as the last exit does has in what the"
        " others learn; the labels and the teacher have the rest",
        low=0,
        high=1,
    )
    exit_temperature: float = setting(
        3.0, "of self_distillation: softens both answers, as temperature does", low=0.1, high=100
    )

    def check(self, where: str) -> None:
        """Refuse weights with which nothing would be learned."""
        if self.exit_weights and not any(self.exit_weights):
            problem = f"one at least must be above 0, got {list(self.exit_weights)}"
            raise UserError(f"{where} exit_weights", problem)

    def check_exits(self, count: int, where: str) -> None:
        """Refuse settings that do not fit a network of `count` exits; 1 for one without."""
        if count == 1:
            for field in dataclasses.fields(self):
                if getattr(self, field.name) != field.default:
                    fix = 'leave it out, or give the network exits first: use = "exits"'
                    raise UserError(f"{where} {field.name}", "is for a network with exits", fix)
        if self.exit_weights and len(self.exit_weights) != count:
            problem = f"the network has {count} exits, the last included"
            got = f"got {len(self.exit_weights)} weights"
            raise UserError(f"{where} exit_weights", f"{problem}, {got}", "write one for each")


_MUST_BE_GIVEN: Any = dataclasses.MISSING
ALWAYS = Teaching(teacher=_MUST_BE_GIVEN)
"""The default of a stage that is nothing without a teacher."""
