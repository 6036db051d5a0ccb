"""The stage that gives a network early exits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tfedge.declarations import Single, required, setting
from tfedge.errors import UserError
from tfedge.plan.job import Job
from tfedge.training.course import PRECISION, Course
from tfedge.training.teaching import Joint, Teaching

_COUNT = 2


@dataclass(frozen=True)
class Exits:
    """Give a network early exits and train all of them together.

    A board then answers easy inputs after a part of the network.  `convert` chooses from when on an
    exit is sure enough.
    """

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "network with exits"

    of: Single = required("stage whose network gets exits; its zeros are kept")
    points: tuple[str, ...] = setting(
        (),
        "layers, by name and from early to late, behind each of which an exit comes, where no other"
        " tensor is needed later; if left out, they are chosen",
    )
    count: int = setting(
        _COUNT,
        "early exits, evenly spaced by multiply-accumulates, where points names none",
        low=1,
        high=16,
    )
    head: str = setting(
        "separable",
        "what answers at an early exit: a mean over all pixels and a dense layer, or before them a"
        " depthwise-separable block, which costs more and knows more",
        choices=("pool", "separable"),
    )
    joint: Joint = field(default=Joint())
    teaching: Teaching = field(default=Teaching())
    course: Course = field(default=Course(epochs=15, rate=1e-3))
    precision: str = PRECISION

    @property
    def exits(self) -> int:
        """How many exits its network has, the last included."""
        return 1 + (len(self.points) or self.count)

    def check(self, where: str) -> None:
        """Refuse settings that contradict one another."""
        if self.points and self.count != _COUNT:
            problem = f"is for exits without points, and these name {len(self.points)}"
            raise UserError(f"{where} count", problem, "leave one of them out")
        if twice := [point for point in self.points if self.points.count(point) > 1]:
            problem = f"name {twice[0]!r} more than once"
            raise UserError(f"{where} points", problem, "name each layer once, from early to late")
        self.joint.check_exits(self.exits, where)

    def check_network(self, network: Any) -> None:
        """Refuse a network, before it is trained, that cannot have these exits."""
        from tfedge.networks.exits import even_points, with_exits

        with_exits(network, self.points or even_points(network, self.count), self.head)

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.networks.exits import even_points, of_a_head, with_exits
        from tfedge.networks.kernels import kernels
        from tfedge.networks.precision import trained_as
        from tfedge.training.fitting import fit, tune_figures
        from tfedge.training.preserving import Preserving
        from tfedge.training.pruning import sparsity_of
        from tfedge.training.replicas import together

        plain = job.load("of")
        before = tune_figures(plain, job.data)["accuracy"]
        points = self.points or even_points(plain, self.count)
        session = job.session()
        network = with_exits(plain, points, self.head, seed=job.seed)
        with together(self.course):
            twin = trained_as(network, self.precision)
            taught = job.taught(twin, self.teaching, joint=self.joint, precision=self.precision)
            kept = [kernel for name, kernel in kernels(twin).items() if not of_a_head(name)]
            history = fit(taught, self.course, session, callbacks=[Preserving(kept)])
        network.set_weights(twin.get_weights())
        job.save(network)
        figures = tune_figures(network, job.data) | job.network_figures(network)
        figures["exits"] = _placed(network, points, figures["exits"])
        return (
            figures
            | {"before": before, "sparsity": sparsity_of(network)}
            | {"epochs": len(history), "history": history}
            | {"notes": _notes(figures["exits"], before)}
        )


def _placed(
    network: Any, points: tuple[str, ...], exits: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Add to each exit's figures where it is, and what it takes to answer there.

    ``macs`` counts the multiply-accumulates of the network up to the exit with all heads on the
    way, ``cost`` is what that is of the whole.
    """
    from tfedge.networks.exits import macs_to

    placed = {name: dict(figures) for name, figures in exits.items()}
    for figures, point in zip(placed.values(), points, strict=False):  # the last has none
        figures["after"] = point
    if counts := macs_to(network):
        for figures, count in zip(placed.values(), counts, strict=True):
            figures |= {"macs": round(count), "cost": count / counts[-1]}
    return placed


def _notes(exits: Mapping[str, Mapping[str, Any]], before: float) -> list[str]:
    """Say in plain words where the exits are and what it costs to answer there."""
    lines = []
    for name, figures in exits.items():
        if "after" in figures:
            cost = f", for {figures['cost']:.1%} of the MACs" if "cost" in figures else ""
            lines.append(f"{name} is behind {figures['after']}{cost}")
    return [*lines, f"without early exits {before:.2%} of tune were right"]
