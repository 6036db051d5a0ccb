"""Candidates, proposed by Optuna from the generations before, and kept where a search goes on from.

Only whole generations are kept, and what is proposed follows from them and the seed.  So a search
that was killed proposes the same again, and finds in the build folder what it had made for it.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tfedge.errors import UserError
from tfedge.plan.freeing import Freed, Manner

INSTALL = "pip install 'tfedge[search]'"
_STARTUP = 10
"""Candidates of a TPE that are drawn by chance, at least; Optuna's default."""


@dataclass
class Candidate:
    """One proposal, and in the end what came of it.

    Attributes:
      number: From 0, in the order of proposals.
      values: A value for each freed setting, by its name.
      found: What came of it, as JSON.
    """

    number: int
    values: dict[str, Any]
    found: dict[str, Any] = field(default_factory=dict)


class Proposals:
    """A study of Optuna's: in memory to ask, and in a store, generation by generation.

    Args:
      name: Of the study in its store; another for another space, data or seed.
      store: An URL of a database, as Optuna's RDBStorage takes it, or a file for its journal.
    """

    def __init__(
        self, freed: Sequence[Freed], manner: Manner, seed: int, name: str, store: str | Path
    ) -> None:
        self.optuna = required()
        self._freed, self._manner, self._seed = freed, manner, seed
        self._spaces = {one.name: _distribution(self.optuna, one) for one in freed}
        directions = ["maximize"] + ["minimize"] * len(manner.minimise)
        self._kept = _opened(self.optuna, store, name, directions)
        self._study = self.optuna.create_study(directions=directions)
        whole = self._kept.get_trials(deepcopy=False)
        whole = whole[: len(whole) - len(whole) % manner.generation]
        self._study.add_trials(whole)
        self.past = [_candidate(trial, freed) for trial in whole]
        """The candidates of all whole generations, in their order."""

    def next(self, first: Mapping[str, Any] | None = None) -> list[Candidate]:
        """Propose a generation.

        Args:
          first: The values of candidate 0, if the space holds them; else it is proposed, too.
        """
        self._asked = []
        if first is not None and not self.past:
            self._study.enqueue_trial(
                {one.name: _coded(one, first[one.name]) for one in self._freed}
            )
        for number in range(len(self.past), len(self.past) + self._manner.generation):
            self._study.sampler = self._sampler(number)
            self._asked.append(self._study.ask(self._spaces))
        return [_candidate(trial, self._freed) for trial in self._asked]

    def end(self, generation: Sequence[Candidate], costs: Sequence[Sequence[float]]) -> None:
        """Tell what came of a generation, and keep it.

        Args:
          generation: As `next` gave it; `found` holds "accuracy", and "broken", by how much it
            breaks each target, above 0 where it does.
          costs: What is to be small, for each of them.
        """
        for trial, candidate, cost in zip(self._asked, generation, costs, strict=True):
            for name, by in candidate.found.get("broken", {}).items():
                trial.set_constraint(name, by)
            trial.set_user_attr("found", candidate.found)
            self._study.tell(trial, [candidate.found["accuracy"], *cost])
        self.past += generation
        kept = len(self._kept.get_trials(deepcopy=False))
        self._kept.add_trials(self._study.get_trials(deepcopy=False)[kept : len(self.past)])

    def importances(self, cost: int | None = None) -> dict[str, float]:
        """Say how much each freed setting decides, as shares of 1; empty where that is unknown.

        By PED-ANOVA (Watanabe et al. 2023) over all candidates that were trained.

        Args:
          cost: The number of a cost in `minimise`; None for accuracy.
        """
        trials = [trial for trial in self._study.get_trials(deepcopy=False)
                  if trial.values and "epochs" in trial.user_attrs["found"]]  # fmt: skip
        index = 0 if cost is None else cost + 1
        varied = {trial.values[index] for trial in trials}
        if len(trials) < _STARTUP or len(varied) < 2:  # noqa: PLR2004
            return {}
        study = self.optuna.create_study(directions=[self._study.directions[index]])
        study.add_trials(
            [
                self.optuna.trial.create_trial(
                    params=trial.params,
                    distributions=trial.distributions,
                    value=trial.values[index],
                )
                for trial in trials
            ]
        )
        found = self.optuna.importance.get_param_importances(
            study, evaluator=self.optuna.importance.PedAnovaImportanceEvaluator()
        )
        return {name: round(float(share), 4) for name, share in found.items()}

    def _sampler(self, number: int) -> Any:
        """Return a sampler whose chance follows from the seed and the candidate's number alone."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        samplers, generation = self.optuna.samplers, self._manner.generation
        if self._manner.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if self._manner.sampler == "nsga2":
            return samplers.NSGAIISampler(population_size=max(2, generation), seed=seed)
        return samplers.TPESampler(
            n_startup_trials=max(_STARTUP, generation), multivariate=True, seed=seed
        )


def required() -> ModuleType:
    """Import Optuna, quietly."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError("search", "needs Optuna", f"run: {INSTALL}")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _opened(module: ModuleType, store: str | Path, name: str, directions: list[str]) -> Any:
    storages = module.storages
    if isinstance(store, Path):
        store.parent.mkdir(parents=True, exist_ok=True)
        _mend(store)
        lock = storages.journal.JournalFileOpenLock(str(store))
        storage = storages.JournalStorage(
            storages.journal.JournalFileBackend(str(store), lock_obj=lock)
        )
    else:
        storage = _database(module, store)
    return module.create_study(
        storage=storage, study_name=name, directions=directions, load_if_exists=True
    )


def _mend(journal: Path) -> None:
    """Take off a last line that a power cut left half written: Optuna could read none behind it."""
    if journal.is_file():
        content = journal.read_bytes()
        os.truncate(journal, content.rfind(b"\n") + 1)


def _database(module: ModuleType, url: str) -> Any:
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError  # Optuna brings it

    try:
        return module.storages.RDBStorage(url)
    except ArgumentError as error:
        fix = "write an URL such as postgresql://user@host/database, or leave it out"
        raise UserError("--study", f"cannot read {url!r}: {error}", fix) from None
    except (SQLAlchemyError, ImportError) as error:
        raise UserError("--study", f"cannot be reached: {error}") from error


def _distribution(module: ModuleType, freed: Freed) -> Any:
    kinds = module.distributions
    if freed.choices:
        return kinds.CategoricalDistribution([_coded(freed, value) for value in freed.choices])
    if freed.whole:
        step = int(freed.step) or 1
        high = int(freed.low) + (int(freed.high) - int(freed.low)) // step * step
        return kinds.IntDistribution(int(freed.low), high, log=freed.log, step=step)
    return kinds.FloatDistribution(freed.low, freed.high, log=freed.log, step=freed.step or None)


def _coded(freed: Freed, value: Any) -> Any:
    """Write a choice as text, as Optuna takes no lists; a number of a range stays one."""
    return json.dumps(value) if freed.choices else value


def _candidate(trial: Any, freed: Sequence[Freed]) -> Candidate:
    values = {}
    for one in freed:
        value = trial.params[one.name]
        values[one.name] = json.loads(value) if one.choices else value
    return Candidate(trial.number, values, dict(trial.user_attrs.get("found", {})))


def twins(generation: Sequence[Candidate], past: Sequence[Candidate]) -> Iterator[tuple[int, int]]:
    """Yield each candidate's place in the generation and the number of its first equal."""
    seen = {_key(one.values): one.number for one in reversed(past)}
    for place, one in enumerate(generation):
        yield place, seen.setdefault(_key(one.values), one.number)


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
