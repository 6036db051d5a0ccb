"""Workers: processes of this machine, each with a TensorFlow of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from tfedge.errors import UserError
from tfedge.search import working
from tfedge.search.tasks import Outcome, Task

TRIES = 3
"""How often a task is begun whose worker dies under it."""


class Crew(Protocol):
    """Those who do a search's tasks."""

    def each(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Do tasks; yield the place of each and what came of it, as they end."""

    def close(self) -> None:
        """Send everybody home; what was being done stays as it is."""


class Processes:
    """A crew of `workers` processes.

    Args:
      workers: At least 1.
      threads: Of each one's TensorFlow; 0 shares out the processors that there are.  Sums are
        rounded otherwise by another number of threads, so a search ends alike only with the same.
    """

    def __init__(self, workers: int, threads: int = 0) -> None:
        cores = len(os.sched_getaffinity(0))
        self._workers = workers
        self._threads = threads or max(1, cores // workers)
        self._pool = self._opened()

    def each(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        left, tries = dict(enumerate(tasks)), dict.fromkeys(range(len(tasks)), 0)
        while left:
            begun = set(list(left)[: self._workers])
            try:
                given = {self._pool.submit(working.do, task): place for place, task in left.items()}
                for done in futures.as_completed(given):
                    place = given[done]
                    yield place, done.result()
                    del left[place]
                    begun |= set(list(left)[: self._workers])
            except BrokenProcessPool:
                self._pool.shutdown(wait=True)
                self._pool = self._opened()
                for place in begun & set(left):
                    tries[place] += 1
                    if tries[place] == TRIES:
                        raise lost(left[place]) from None

    def close(self) -> None:
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _opened(self) -> futures.ProcessPoolExecutor:
        # Spawned, not forked: a TensorFlow that runs does not survive a fork.
        return futures.ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=working.begin,
            initargs=(self._threads,),
        )


def lost(task: Task) -> UserError:
    """Say that a task's worker has died too often."""
    problem = f"a worker died {TRIES} times with it, perhaps for want of memory"
    fix = f"look at {task.log}; fewer --workers have more memory each"
    return UserError(f"candidate {task.number}", problem, fix)
