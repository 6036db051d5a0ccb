"""`tfedge search`: from a file to its front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfedge.plan import pipeline, store
from tfedge.plan.shelf import open_shelf
from tfedge.progress import Progress
from tfedge.search import base, outcome
from tfedge.search.coordinator import Coordinator
from tfedge.search.crew import Crew
from tfedge.search.proposals import Proposals, required

JOURNAL = "study.log"
FOLDER = "search"


@dataclass(frozen=True)
class Wish:
    """What the command line says of a search.

    Attributes:
      file: The pipeline's.
      changes: In place of what it says, as --set takes them.
      root: The build folder.
      trials, hours: In place of its own, if given.
      study: An URL where the study is kept; a file in the build folder if empty.
      store: An URL where machines without a common folder share stages; none if empty.
    """

    file: Path
    changes: Sequence[str]
    root: Path
    trials: int | None = None
    hours: float | None = None
    study: str = ""
    store: str = ""


def search(wish: Wish, crew: Callable[[], Crew], progress: Progress) -> dict[str, Any]:
    """Search, train the front, put the recommended .tflite in place, and write search.json.

    Args:
      crew: Opens who does the work, once everything written is known to be right.

    Returns:
      What search.json holds.
    """
    required()
    of = base.read(wish.file, wish.changes, wish.root, wish.trials, wish.hours)
    shelf = open_shelf(wish.store) if wish.store else None
    folder = wish.root / of.loaded.name
    with store.locked(folder):
        place = wish.study or folder / FOLDER / JOURNAL
        proposals = Proposals(
            of.search.freed, of.search.manner, of.loaded.seed, base.study_name(of), place
        )
        if proposals.past:
            progress.say(f"goes on after {len(proposals.past)} candidates")
        workers = crew()
        try:
            coordinator = Coordinator(of, proposals, workers, progress, wish.store)
            coordinator.run()
            chosen = outcome.front_of(coordinator)[: of.search.manner.finals]
            outcomes = coordinator.finish(chosen)
        finally:
            workers.close()
        if shelf:
            outcome.fetch(of, chosen, shelf)
        told = outcome.tell(coordinator, chosen, outcomes)
        outcome.write(told, folder)
    if told["recommended"]:
        taken = pipeline.load(wish.file, [*wish.changes, *told["recommended"]["set"]])
        pipeline.build(taken, wish.root, progress, shelf=shelf)
    return told
