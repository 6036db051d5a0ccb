"""What a search found, as the page tells it: the front, what decided, what was never trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tfedge.report.drawing import SERIES, blank, svg
from tfedge.report.front import COSTS as WORDS
from tfedge.report.front import Point, points

KEY = "search"
"""Where a report holds what search.json does."""

_AS_REPORTED = {
    "bytes": "raw_bytes", "macs": "macs", "arena": "arena_bytes", "parameters": "parameters",
    "pi4": "arm_pi4", "pi5": "arm_pi5",
}  # fmt: skip
_MOST_REASONS = 12
_UNKNOWN = "-"
_SHOWN = {"finished": "trained", "stopped": "stopped early", "refused": "never trained"}


def of(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the page shows of a report's search; None if there was none."""
    told = report.get(KEY)
    if not told or not told["candidates"]:
        return None
    costs = told["manner"]["minimise"]
    return {
        "told": told,
        "summary": summary(told),
        "rows": [_row(point, told) for point in told["front"]],
        "costs": costs,
        "plots": [{"cost": words(cost), "plot": over_cost(report, cost)} for cost in costs],
        "importances": _importances(told),
        "refused": reasons(told),
    }


def summary(told: Mapping[str, Any]) -> str:
    """Say in a sentence how much was tried."""
    counts = told["counts"]
    states = counts["states"]
    said = ", ".join(f"{states[state]:,} {shown}" for state, shown in _SHOWN.items()
                     if state in states)  # fmt: skip
    again = states.get("seen before", 0)
    said += f", {again:,} proposed again" if again else ""
    share = counts["beyond_first_rung"] / counts["proposed"]
    return (
        f"{counts['proposed']:,} candidates in {told['seconds'] / 60:,.0f} minutes: {said}."
        f" {100 * share:.0f} % were trained beyond the first rung. {counts['stages_made']:,} stages"
        f" were made, and {counts['times_shared']:,} times one was there already."
    )


def words(cost: str) -> str:
    """Return a cost as a user reads it."""
    return WORDS.get(_AS_REPORTED[cost], cost)


def reasons(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Count why candidates were never trained, the most common reason first.

    Of reasons that differ in a figure, as by how much a target is broken, one stands for all.
    """
    said = [one["why"] for one in told["candidates"] if one["state"] == "refused"]
    kinds = Counter(why.split(", it has")[0].splitlines()[0] for why in said)
    return [{"why": why, "count": count} for why, count in kinds.most_common(_MOST_REASONS)]


def over_cost(report: Mapping[str, Any], cost: str) -> str:
    """Draw all trained candidates over a cost, the front, and the pipeline's own stages beside."""
    from matplotlib.ticker import EngFormatter

    told = report[KEY]
    tried = [one for one in told["candidates"] if one.get("epochs") and cost in one["costs"]]
    with blank() as figure:
        axes = figure.add_subplot()
        for state, colour, fill in (("stopped", 2, "none"), ("finished", 0, "none")):
            own = [one for one in tried if one["state"] == state]
            axes.plot(
                [one["costs"][cost] for one in own], [100 * one["accuracy"] for one in own], "o",
                ms=4, color=SERIES[colour], fillstyle=fill, label=_SHOWN[state],
            )  # fmt: skip
        front = sorted(told["front"], key=lambda point: point["costs"].get(cost, 0))
        x = [point["costs"][cost] for point in front if cost in point["costs"]]
        y = [100 * point["tune"]["accuracy"] for point in front if cost in point["costs"]]
        axes.plot(x, y, "o-", ms=6, lw=1, color=SERIES[1], label="the front, trained in full")
        by_hand = _by_hand(report, cost)
        axes.plot([one.cost for one in by_hand], [100 * one.accuracy for one in by_hand], "x",
                  ms=6, color=SERIES[3], label="the pipeline's own stages")  # fmt: skip
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set(xlabel=words(cost), ylabel="accuracy on tune, %")
        axes.margins(0.08)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2, fontsize=8)
        return svg(figure, f"search-{cost}", f"Accuracy of all candidates over {words(cost)}")


def _by_hand(report: Mapping[str, Any], cost: str) -> list[Point]:
    found = points(report, _AS_REPORTED[cost]) if _AS_REPORTED[cost] in WORDS else []
    return [point for point in found if point.split == "tune"]


def _importances(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table: how much each freed setting decides of each figure."""
    known = {figure: shares for figure, shares in told["importances"].items() if shares}
    most: dict[str, float] = {}
    for shares in known.values():
        for name, share in shares.items():
            most[name] = max(share, most.get(name, 0))
    names = sorted(most, key=lambda name: -most[name])
    rows = [[name, *(f"{100 * shares.get(name, 0):.0f} %" for shares in known.values())]
            for name in names]  # fmt: skip
    return {"figures": list(known), "rows": rows}


def _row(point: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    chosen = told["recommended"] or {}
    test = point.get("test")
    return {
        "number": point["number"],
        "set": " ".join(point["set"]),
        "tune": _percent(point["tune"]),
        "test": _percent(test) if test else _UNKNOWN,
        "costs": _costs(point, told["manner"]["minimise"]),
        "taken": point["number"] == chosen.get("number"),
    }


def _costs(point: Mapping[str, Any], costs: Sequence[str]) -> list[str]:
    return [
        f"{point['costs'][cost]:,.0f}" if cost in point["costs"] else _UNKNOWN for cost in costs
    ]


def _percent(figures: Mapping[str, Any]) -> str:
    low, high = 100 * figures["accuracy_low"], 100 * figures["accuracy_high"]
    return f"{100 * figures['accuracy']:.2f} % ({low:.1f} to {high:.1f})"
