"""Workers on many machines: tasks of a Ray cluster."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tfedge.errors import UserError
from tfedge.search import crew, working
from tfedge.search.tasks import Outcome, Task

INSTALL = "pip install 'tfedge[cluster]'"


@dataclass(frozen=True)
class Needs:
    """What a task takes of its node, as Ray counts it.

    Attributes:
      cpus: Processors; TensorFlow gets as many threads.
      gpus: Graphics processors; 0.5 lets two tasks share one.
      memory: Bytes; 0 for no matter.
    """

    cpus: int = 1
    gpus: float = 0.0
    memory: int = 0


class Ray:
    """A crew of as many tasks as a cluster has room for.

    All nodes see the pipeline's file, its data and the build folder under the same path.  A task
    whose node is lost is begun again on another, and goes on after the last epoch that was kept.

    Args:
      address: Of the cluster's head, as ``ray start --head`` prints it; "auto" for the one that
        this machine belongs to.

    Raises:
      UserError: Ray is not installed or not reached, or no node has what a task needs.
    """

    def __init__(self, address: str, needs: Needs) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError("--ray", "needs Ray", f"run: {INSTALL}")
        import ray

        self._ray: Any = ray
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            fix = "start one with: ray start --head"
            raise UserError("--ray", f"no cluster at {address!r}: {error}", fix) from None
        self._check(needs)
        threads = {name: str(needs.cpus) for name in working.THREADS}
        self._remote = ray.remote(working.do).options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            memory=needs.memory or None,
            max_retries=crew.TRIES - 1,
            runtime_env={"env_vars": threads},
        )

    def each(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        left: dict[Any, int] = {self._remote.remote(task): place
                                for place, task in enumerate(tasks)}  # fmt: skip
        while left:
            (done, *_), _ = self._ray.wait(list(left), num_returns=1)
            place = left.pop(done)
            try:
                yield place, self._ray.get(done)
            except self._ray.exceptions.RayTaskError:
                raise  # an error of ours, with its traceback
            except self._ray.exceptions.RayError as error:
                raise crew.lost(tasks[place]) from error

    def close(self) -> None:
        self._ray.shutdown()

    def _check(self, needs: Needs) -> None:
        """Refuse what no node has: Ray would wait for such a node for ever."""
        wanted = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory}
        known: list[dict[str, Any]] = self._ray.nodes()
        nodes = [node["Resources"] for node in known if node["Alive"]]
        if any(all(node.get(name, 0) >= many for name, many in wanted.items()) for node in nodes):
            return
        asked = ", ".join(f"{name} {many:g}" for name, many in wanted.items() if many)
        has = "; ".join(
            ", ".join(f"{name} {node[name]:g}" for name in wanted if name in node) for node in nodes
        )
        fix = f"ask for less; the nodes have {has}"
        self._ray.shutdown()
        raise UserError("--ray", f"no node has {asked}", fix)
