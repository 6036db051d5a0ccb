"""What leaving a network early comes to: a section of the report, and its picture."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVE = "leaving.svg"
"""The name of the picture that `plot` draws, beside the report."""

_BOARDS = {"pi5": "Pi 5 instructions", "pi4": "Pi 4 instructions"}
_LARGE = 10
_COSTS = ("mean", "p50", "p99", "worst")


def of(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the last stage of a report that measured leaving early; None if there is none."""
    stages = [stage for stage in report["stages"] if "leaving" in stage]
    return stages[-1] if stages else None


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def markdown(stage: Mapping[str, Any], pictures: Sequence[str] = ()) -> list[str]:
    """Write the section, in lines.

    Args:
      stage: From `of`.
      pictures: Names of those that lie beside the page.
    """
    leaving = stage["leaving"]
    lines = ["## Leaving early", "", summary(stage), ""]
    lines += ["| exit | share | accuracy there | accuracy if all left there |"]
    lines += ["|---|" + "---:|" * 3]
    for one in leaving["exits"]:
        own = f"{100 * one['accuracy']:.2f} %" if "accuracy" in one else ""
        every = f"{100 * one['accuracy_of_all']:.2f} %"
        lines += [f"| exit_{one['exit']} | {100 * one['share']:.1f} % | {own} | {every} |"]
    lines += ["", "| cost of an input | " + " | ".join(_COSTS) + " | whole network | saved |"]
    lines += ["|---|" + "---:|" * (len(_COSTS) + 2)]
    for words, cost in costs(stage):
        cells = [number(cost[name]) for name in (*_COSTS, "whole")]
        lines += [f"| {words} | {' | '.join(cells)} | {100 * cost['saved']:.1f} % |"]
    lines += ["", *_curve(stage), ""]
    if CURVE in pictures:
        lines += [f"![Accuracy over mean cost]({CURVE})", ""]
    elif not can_plot():
        lines += ["A picture of this is drawn where matplotlib is: pip install matplotlib", ""]
    for name in pictures:
        if name != CURVE:
            rows = ", ".join(f"exit_{one['exit']}" for one in leaving["exits"])
            lines += ["Inputs that leave at each exit, a row each, from the top:", rows, ""]
            lines += [f"![Inputs that leave early and late]({name})", ""]
    return lines


def text(leaving: Mapping[str, Any]) -> list[str]:
    """Lay out for a terminal what `figures` of an evaluation say of leaving early, in lines."""
    saved = 100 * leaving["cost"]["saved"]
    lines = [
        f"left early {100 * leaving['accuracy']:.2f} % right, {saved:.1f} % of the work saved on"
        " average; the accuracy above is the last exit's"
    ]
    for one in leaving["exits"]:
        own = f", {100 * one['accuracy']:.2f} % of them right" if "accuracy" in one else ""
        lines.append(f"  exit_{one['exit']}   {100 * one['share']:5.1f} % leave{own}")
    return lines


def plot(report: Mapping[str, Any]) -> bytes:
    """Draw accuracy over mean cost, with the ladder's other files as points, as SVG.

    Cost is counted on the board that was asked for (a Pi 5 rather than a Pi 4), else in
    multiply-accumulates.  The same report makes the same bytes.  matplotlib must be installed.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "tfedge"}):
        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot(), report)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def draw(axes: Axes, report: Mapping[str, Any]) -> None:
    """Draw what `plot` says."""
    stage = of(report)
    if stage is None:
        raise ValueError("no stage of the report has exits")
    leaving = stage["leaving"]
    words, bill = next(costs(stage))
    label = f"{stage['name']}, by effort"
    axes.plot(*zip(*sorted(_points(stage)), strict=True), "o-", ms=3, label=label)
    axes.plot([bill["mean"]], [100 * leaving["accuracy"]], "D", color="C1", label="as built")
    for name, x, y in static(report):
        axes.plot([x], [y], "s", color="C2")
        axes.annotate(name, (x, y), xytext=(4, -10), textcoords="offset points", fontsize=7)
    axes.set_xlabel(f"{words}, mean of an input")
    axes.set_ylabel(f"accuracy on {leaving['split']}, %")
    axes.legend(loc="lower right")


def static(report: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """List the report's other files that were measured on the same split.

    Returns:
      The stage's name, its cost in the unit of `plot`, and its accuracy in percent.
    """
    stage = of(report)
    if stage is None:
        return []
    key = next((f"arm_{board}" for board in _BOARDS if board in stage["leaving"]["boards"]), "macs")
    split = stage["leaving"]["split"]
    return [
        (_label(one), one[key], 100 * one["accuracy"])
        for one in report["stages"]
        if one.get("split") == split and key in one and "accuracy" in one
    ]


def _label(stage: Mapping[str, Any]) -> str:
    return f"{stage['name']}, last exit" if "leaving" in stage else str(stage["name"])


def summary(stage: Mapping[str, Any]) -> str:
    """Say in a sentence what leaving early comes to."""
    leaving = stage["leaving"]
    low, high = 100 * leaving["accuracy_low"], 100 * leaving["accuracy_high"]
    return (
        f"{stage['name']} on {leaving['split']}: accuracy {100 * leaving['accuracy']:.2f} %"
        f" ({low:.2f} to {high:.2f}) of {leaving['count']:,} inputs, against"
        f" {100 * leaving['last_accuracy']:.2f} % of the last exit alone, at effort"
        f" {leaving['effort']:.3g}."
    )


def costs(stage: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield what an input costs, in words and numbers: on boards first, then in MACs."""
    leaving = stage["leaving"]
    for board, words in _BOARDS.items():
        if board in leaving["boards"]:
            yield words, leaving["boards"][board]
    if "macs" in stage:
        cost = leaving["cost"]
        yield (
            "MACs",
            {name: cost[name] * stage["macs"] for name in (*_COSTS, "whole")}
            | {"saved": cost["saved"]},
        )
    else:
        yield "share of the whole network's MACs", leaving["cost"]


def _points(stage: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Return mean cost and accuracy in percent of each operating point."""
    points = stage["leaving"]["points"]
    board = next((name for name in _BOARDS if name in stage["leaving"]["boards"]), None)
    scale = stage.get("macs", 1)
    return [
        (
            point["boards"][board] if board else point["mean_cost"] * scale,
            100 * point["accuracy"],
        )
        for point in points
    ]


def _curve(stage: Mapping[str, Any]) -> list[str]:
    """Write the operating points as a table, in lines."""
    words, _ = next(costs(stage))
    lines = [f"| effort | mean cost ({words}) | accuracy | share by exit |", "|---:|---:|---:|---|"]
    points = stage["leaving"]["points"]
    for point, (cost, accuracy) in zip(points, _points(stage), strict=True):
        shares = ", ".join(f"{share:.0%}" for share in point["shares"])
        effort = f"{point['effort']:.3f}"
        lines.append(f"| {effort} | {number(cost)} | {accuracy:.2f} % | {shares} |")
    return lines


def number(cost: float) -> str:
    """Write instructions or multiply-accumulates whole, and a share of them not."""
    return f"{cost:,.0f}" if cost >= _LARGE else f"{cost:.3f}"
