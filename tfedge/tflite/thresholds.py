"""Choose when a network with exits leaves: temperatures, measure, thresholds, and a promise.

A third of the inputs chooses what is tried and in which order, the others say how far down that
order the promise holds (`promises`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import numpy as np
from scipy.optimize import brentq

from tfedge import paths
from tfedge.errors import UserError
from tfedge.tflite import promises

_SHARE_CHOOSING, _FEWEST = 1 / 3, 10
_NOTCHES = 50  # thresholds that each exit may take
_LEAPS = (1, 2, 4, 8, 16, 32)  # notches that are looked ahead, past some that gain nothing
_STEEPEST, _FLATTEST = 0.02, 50.0  # temperatures that are looked between
_POINTS = 20  # steps of effort in the table, about


@dataclass(frozen=True)
class Point:
    """One setting of the thresholds, and what it gives.

    Attributes:
      effort: From 0, where all leave at the first exit, to 1, where all take the last.
      thresholds: One for each exit but the last, float32 values: it answers if its measure is at
        least that.
      accuracy: On all inputs that were given, 0 to 1.
      shares: Of the inputs that each exit answers.
      mean_cost: Of an answer, the whole network's being 1.
    """

    effort: float
    thresholds: tuple[float, ...]
    accuracy: float
    shares: tuple[float, ...]
    mean_cost: float


@dataclass(frozen=True)
class Choice:
    """How a network leaves.

    Attributes:
      measure: One of ``device/exits.py``'s.
      temperatures: One for each exit.
      logits: (scale, zero point) of each exit.
      points: By effort; the last one takes the last exit always.
      chosen: Which of `points` keeps the promise.
      promise: ``{"max_drop" or "mean_cost": what is kept, "confidence", "split", "inputs"}``.
    """

    measure: str
    temperatures: tuple[float, ...]
    logits: tuple[tuple[float, int], ...]
    points: tuple[Point, ...]
    chosen: int
    promise: Mapping[str, float | int | str]

    def entry(self) -> dict[str, Any]:
        """Return all of it as the card's "exits" holds it."""
        found = asdict(self)
        found["logits"] = [{"scale": scale, "zero": zero} for scale, zero in self.logits]
        return found


def choose(
    outputs: Sequence[np.ndarray],
    quantisation: Sequence[tuple[float, int]],
    labels: np.ndarray,
    costs: Sequence[float],
    max_drop: float | None = None,
    mean_cost: float | None = None,
) -> Choice:
    """Choose temperatures, the measure that does best, and thresholds that keep a promise.

    Temperatures minimise the negative log-likelihood (Guo et al. 2017, "On Calibration of Modern
    Neural Networks", section 4.2).  Thresholds that are worth trying make a path: from no input
    that leaves early, the next step always lowers the one threshold that saves most cost for the
    accuracy it loses.  Along it fixed-sequence testing finds the settings that keep the promise
    with 95 % confidence, over the draw of the inputs (Angelopoulos et al. 2021, "Learn then Test",
    https://arxiv.org/abs/2110.01052), of which the best is chosen.  Too few inputs prove nothing:
    then it is to take the last exit always, or the first one.

    Args:
      outputs: Logits of each exit, first to last, int8 [count, classes]; in no order of classes or
        of time that would have to be kept.
      quantisation: (scale, zero point) of each.
      labels: The right classes, int [count].
      costs: Of an answer at each exit, all before it included, in any unit.  One more, where it is
        given, is what the whole network costs without the other exits; else that is the last.
      max_drop: Accuracy that may be lost against the last exit always, 0 to 1; the cost is made
        least.
      mean_cost: Instead of it, what an answer may cost on average, the whole network's being 1;
        the accuracy is made greatest.

    Raises:
      UserError: `mean_cost` is below what the first exit takes, or there are next to no inputs.
    """
    if (max_drop is None) == (mean_cost is None):
        raise ValueError("give max_drop or mean_cost")
    _refuse_unfit(outputs, labels)
    order = np.random.default_rng(0).permutation(len(labels))
    first = np.sort(order[: int(len(labels) * _SHARE_CHOOSING)])
    rest = np.sort(order[len(first) :])
    temperatures = tuple(
        temperature(raw[first], scale, labels[first])
        for raw, (scale, _) in zip(outputs, quantisation, strict=True)
    )
    relative = np.asarray(costs, np.float64) / costs[-1]
    goal = _Goal(max_drop, mean_cost, float(relative[0]))
    scales = [float(scale) for scale, _ in quantisation]
    tried = {}
    for name, everyone in _populations(outputs, scales, temperatures, labels, relative):
        path = _path(everyone.of(first))
        tried[name] = (goal.reached(everyone.of(first), path), everyone, path)
    measure = min(tried, key=lambda name: tried[name][0])
    _, everyone, path = tried[measure]
    chosen = goal.best(everyone.of(first), everyone.of(rest), path)
    points, number = _points(everyone, path, chosen)
    promise = goal.promise(len(rest))
    logits = tuple((float(scale), int(zero)) for scale, zero in quantisation)
    return Choice(measure, temperatures, logits, points, number, promise)


def temperature(raw: np.ndarray, scale: float, labels: np.ndarray) -> float:
    """Return what logits are to be divided by so that their softmax is right as often as it says.

    The negative log-likelihood is convex in the inverse, where its slope is the mean logit that
    the softmax expects less the mean one of the right class; this is where that is 0.

    Args:
      raw: Logits, int8 [count, classes].
      scale: Of a step of them.
      labels: The right classes, int [count].

    Returns:
      From 0.02 to 50, the ends where the likelihood goes on growing beyond.
    """
    logits = raw.astype(np.float64) * scale
    logits -= logits.max(axis=1, keepdims=True)
    of_right = logits[np.arange(len(labels)), labels].mean()

    def slope(inverse: float) -> float:
        shares = np.exp(inverse * logits)
        expected = (shares * logits).sum(axis=1) / shares.sum(axis=1)
        return float(expected.mean() - of_right)

    ends = 1 / _FLATTEST, 1 / _STEEPEST
    if slope(ends[0]) >= 0:
        return _FLATTEST
    if slope(ends[1]) <= 0:
        return _STEEPEST
    return float(1 / brentq(slope, *ends, rtol=1e-9))


@dataclass(frozen=True)
class _Population:
    """Inputs, how sure each exit is of them, and whether it is right.

    Attributes:
      exits: The module ``device/exits.py``.
      measures: Float32 [exits - 1, count].
      right: Bool [exits, count].
      costs: [exits], cumulative, the whole network's being 1.
    """

    exits: ModuleType
    measures: np.ndarray
    right: np.ndarray
    costs: np.ndarray

    def of(self, chosen: np.ndarray) -> _Population:
        """Return those of certain numbers."""
        return _Population(self.exits, self.measures[:, chosen], self.right[:, chosen], self.costs)

    def taken(self, thresholds: Sequence[float]) -> np.ndarray:
        """Return the exit that each input takes, int [count]."""
        taken: np.ndarray = self.exits.leaving(self.measures, thresholds)
        return taken

    def lost_and_gained(self, thresholds: Sequence[float]) -> tuple[int, int]:
        """Return of how many inputs only the last exit is right, and only the one taken."""
        right = self.right[self.taken(thresholds), np.arange(self.right.shape[1])]
        return int((self.right[-1] & ~right).sum()), int((right & ~self.right[-1]).sum())

    def drop(self, thresholds: Sequence[float]) -> float:
        """Return the accuracy that is lost against the last exit."""
        lost, gained = self.lost_and_gained(thresholds)
        return (lost - gained) / self.right.shape[1]

    def each_cost(self, thresholds: Sequence[float]) -> np.ndarray:
        """Return what each input costs; 1 where none may leave, which needs no exits at all."""
        if all(threshold == self.exits.NEVER for threshold in thresholds):
            return np.ones(self.right.shape[1])
        costs: np.ndarray = self.costs[self.taken(thresholds)]
        return costs

    def cost(self, thresholds: Sequence[float]) -> float:
        """Return what an input costs on average."""
        return float(self.each_cost(thresholds).mean())


def _refuse_unfit(outputs: Sequence[np.ndarray], labels: np.ndarray) -> None:
    if not outputs[1:] or {len(each) for each in outputs} != {len(labels)}:
        raise ValueError(f"got {[each.shape for each in outputs]} for {labels.shape}")
    if len(labels) < _FEWEST:
        fix = "give it some hundreds: thresholds of exits are chosen on them"
        raise UserError("the tune split", f"has {len(labels)} inputs", fix)


def _populations(
    outputs: Sequence[np.ndarray],
    scales: Sequence[float],
    temperatures: Sequence[float],
    labels: np.ndarray,
    costs: np.ndarray,
) -> Iterator[tuple[str, _Population]]:
    """Yield the inputs as each of the measures sees them, by its name."""
    exits = paths.runner()._beside("exits")
    right = np.stack([raw.argmax(axis=1) == labels for raw in outputs])
    for name in exits.MEASURES:
        measures = [
            exits.Measure(name, scale, divisor)(raw)
            for raw, scale, divisor in zip(outputs, scales, temperatures, strict=True)
        ]
        yield name, _Population(exits, np.stack(measures[:-1]), right, costs[: len(outputs)])


@dataclass(frozen=True)
class _Goal:
    """What is promised, one of the two, and the least that an answer costs."""

    max_drop: float | None
    mean_cost: float | None
    least: float

    def __post_init__(self) -> None:
        if self.mean_cost is not None and self.mean_cost < self.least:
            problem = f"the first exit alone takes {self.least:.4f} of the whole network's cost"
            fix = "put it earlier, or let it be smaller"
            if self.least <= 1:
                fix = f"give {np.ceil(1000 * self.least) / 1000:.3f} or more, or an earlier one"
            raise UserError("exit_mean_cost", f"{problem}, got {self.mean_cost:g}", fix)

    def reached(self, of: _Population, path: Sequence[tuple[float, ...]]) -> tuple[float, float]:
        """Return what is to be least, and what comes second, by the best of a path here."""
        found = [(of.drop(each), of.cost(each)) for each in path]
        if self.max_drop is not None:
            return min((cost, lost) for lost, cost in found if lost <= max(0, self.max_drop))
        most = float(self.mean_cost or 0) + 1e-9  # a mean of equal costs may be off by a rounding
        return min((lost, cost) for lost, cost in found if cost <= most)

    def best(
        self, choosing: _Population, proving: _Population, path: Sequence[tuple[float, ...]]
    ) -> tuple[float, ...]:
        """Return the setting to choose of those which are proven to keep the promise."""
        if self.max_drop is not None:
            # Never to leave loses nothing, which needs no proof.  It is dearer than it looks to
            # let only a few leave: all others pay for the exits.
            worth = [each for each in path[1:] if choosing.cost(each) < 1]
            kept = promises.proven(self._drops(proving, worth))
            return min([path[0], *kept], key=choosing.cost)
        kept = promises.proven(self._costs(proving, path[-2::-1]))
        return min([path[-1], *kept], key=choosing.drop)

    def promise(self, count: int) -> dict[str, float | int | str]:
        """Return what is promised, proven with `count` inputs."""
        what = {"max_drop": self.max_drop, "mean_cost": self.mean_cost}
        kept = {name: value for name, value in what.items() if value is not None}
        return {**kept, "confidence": promises.CONFIDENCE, "split": "tune", "inputs": count}

    def _drops(
        self, of: _Population, settings: Sequence[tuple[float, ...]]
    ) -> Iterator[tuple[tuple[float, ...], float]]:
        for each in settings:
            lost, gained = of.lost_and_gained(each)
            most = float(self.max_drop or 0)
            yield each, promises.drop(lost, gained, of.right.shape[1], most)

    def _costs(
        self, of: _Population, settings: Sequence[tuple[float, ...]]
    ) -> Iterator[tuple[tuple[float, ...], float]]:
        largest = max(1.0, float(of.costs[-1]))
        most = (float(self.mean_cost or 0) - self.least) / (largest - self.least)
        for each in settings:
            values = (of.each_cost(each) - self.least) / (largest - self.least)
            yield each, promises.mean(values, most)


def _path(of: _Population) -> list[tuple[float, ...]]:
    """Return settings from never to always, one threshold lower in each than in the one before."""
    levels = np.linspace(1, 0, _NOTCHES + 1)[1:-1]
    notches = [
        [
            of.exits.NEVER,
            *sorted({float(x) for x in np.quantile(row, levels, method="lower")}, reverse=True),
            of.exits.ALWAYS,
        ]
        for row in of.measures
    ]
    count = of.right.shape[1]

    def setting(at: Sequence[int]) -> tuple[float, ...]:
        return tuple(each[place] for each, place in zip(notches, at, strict=True))

    def figures(at: Sequence[int]) -> tuple[float, float]:
        return float(of.costs[of.taken(setting(at))].mean()), of.drop(setting(at))

    at = [0] * len(notches)
    path = [setting(at)]
    while at[0] < len(notches[0]) - 1:
        cost, lost = figures(at)
        best = (-1.0, 0, 0)
        for number, leap in ((n, leap) for n in range(len(at)) for leap in _LEAPS):
            if at[number] + leap < len(notches[number]):
                new_cost, new_lost = figures([a + leap * (n == number) for n, a in enumerate(at)])
                worth = (cost - new_cost) / (max(new_lost - lost, 0) + 0.5 / count)
                best = max(best, (worth, number, leap), key=lambda each: each[0])
        for _ in range(best[2]):
            at[best[1]] += 1
            if figures(at)[0] < cost or at[0] == len(notches[0]) - 1:
                cost, path = figures(at)[0], [*path, setting(at)]
    return path


def _points(
    everyone: _Population, path: Sequence[tuple[float, ...]], chosen: tuple[float, ...]
) -> tuple[tuple[Point, ...], int]:
    """Return some of a path, by effort, and the number of the one that is chosen."""
    costs = {each: everyone.cost(each) for each in path}
    least = costs[path[-1]]
    picked = {path[0], path[-1], chosen}
    for target in np.linspace(least, 1, _POINTS + 1)[1:-1]:
        picked.add(min(path, key=lambda each: abs(costs[each] - target)))
    cheap = [each for each in path[:0:-1] if each in picked and (costs[each] < 1 or each == chosen)]
    by_effort = sorted(cheap, key=lambda each: costs[each])
    points = [_point(everyone, each, least) for each in [*by_effort, path[0]]]
    return tuple(points), [*by_effort, path[0]].index(chosen)


def _point(everyone: _Population, thresholds: tuple[float, ...], least: float) -> Point:
    taken, count = everyone.taken(thresholds), everyone.right.shape[1]
    cost = everyone.cost(thresholds)
    return Point(
        effort=round(min(1.0, (cost - least) / (1 - least)), 6) if least < 1 else 1.0,
        thresholds=thresholds,
        accuracy=round(float(everyone.right[taken, np.arange(count)].mean()), 6),
        shares=tuple(
            round(float(x), 6) for x in np.bincount(taken, minlength=len(everyone.costs)) / count
        ),
        mean_cost=round(cost, 6),
    )
