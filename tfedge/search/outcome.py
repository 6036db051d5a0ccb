"""What a search found: its front, the point to take, and all that was tried on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfedge import paths
from tfedge.figures import accuracy_figures
from tfedge.plan import freeing, pipeline, settings, store
from tfedge.plan.shelf import Shelf
from tfedge.plan.stages import Evaluate
from tfedge.plan.steps import Pipeline
from tfedge.search import halving
from tfedge.search.base import Base
from tfedge.search.coordinator import FINISHED, SEEN, Coordinator
from tfedge.search.proposals import Candidate
from tfedge.search.tasks import Outcome


def front_of(coordinator: Coordinator) -> list[Candidate]:
    """Return the candidates that no other beats in accuracy and every cost, the best spread first.

    Of those that were trained to the end of their short training and keep to the targets.
    """
    ended = [one for one in coordinator.proposals.past
             if one.found["state"] == FINISHED and not breaks(one.found["broken"])]  # fmt: skip
    if not ended:
        return []
    rows = [[-one.found["accuracy"], *coordinator.costs(one)] for one in ended]
    values = halving.as_values(rows, len(rows[0]))
    best = halving.front(values)
    return [ended[row] for row in halving.order(values) if best[row]]


def breaks(broken: Mapping[str, float]) -> bool:
    """Whether any target is broken."""
    return any(by > 0 for by in broken.values())


def tell(
    coordinator: Coordinator, chosen: Sequence[Candidate], outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """Write a search as JSON values.

    Args:
      chosen: The candidates that were trained to full length, and
      outcomes: what came of each.
    """
    base, manner = coordinator.base, coordinator.manner
    past = coordinator.proposals.past
    ended = zip(chosen, outcomes, strict=True)
    points = [_point(base, one, outcome) for one, outcome in ended if not outcome.refused]
    points.sort(key=lambda point: point["costs"].get(manner.minimise[0], 0))
    importances = {"accuracy": coordinator.proposals.importances()}
    for number, cost in enumerate(manner.minimise):
        importances[cost] = coordinator.proposals.importances(number)
    return {
        "pipeline": base.loaded.name,
        "file": base.loaded.file.name,
        "answer": base.answer,
        "seconds": round(coordinator.seconds, 1),
        "manner": settings.plain(manner),
        "freed": [_freed(one) for one in base.search.freed],
        "targets": [{"target": limit.label, "limit": limit.value} for limit in base.limits],
        "counts": counts(coordinator, outcomes),
        "importances": importances,
        "front": points,
        "recommended": recommended(base, points),
        "candidates": [_row(one) for one in past],
    }


def counts(coordinator: Coordinator, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Count what was proposed, what was trained how far, and how often a stage was made."""
    past = coordinator.proposals.past
    rungs = coordinator.manner.rungs
    first = f"{rungs[0]:g}" if rungs else ""
    made: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    for found in (*(one.found for one in past), *(vars(outcome) for outcome in outcomes)):
        made.update(list(found.get("made", ())))
        shared.update(found.get("shared", ()))
    trained = [one for one in past if "epochs" in one.found and one.found["state"] != SEEN]
    beyond = [one for one in trained
              if one.found["state"] == FINISHED or len(one.found.get("rungs", {})) > 1]  # fmt: skip
    return {
        "proposed": len(past),
        "states": dict(sorted(Counter(one.found["state"] for one in past).items())),
        "trained": len(trained),
        "first_rung": first,
        "beyond_first_rung": len(beyond),
        "stages_made": sum(made.values()),
        "stages_made_twice": sorted(label for label, times in made.items() if times > 1),
        "stages_shared": len(set(shared)),
        "times_shared": sum(shared.values()),
    }


def recommended(base: Base, points: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Choose the point to take: the cheapest that is as good as the best, as far as tune can tell.

    That is, whose accuracy lies in the best one's 95 % interval, as the one-standard-error rule has
    it (Breiman et al. 1984, section 3.4.3), of those that keep to the targets.
    """
    fits = [point for point in points if not breaks(point["broken"])]
    if not fits:
        return None
    best = max(fits, key=lambda point: point["tune"]["accuracy"])
    cost = base.search.manner.minimise[0]
    alike = [point for point in fits
             if point["tune"]["accuracy"] >= best["tune"]["accuracy_low"]]  # fmt: skip
    chosen = min(alike, key=lambda point: (point["costs"][cost], -point["tune"]["accuracy"]))
    kept = "keeps to the targets" if base.limits else "there are no targets to keep to"
    why = f"{kept}, and has the highest accuracy on tune"
    if chosen is not best:
        why = (
            f"{kept}, and on tune is not to be told from candidate {best['number']}, which has"
            f" {best['tune']['accuracy']:.4f} and {best['costs'][cost] / chosen['costs'][cost]:.2f}"
            f" times its {cost}"
        )
    return {"number": chosen["number"], "why": why, "set": chosen["set"]}


def write(told: Mapping[str, Any], folder: Path) -> Path:
    """Put search.json into a pipeline's build folder."""
    file = folder / pipeline.SEARCH
    paths.replace(file, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return file


def lines(told: Mapping[str, Any]) -> list[str]:
    """Say what was found in a few lines."""
    number, manner = told["counts"], told["manner"]
    states = ", ".join(f"{count} {state}" for state, count in number["states"].items())
    said = [
        f"{number['proposed']} candidates in {told['seconds'] / 60:.1f} min: {states}",
        f"{number['beyond_first_rung']} trained beyond the first rung;"
        f" {number['stages_made']} stages made,"
        f" {number['times_shared']} times one was there already",
    ]
    for point in told["front"]:
        test = point.get("test")
        shown = f"test {test['accuracy']:.4f}" if test else "not evaluated on test"
        costs = "  ".join(f"{name} {point['costs'].get(name, float('nan')):,.0f}"
                          for name in manner["minimise"])  # fmt: skip
        said.append(f"  candidate {point['number']:4}  tune {point['tune']['accuracy']:.4f}"
                    f"  {shown}  {costs}  {' '.join(point['set'])}")  # fmt: skip
    chosen = told["recommended"]
    if chosen:
        said.append(f"take candidate {chosen['number']}: it {chosen['why']}")
    elif not number["trained"]:
        said.append("every candidate breaks a target before it is trained; free more, or ask less")
    else:
        said.append("no candidate keeps to the targets")
    return said


def _point(base: Base, one: Candidate, outcome: Outcome) -> dict[str, Any]:
    own = base.changes_of(one.values)
    figures = outcome.figures
    count = int(figures["count"])
    tune = accuracy_figures(round(figures["accuracy"] * count), count, "tune")
    costs = one.found["costs"] | {
        name: value for name, value in figures.items() if name not in ("accuracy", "count")
    }
    point: dict[str, Any] = {
        "number": one.number, "values": one.values, "set": own, "tune": tune, "costs": costs,
        "epochs": outcome.epochs, "broken": base.broken(costs | {"accuracy": tune["accuracy"]}),
    }  # fmt: skip
    test = _test(base, one)
    return point | ({"test": test} if test else {})


def _test(base: Base, one: Candidate) -> dict[str, Any]:
    """Return what an `evaluate` of the answer has measured on the test split."""
    for step in pipeline.plan(_loaded(base, one), base.root, data=base.data, compared=False):
        if isinstance(step.stage, Evaluate) and step.inputs.get("of") == base.answer:
            record = store.read_record(step.folder)
            figures = record["figures"] if record else {}
            names = ("accuracy", "accuracy_low", "accuracy_high", "count", "raw_bytes")
            kept = {name: figures[name] for name in names if name in figures}
            return kept | {name: value for name, value in figures.items() if "arm_" in name}
    return {}


def fetch(base: Base, chosen: Sequence[Candidate], shelf: Shelf) -> None:
    """Bring here what other machines have made of the chosen candidates."""
    for one in chosen:
        for step in pipeline.plan(_loaded(base, one), base.root, data=base.data, compared=False):
            if step.why and shelf.has(step.folder):
                shelf.fetch(step.folder)


def _loaded(base: Base, one: Candidate) -> Pipeline:
    changes = [*base.changes, *base.changes_of(one.values)]
    return pipeline.load(base.loaded.file, changes)


def _freed(one: freeing.Freed) -> dict[str, Any]:
    if one.choices:
        return {"name": one.name, "choices": list(one.choices)}
    ends = {"name": one.name, "low": one.low, "high": one.high}
    return ends | ({"step": one.step} if one.step else {}) | ({"log": True} if one.log else {})


def _row(one: Candidate) -> dict[str, Any]:
    return {"number": one.number, "values": one.values} | one.found
