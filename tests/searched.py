"""Searches over stages that only pretend: many candidates in little time."""

from __future__ import annotations

import shutil
from concurrent import futures
from pathlib import Path

from conftest import STRIPES

from tfedge.progress import Silent
from tfedge.search import base, outcome, searching, working
from tfedge.search.coordinator import Coordinator
from tfedge.search.proposals import Proposals

PIPELINE = """
[data]
use = "stripes.py:stripes"

[settings]
seed = 3
{targets}
[student]
use = "pretending.py:Pretend"
width = 8
epochs = 8
epoch_s = {epoch_s}

[search]
trials = {trials}
generation = {generation}
sampler = "{sampler}"
minimise = ["bytes"]
short = 0.5
rungs = [0.25, 0.5]
finals = 3
student.width = {{ low = 2, high = 64 }}
student.rate = {{ low = 0.0, high = 1.0 }}
"""


class Threads:
    """A crew that costs no more than what it does."""

    def __init__(self, workers=1):
        self.pool = futures.ThreadPoolExecutor(workers)

    def each(self, tasks):
        given = {self.pool.submit(working.do, task): place for place, task in enumerate(tasks)}
        for done in futures.as_completed(given):
            yield given[done], done.result()

    def close(self):
        self.pool.shutdown(cancel_futures=True)


def pipeline(folder, trials=16, generation=8, sampler="tpe", epoch_s=0.0, targets="") -> Path:
    """Write a pipeline with a search into a folder; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).parent
    shutil.copy(STRIPES / "stripes.py", folder)
    shutil.copy(here / "pretending.py", folder)
    file = folder / "pretend.toml"
    text = PIPELINE.format(
        trials=trials, generation=generation, sampler=sampler, epoch_s=epoch_s, targets=targets
    )
    file.write_text(text)
    return file


def search(file, root, crew=Threads, progress=None, **wish):
    """Run a search; return what search.json holds."""
    wish = searching.Wish(file, (), root, **wish)
    return searching.search(wish, crew, progress or Silent())


def run(file, root, workers):
    """Run the candidates of a search, as far as their front is trained; return its coordinator."""
    of = base.read(file, (), root, None, None)
    place = root / "study.log"
    study = Proposals(of.search.freed, of.search.manner, 0, "study", place)
    crew = Threads(workers)
    coordinator = Coordinator(of, study, crew, Silent())
    coordinator.run()
    coordinator.finish(outcome.front_of(coordinator))
    crew.close()
    return coordinator
