"""A search, from its first generation to the front that is trained to full length."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tfedge.errors import UserError
from tfedge.plan import pipeline
from tfedge.progress import Progress
from tfedge.search import halving, looking
from tfedge.search.base import Base, epochs_of, figure_of
from tfedge.search.crew import Crew
from tfedge.search.proposals import Candidate, Proposals, twins
from tfedge.search.tasks import LOOK, TRAIN, WHOLE, Outcome, Task

REFUSED, STOPPED, FINISHED, SEEN = "refused", "stopped", "finished", "seen before"
"""What becomes of a candidate: never trained, left at a rung, trained to the end of its short
training, or equal to an earlier one."""

_CARD_GROWS = 512
"""Bytes by which `evaluate` may lengthen a file: it writes into the card what it measured."""

_ACCURACY = ("accuracy", "count")
_OF_TWIN = ("accuracy", "costs", "broken", "epochs")


class Coordinator:
    """Runs a search.

    Args:
      proposals: With the generations that are whole.
      crew: Who does the work.
      store: As a `Task` has it.
    """

    def __init__(
        self, base: Base, proposals: Proposals, crew: Crew, progress: Progress, store: str = ""
    ) -> None:
        self.base, self.proposals, self.crew, self.progress = base, proposals, crew, progress
        self._store = store
        self.manner = base.search.manner
        self._most: dict[str, float] = {}
        self._started = time.monotonic()
        self._before = sum(one.found["seconds"] for one in proposals.past)
        for one in proposals.past:  # each tells what the most is so far
            self.costs(one)

    @property
    def seconds(self) -> float:
        """Of this search, those of earlier runs included as far as they ended a generation."""
        return float(self._before + time.monotonic() - self._started)

    def run(self) -> list[Candidate]:
        """Propose and train until the trials or the hours are spent; return all candidates."""
        self._ground()
        while len(self.proposals.past) < self.manner.trials and not self._late():
            self._generation()
        return self.proposals.past

    def finish(self, chosen: Sequence[Candidate]) -> list[Outcome]:
        """Train candidates to full length and evaluate them on the test split."""
        tasks = [self._task(WHOLE, one, short=False) for one in chosen]
        for one in chosen:
            self.progress.say(f"candidate {one.number:4}  trains to full length")
        outcomes = self._done(tasks)
        for one, outcome in zip(chosen, outcomes, strict=True):
            if outcome.refused:
                self.progress.say(f"candidate {one.number:4}  refused: {outcome.refused}")
        return outcomes

    def _ground(self) -> None:
        """Make what all candidates share, such as a teacher, before any is looked at."""
        needed = looking.needed(self.base.loaded, self.base.answer)
        shared = [name for name in self.base.loaded.stages
                  if name in needed and name not in self.base.free]  # fmt: skip
        for name in shared:
            self.progress.say(f"{name:12} is shared by all candidates")
            (outcome,) = self._done([self._of(TRAIN, -1, self.base.changes, name)])
            if outcome.refused:
                raise UserError(self.base.loaded.file, outcome.refused)

    def _generation(self) -> None:
        started = time.monotonic()
        generation = self.proposals.next(self.base.values)
        past = {one.number: one for one in self.proposals.past}
        fresh: list[Candidate] = []
        again: list[tuple[Candidate, int]] = []
        for place, first in twins(generation, self.proposals.past):
            one = generation[place]
            if first == one.number:
                fresh.append(one)
            else:
                again.append((one, first))
        self._look(fresh)
        going = [one for one in fresh if "state" not in one.found]
        for rung in range(len(self.manner.rungs)):
            going = self._rung(rung, going)
        self._end(going)
        past |= {one.number: one for one in generation}
        for one, first in again:
            kept = {key: value for key, value in past[first].found.items() if key in _OF_TWIN}
            one.found |= kept | {"state": SEEN, "equals": first}
        each = (time.monotonic() - started) / len(generation)
        for one in generation:
            one.found["seconds"] = round(each, 3)
        self.proposals.end(generation, [self.costs(one) for one in generation])

    def _look(self, candidates: Sequence[Candidate]) -> None:
        tasks = [self._task(LOOK, one) for one in candidates]
        for one, outcome in zip(candidates, self._done(tasks), strict=True):
            one.found["costs"] = outcome.figures
            broken = self.base.broken(outcome.figures, _CARD_GROWS)
            if outcome.refused:
                broken["possible"] = 1.0
            one.found["broken"] = broken
            why = outcome.refused or self._words(outcome.figures, broken)
            if why:
                self._refuse(one, why)

    def _refuse(self, one: Candidate, why: str) -> None:
        one.found |= {"state": REFUSED, "why": why, "accuracy": 0.0}
        self.progress.say(f"candidate {one.number:4}  refused: {why}")

    def _rung(self, rung: int, going: Sequence[Candidate]) -> list[Candidate]:
        """Train candidates to a rung; return those that go on."""
        name = f"{self.manner.rungs[rung]:g}"
        earlier = [one.found["rungs"][name] for one in self.proposals.past
                   if name in one.found.get("rungs", {})]  # fmt: skip
        tasks = [self._task(TRAIN, one, rung) for one in going]
        there = []
        for one, outcome in zip(going, self._done(tasks), strict=True):
            self._took(one, outcome)
            if "state" not in one.found:
                row = [-one.found["accuracy"], *self.costs(one)]
                one.found.setdefault("rungs", {})[name] = row
                there.append(one)
        if not there:
            return []
        width = 1 + len(self.manner.minimise)
        now = halving.as_values([one.found["rungs"][name] for one in there], width)
        best = halving.go_on(halving.as_values(earlier, width), now, self.manner.keep)
        for place, one in enumerate(there):
            if place not in best:
                one.found |= {"state": STOPPED, "why": f"not among the best at rung {name}"}
            self._tell(one)
        return [one for place, one in enumerate(there) if place in best]

    def _end(self, going: Sequence[Candidate]) -> None:
        tasks = [self._task(TRAIN, one) for one in going]
        for one, outcome in zip(going, self._done(tasks), strict=True):
            self._took(one, outcome)
            if "state" in one.found:
                continue
            one.found["costs"] |= {
                name: value for name, value in outcome.figures.items() if name not in _ACCURACY
            }
            one.found["broken"] = self.base.broken(
                outcome.figures | one.found["costs"], _CARD_GROWS
            )
            one.found["state"] = FINISHED
            one.found["count"] = outcome.figures.get("count")
            self._tell(one)

    def _took(self, one: Candidate, outcome: Outcome) -> None:
        """Take over what a training has shown."""
        if outcome.refused:
            one.found["broken"]["possible"] = 1.0
            self._refuse(one, outcome.refused)
            return
        one.found["accuracy"] = round(float(outcome.figures["accuracy"]), 6)
        one.found["epochs"] = outcome.epochs
        for name in ("made", "shared"):
            now = getattr(outcome, name)
            known = one.found.setdefault(name, type(now)())
            if isinstance(known, dict):
                known.update(now)
            else:
                known += [label for label in now
                          if label not in known and label not in one.found["made"]]  # fmt: skip

    def _tell(self, one: Candidate) -> None:
        costs = "  ".join(f"{name} {one.found['costs'][name]:,.0f}" for name in self.manner.minimise
                          if name in one.found["costs"])  # fmt: skip
        state = one.found.get("state", "goes on")
        words = f"accuracy {one.found['accuracy']:.4f} on tune after {one.found['epochs']} epochs"
        self.progress.say(f"candidate {one.number:4}  {state}  {words}  {costs}")

    def costs(self, one: Candidate) -> list[float]:
        """Return what is to be small; where a look could not tell, as much as any candidate has."""
        known = one.found.get("costs", {})
        for name in self.manner.minimise:
            self._most[name] = max(self._most.get(name, 0.0), known.get(name, 0.0))
        return [float(known.get(name, self._most[name])) for name in self.manner.minimise]

    def _words(self, figures: Mapping[str, Any], broken: Mapping[str, float]) -> str:
        """Say which targets are broken."""
        said = []
        for limit in self.base.limits:
            if broken.get(limit.label, 0) > 0:
                value = figures[figure_of(limit)]
                said.append(f"{limit.label} {limit.value:,.0f}, it has {value:,.0f}")
        return "; ".join(said)

    def _late(self) -> bool:
        """Whether the hours are spent, the front's long training counted in."""
        if not self.manner.hours or not self.proposals.past:
            return False
        trained = [sum(one.found.get("made", {}).values()) for one in self.proposals.past
                   if one.found["state"] == FINISHED]  # fmt: skip
        each = sorted(trained)[len(trained) // 2] / self.manner.short if trained else 0
        generations = len(self.proposals.past) / self.manner.generation
        ahead = self.seconds / generations + each * self.manner.finals
        return self.seconds + ahead > self.manner.hours * 3600

    def _done(self, tasks: Sequence[Task]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = dict(self.crew.each(tasks))
        return [outcomes[place] for place in range(len(tasks))]

    def _task(
        self, kind: str, one: Candidate, rung: int | None = None, *, short: bool = True
    ) -> Task:
        changes = (*self.base.changes, *self.base.changes_of(one.values))
        loaded = pipeline.load(self.base.loaded.file, changes)
        epochs = epochs_of(loaded, self.base.free)
        if short:
            epochs = {name: max(1, round(count * self.manner.short))
                      for name, count in epochs.items()}  # fmt: skip
            changes += tuple(f"{name}.epochs={count}" for name, count in epochs.items())
        judged = max(epochs, key=lambda name: epochs[name], default="")
        epoch = 0
        if rung is not None and judged:
            epoch = max(1, round(self.manner.rungs[rung] * epochs[judged]))
            epoch = epoch if epoch < epochs[judged] else 0
        return self._of(kind, one.number, changes, self.base.answer, judged, epoch)

    def _of(
        self, kind: str, number: int, changes: tuple[str, ...], answer: str, judged: str = "",
        epoch: int = 0,
    ) -> Task:  # fmt: skip
        base = self.base
        log = base.root / base.loaded.name / "search" / "logs" / f"{max(number, 0)}.log"
        place = (base.loaded.file, changes, base.root, base.data, answer)
        return Task(kind, number, *place, judged, epoch, base.boards, log, self._store)
