"""The pictures of the page, each an SVG element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfedge.report import leaving
from tfedge.report.drawing import SERIES, blank, svg
from tfedge.report.front import COSTS, Point, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES = 40
"""Classes that are drawn; of more, those that do worst."""

_NUMBERED = 12
_WIDE_RANGE, _FAR = 5, 50
_LINE_IN = 0.2


def over_cost(points: Sequence[Point], cost: str) -> str:
    """Draw accuracy over a cost, with intervals, names at the side and the Pareto front.

    Args:
      points: At least one.
      cost: A key of `front.COSTS`.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    best = front(points)
    with blank(height=max(3.3, 1.0 + _LINE_IN * len(points))) as figure:
        axes = figure.add_subplot()
        for split, fill in (("tune", "none"), ("test", "full")):
            own = [point for point in points if point.split == split]
            if own:
                # The end of an interval may be a rounding error inside of an accuracy of 0 or 1.
                below = [100 * max(0.0, one.accuracy - one.low) for one in own]
                above = [100 * max(0.0, one.high - one.accuracy) for one in own]
                axes.errorbar(
                    [one.cost for one in own], [100 * one.accuracy for one in own], [below, above],
                    fmt="o", ms=5, color=SERIES[0], lw=1, fillstyle=fill, label=f"on {split}",
                )  # fmt: skip
        x, y = [one.cost for one in best], [100 * one.accuracy for one in best]
        label = f"best for its cost, on {best[0].split}"
        axes.plot(x, y, "o-", color=SERIES[1], lw=1, ms=9, fillstyle="none", label=label)
        span = max(one.cost for one in points) / min(one.cost for one in points)
        if span > _WIDE_RANGE:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < _FAR else (1,)))
            axes.xaxis.set_minor_locator(NullLocator())
        whole = cost != "host_ms_p50"
        axes.xaxis.set_major_formatter(EngFormatter(sep=" ") if whole else "{x:.3g}")
        axes.set(xlabel=COSTS[cost], ylabel="accuracy, %")
        axes.margins(0.08)
        _names(axes, points)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, fontsize=8)
        words = f"Accuracy over {COSTS[cost]}; best for their cost: "
        return svg(figure, f"over-{cost}", words + ", ".join(one.name for one in best))


def _names(axes: Axes, points: Sequence[Point]) -> None:
    """Write the names of points at the right side, in order of height, none over another."""
    ordered = sorted(points, key=lambda one: one.accuracy)
    step = 1 / max(len(ordered), 10)
    low, high = axes.get_ylim()
    heights: list[float] = []
    for point in ordered:
        wanted = (100 * point.accuracy - low) / (high - low)
        heights.append(max(wanted, heights[-1] + step) if heights else wanted)
    over = 1.0
    for place in reversed(range(len(heights))):  # what was pushed out above comes down again
        heights[place] = min(heights[place], over)
        over = heights[place] - step
    for point, height in zip(ordered, heights, strict=True):
        axes.annotate(
            point.name, (point.cost, 100 * point.accuracy), (1.03, height), "data",
            ("axes fraction", "axes fraction"), va="center", fontsize=8, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": SERIES[2], "shrinkB": 4},
        )  # fmt: skip


def per_class(test: Mapping[str, Any]) -> str:
    """Draw each class's accuracy, the worst first; of many classes the worst."""
    ranked = sorted(test["per_class"].items(), key=lambda item: item[1])[:MOST_CLASSES]
    with blank(height=0.9 + _LINE_IN * len(ranked)) as figure:
        axes = figure.add_subplot()
        names = [_short(name) for name, _ in ranked]
        bars = axes.barh(range(len(ranked)), [100 * share for _, share in ranked], color=SERIES[0])
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        axes.set_yticks(range(len(ranked)), names)
        axes.invert_yaxis()
        axes.set(xlabel="accuracy, %", xlim=(0, 112), xticks=range(0, 101, 20))
        axes.grid(visible=False, axis="y")
        name, share = ranked[0]
        return svg(figure, "per-class", f"Accuracy by class; lowest: {name}, {100 * share:.1f} %")


def confusion(test: Mapping[str, Any]) -> str:
    """Draw the confusion matrix, a row for each true class, by share of the row."""
    from matplotlib.patches import Rectangle

    labels, rows = list(test["labels"]), test["confusion"]
    shown = sorted(range(len(labels)), key=lambda i: _right(rows[i], i))[:MOST_CLASSES]
    shown = sorted(shown)
    with blank(height=4.7) as figure:
        axes = figure.add_subplot()
        for down, true in enumerate(shown):
            total = sum(rows[true]) or 1
            for across, said in enumerate(shown):
                count = rows[true][said]
                if count:
                    place = (across - 0.5, down - 0.5)
                    # Faint enough for the number on it to be read by day and by night.
                    shade = 0.08 + 0.37 * count / total
                    colour = SERIES[0] if true == said else SERIES[1]
                    axes.add_patch(Rectangle(place, 1, 1, color=colour, alpha=shade, lw=0))
                if len(shown) <= _NUMBERED and count:
                    axes.text(across, down, str(count), ha="center", va="center", fontsize=8)
        ends = (-0.5, len(shown) - 0.5)
        axes.set(xlim=ends, ylim=ends[::-1], aspect="equal", xlabel="answered", ylabel="true")
        names = [_short(labels[i]) for i in shown]
        size = 8 if len(shown) <= _NUMBERED else 5
        axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=size)
        axes.set_yticks(range(len(shown)), names, fontsize=size)
        axes.grid(visible=False)
        return svg(figure, "confusion", "Confusion matrix: a row for each true class")


def reliability(test: Mapping[str, Any]) -> str:
    """Draw how often the file, and the float network, is right by how sure it says it is."""
    curves = {"this file": test["reliability"]}
    curves |= {"float": test["float_reliability"]} if "float_reliability" in test else {}
    with blank(height=3.6) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], "--", color=SERIES[2], lw=1, label="as sure as right")
        for (name, curve), colour in zip(curves.items(), SERIES, strict=False):
            x = [100 * one["confidence"] for one in curve["bins"]]
            y = [100 * one["accuracy"] for one in curve["bins"]]
            label = f"{name}, off by {100 * curve['error']:.1f} points"
            axes.plot(x, y, "o-", ms=4, lw=1, color=colour, label=label)
        axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(-2, 102), ylim=(-2, 102))
        axes.legend(loc="upper left", fontsize=8)
        error = 100 * test["reliability"]["error"]
        words = f"Accuracy over confidence; on average {error:.1f} points apart"
        return svg(figure, "reliability", words)


def histogram(layer: str, kind: str, counts: Mapping[str, Any], number: int) -> str:
    """Draw what a layer's values, or weights, are in float and in the file, on a log scale."""
    with blank(height=2.6) as figure:
        axes = figure.add_subplot()
        bars = len(counts["float"])
        width = (counts["high"] - counts["low"]) / bars
        edges = [counts["low"] + width * i for i in range(bars + 1)]
        words = {"float": "float", "quantised": "this file"}
        for (word, label), colour in zip(words.items(), (SERIES[1], SERIES[0]), strict=True):
            axes.stairs([n or float("nan") for n in counts[word]], edges, color=colour, label=label)
        axes.set(yscale="log", xlabel=f"{kind} of {_short(layer, 30)}", ylabel="count")
        axes.legend(fontsize=8)
        return svg(figure, f"{kind}-{number}", f"Histogram of the {kind} of {layer}")


def zeros(shares: Mapping[str, float]) -> str:
    """Draw the share of zeros in each layer's weights."""
    ranked = sorted(shares.items(), key=lambda item: -item[1])[:MOST_CLASSES]
    with blank(height=0.9 + _LINE_IN * len(ranked)) as figure:
        axes = figure.add_subplot()
        bars = axes.barh(range(len(ranked)), [100 * share for _, share in ranked], color=SERIES[0])
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        axes.set_yticks(range(len(ranked)), [_short(name, 28) for name, _ in ranked])
        axes.invert_yaxis()
        axes.set(xlabel="zeros among the weights, %", xlim=(0, 112), xticks=range(0, 101, 20))
        axes.grid(visible=False, axis="y")
        return svg(figure, "zeros", "Share of zeros in each layer's weights")


def training(stage: str, history: Sequence[Mapping[str, float]], number: int) -> str:
    """Draw loss and accuracy of a stage's training, epoch by epoch."""
    epochs = range(1, len(history) + 1)
    with blank() as figure:
        lower, upper = figure.subplots(2, sharex=True)[::-1]
        for axes, name in ((upper, "loss"), (lower, "accuracy")):
            for prefix, colour, label in (("", SERIES[0], "train"), ("val_", SERIES[1], "tune")):
                values = [row.get(prefix + name, float("nan")) for row in history]
                axes.plot(epochs, values, ".-", ms=3, lw=1, color=colour, label=label)
            axes.set_ylabel(name)
        upper.legend(fontsize=8)
        lower.set_xlabel("epoch")
        lower.xaxis.get_major_locator().set_params(integer=True)
        return svg(figure, f"training-{number}", f"Loss and accuracy while {stage} was trained")


def leaving_early(report: Mapping[str, Any]) -> str:
    """Draw accuracy over the mean cost of an input that may leave early."""
    with blank() as figure:
        leaving.draw(figure.add_subplot(), report)
        return svg(figure, "leaving", "Accuracy over mean cost, by effort")


def _right(row: Sequence[int], place: int) -> float:
    return row[place] / (sum(row) or 1)


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
