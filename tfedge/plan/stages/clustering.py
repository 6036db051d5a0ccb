"""The stage that makes weights share values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from tfedge.declarations import Plain, required, setting
from tfedge.errors import UserError
from tfedge.plan.job import Job
from tfedge.training.course import Course
from tfedge.training.teaching import Joint, Teaching

LEAST = 3
"""Clusters that a layer has at least: tfmot keeps zeros with one value on either side of 0."""


@dataclass(frozen=True)
class Cluster:
    """Make the weights of a layer share a few values while training goes on.

    Makes the zipped file smaller, and keeps the zeros of a pruned network.  It makes nothing faster
    in int8, because no TFLite kernel reads such values from a table.
    """

    version: ClassVar[int] = 1
    makes: ClassVar[str] = "clustered network"

    of: Plain = required("stage whose network is clustered; its zeros are kept")
    clusters: int = setting(
        16, "values that the weights of a layer have in the end, 0 among them", low=LEAST, high=256
    )
    init: str = setting(
        "kmeans++",
        "where the values start: by k-means++, at equal distances (linear), with equally many"
        " weights between them (density), or at random",
        choices=("kmeans++", "linear", "density", "random"),
    )
    layers: dict[str, int] = setting(
        {},
        'other numbers by layer name, such as { "answer" = 64, "conv_1" = 0 }; 0 leaves it whole',
        low=0,
        high=256,
    )
    teaching: Teaching = field(default=Teaching())
    joint: Joint = field(default=Joint())
    course: Course = field(default=Course(epochs=5, rate=1e-4))

    def check(self, where: str) -> None:
        """Refuse numbers that are too small to keep zeros with."""
        for name, count in self.layers.items():
            if 0 < count < LEAST:
                problem = f"{name!r} must have {LEAST} clusters or more, or 0 for none, got {count}"
                raise UserError(f"{where} layers", problem)

    def check_exits(self, count: int, where: str) -> None:
        """Refuse what does not fit the network's `count` exits."""
        self.joint.check_exits(count, where)

    def without_exits(self) -> Cluster:
        """Return it for a network that might have had exits and has none."""
        return replace(self, joint=Joint())

    def run(self, job: Job) -> dict[str, Any]:
        from tfedge.networks.kernels import clusters, in_words
        from tfedge.networks.precision import trained_as
        from tfedge.training import clustering
        from tfedge.training.fitting import fit, tune_figures
        from tfedge.training.preserving import Preserving, unwrapped
        from tfedge.training.pruning import sparsity_of, zeros
        from tfedge.training.replicas import together

        network = job.load("of")
        wish = clustering.Wish(self.clusters, self.init, self.layers)
        session = job.session()
        with together(self.course):
            wrapped = clustering.with_clustering(trained_as(network, "float32"), wish)
            history = fit(
                job.taught(wrapped, self.teaching, joint=self.joint),
                self.course,
                session,
                callbacks=[Preserving(unwrapped(wrapped))],
            )
        clustered = clustering.without_clustering(wrapped)
        job.save(clustered)
        small, shared = clustering.too_small(network, wish), clusters(clustered)
        return (
            tune_figures(clustered, job.data)
            | job.network_figures(clustered)
            | {"clusters": shared}
            | {"sparsity": sparsity_of(clustered), "zeros": zeros(clustered)}
            | {"epochs": len(history), "history": history}
            | {"notes": _notes(in_words(shared), clustering.unclustered(network), small)}
        )


def _notes(shared: str, unclustered: dict[str, str], small: list[str]) -> list[str]:
    from tfedge.networks.kernels import listed

    notes = []
    if shared:
        notes.append(
            f"weights share {shared}: that shortens the zipped file, and makes int8 no faster"
        )
    for kind in dict.fromkeys(unclustered.values()):
        names = [name for name, other in unclustered.items() if other == kind]
        notes.append(f"tfmot clusters no {kind}: {listed(names)} left whole")
    if small:
        notes.append(f"{listed(small)} left whole: too few weights to share so many values")
    return notes
