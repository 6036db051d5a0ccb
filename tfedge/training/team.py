"""Which process this is of those that train one network together, as TF_CONFIG says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from tfedge.errors import UserError

ONE = "one"
MIRRORED = "mirrored"
MULTI_WORKER = "multi_worker"
STRATEGIES = (ONE, MIRRORED, MULTI_WORKER)

VARIABLE = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["host_a:2222", "host_b:2222"]},'
    ' "task": {"type": "worker", "index": 0}}'
)
_FIX = f"set it for each process, here for the first of two: {VARIABLE}='{_EXAMPLE}'"
_JOBS = ("chief", "worker")


@dataclass(frozen=True)
class Member:
    """A process among those that train together.

    Attributes:
      index: Its number; 0 is the chief, who alone writes what is kept.
      addresses: Of all processes, each as host:port, in the order of their numbers.
    """

    index: int
    addresses: tuple[str, ...]

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what is kept."""
        return self.index == 0

    @property
    def others(self) -> tuple[str, ...]:
        """The addresses of all but this process."""
        return self.addresses[: self.index] + self.addresses[self.index + 1 :]

    def __str__(self) -> str:
        return f"process {self.index + 1} of {len(self.addresses)}"


ALONE = Member(0, ("",))


def member(environment: Mapping[str, str] = os.environ) -> Member:
    """Read TF_CONFIG as TensorFlow does; without it a process is alone.

    The processes are those of the job "chief", of which there is one at most, then those of
    "worker".  Any other job, such as a parameter server, has no part in this.
    """
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return ALONE
    try:
        found = json.loads(text)
        cluster, task = found.get("cluster", {}), found.get("task", {})
        jobs = {job: list(cluster.get(job, ())) for job in _JOBS}
        others = sorted({*cluster, task.get("type", "worker")} - {*_JOBS})
        job, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(VARIABLE, f"cannot be read: {error}", _FIX) from None
    if not any(jobs.values()):
        return ALONE
    if others:
        problem = f"names the job {others[0]!r}; those that train together are chief and worker"
        raise UserError(VARIABLE, problem, _FIX)
    if not 0 <= index < len(jobs[job]):
        problem = f"says that this is {job} {index}, and names {len(jobs[job])} of them"
        raise UserError(VARIABLE, problem, _FIX)
    before = len(jobs["chief"]) if job == "worker" else 0
    return Member(before + index, (*jobs["chief"], *jobs["worker"]))


def check(where: str) -> None:
    """Refuse to train on several machines where TF_CONFIG names none."""
    if len(member().addresses) == 1:
        problem = f"{MULTI_WORKER!r} wants other processes, and {VARIABLE} names none"
        fix = f"{_FIX}\n  or write strategy = {ONE!r}"
        raise UserError(f"{where} strategy".strip(), problem, fix)


def check_batch(batch: int, replicas: int, where: str) -> None:
    """Refuse a batch of which not every replica would get the same number of inputs."""
    if batch % replicas:
        fix = f"write a multiple of {replicas}, such as {-(-batch // replicas) * replicas}"
        problem = f"{batch} inputs a step cannot be split evenly over {replicas} processors"
        raise UserError(f"{where} batch".strip(), problem, fix)


def refuse(strategy: str, why: str, where: str) -> None:
    """Refuse any strategy but that of one processor, for a stage that cannot follow another.

    Args:
      why: What hinders it.
    """
    if strategy != ONE:
        fix = f"leave strategy out: this stage trains as {ONE!r}, and others may still be spread"
        raise UserError(f"{where} strategy", f"{strategy!r} is not possible here: {why}", fix)
