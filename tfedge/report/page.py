"""The report as one page: the answer first, then what it rests on.

Everything is in the file: style, pictures, figures.  It asks for nothing from anywhere.
"""

from __future__ import annotations

import base64
import importlib.util
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfedge.report import front, ladder, layers, leaving, plots, searched, targets

NEEDS = ("matplotlib", "jinja2")
INSTALL = "pip install 'tfedge[report]'"

_THUMB = 96
_PERCENT = 100
_HEADINGS = {
    "raw_bytes": ("bytes", "smaller"),
    "arm_pi5": ("Pi 5 instructions", "fewer"),
    "arm_pi4": ("Pi 4 instructions", "fewer"),
    "host_ms_p50": ("an inference here, p50", "faster"),
}
_TRUE_RATIO = 1.05
_ELSEWHERE = (ladder.COLUMNS["seconds"], ladder.COLUMNS["arena_measured_bytes"])
_COSTS = ("mean", "p50", "p99", "worst", "whole")


@dataclass(frozen=True)
class Pictures:
    """Pictures of the data.

    Attributes:
      lost: Those that only the float network has right, as the report's test lists them: uint8
        [count, height, width, channels]; empty if there are none.
      leaving: A PNG of those that leave at each exit, a row an exit; empty if there is none.
    """

    lost: Sequence[np.ndarray] = ()
    leaving: bytes = b""


def missing() -> list[str]:
    """Name what must be installed before a page can be made."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def html(report: Mapping[str, Any], pictures: Pictures | None = None) -> str:
    """Write a report as an HTML page; what `missing` names must be installed.

    The same report makes the same text.

    Args:
      report: As `ladder.report_of` makes it, with at least one stage.
    """
    import jinja2

    place = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(place),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=1: f"{_PERCENT * share:.{digits}f} %"
    context = _context(report, pictures or Pictures())
    text = environment.get_template("page.html.j2").render(context)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _context(report: Mapping[str, Any], pictures: Pictures) -> dict[str, Any]:
    head, *rows = _spared(ladder.cells(report))
    subject, first = subjects(report)
    early = leaving.of(report)
    return {
        "report": report,
        "name": report["pipeline"],
        "verdict": verdict(report),
        "tiles": tiles(report),
        "subject": subject,
        "first": first,
        "head": head,
        "rows": rows,
        "notes": [note.strip() for note in ladder.notes(report)],
        "gained": ladder.gained(report),
        "targets": list(targets.rows(report)),
        "boards": [ladder.board_line(one) for one in report.get("boards", ())],
        "fronts": list(_fronts(report)),
        "search": searched.of(report),
        "test": _tested(report, pictures),
        "layers": _layers(report),
        "training": [
            {"stage": stage, "plot": plots.training(stage, history, number)}
            for number, (stage, history) in enumerate(report.get("training", {}).items())
        ],
        "early": _early(report, early, pictures) if early else None,
        "data": report.get("data", {}),
        "made": report.get("made", {}),
    }


def _spared(cells: list[list[str]]) -> list[list[str]]:
    """Leave out the columns that the page tells elsewhere, or that a screen has no room for."""
    kept = [place for place, word in enumerate(cells[0]) if word not in _ELSEWHERE]
    return [[row[place] for place in kept] for row in cells]


def subjects(report: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the stage that the page is about, and the one that it is held against.

    That is the last with an accuracy on test, else the last; and the first of all.
    """
    stages = report["stages"]
    tested = [stage for stage in stages if stage.get("split") == "test"]
    return (tested or stages)[-1], stages[0]


def verdict(report: Mapping[str, Any]) -> dict[str, str]:
    """Answer in a sentence whether the file is good enough, with a ``mood`` for its colour."""
    found = report.get("targets", ())
    if not found:
        return {
            "mood": "open",
            "words": "Nobody has said what is good enough.",
            "more": "A [targets] table in the pipeline's file does, and is answered here.",
        }
    told = [one["verdict"] for one in found]
    if targets.MISSED in told:
        missed = ", ".join(targets.missed(report))
        words = f"Not good enough: {told.count(targets.MISSED)} of {len(told)} targets missed."
        return {"mood": "bad", "words": words, "more": f"Missed: {missed}."}
    if targets.OPEN in told:
        words = f"{told.count(targets.MET)} of {len(told)} targets met, the others not measured."
        return {"mood": "open", "words": words, "more": "How to measure them stands below."}
    every = "The target is" if len(told) == 1 else f"All {len(told)} targets are"
    return {"mood": "good", "words": f"Good enough to ship: {every} met.", "more": ""}


def tiles(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what stands on the first screen: each a ``name``, a ``value`` and ``more``."""
    subject, first = subjects(report)
    found = [_accuracy(report, subject)]
    for key, (name, better) in _HEADINGS.items():
        board = {"arm_pi5": "pi5", "arm_pi4": "pi4"}.get(key)
        value = targets.cost(subject, board) if board else subject.get(key)
        if value is None:
            continue
        text = f"{value:.3g} ms" if key == "host_ms_p50" else f"{value:,.0f}"
        base = _baseline(report, key, first)
        more = "mean, leaving early; " if board and "leaving" in subject else ""
        if base and base is not subject:
            ratio = base[key] / value
            worse = {"smaller": "larger", "fewer": "more", "faster": "slower"}[better]
            if ratio >= _TRUE_RATIO:
                more += f"{ratio:.3g} times {better} than {base['name']}"
            elif 1 / ratio >= _TRUE_RATIO:
                more += f"{1 / ratio:.3g} times {worse} than {base['name']}"
            else:
                more += f"as {base['name']}"
        found.append({"name": name, "value": text, "more": more})
    return [tile for tile in found if tile]


def _accuracy(report: Mapping[str, Any], subject: Mapping[str, Any]) -> dict[str, str]:
    right = subject.get("leaving", subject)
    if "accuracy" not in right:
        return {}
    more = ""
    if "accuracy_low" in right:
        low, high = _PERCENT * right["accuracy_low"], _PERCENT * right["accuracy_high"]
        more = f"{low:.1f} to {high:.1f} with 95 % confidence"
    more += (
        f", {right['count']:,} inputs of {right['split']}" if {"count", "split"} <= {*right} else ""
    )
    if other := report.get("test", {}).get("against"):
        more += f"; {other['stage']} {_PERCENT * other['accuracy']:.2f} %"
    return {"name": "accuracy", "value": f"{_PERCENT * right['accuracy']:.2f} %", "more": more}


def _baseline(report: Mapping[str, Any], key: str, first: Mapping[str, Any]) -> Any:
    """Return the first stage, or one that measured the same network where the first has none."""
    if first.get(key):
        return first
    known = {first["name"]}
    for stage in report["stages"]:
        if stage.get("of") in known and stage["use"] in ("convert", "evaluate"):
            known.add(stage["name"])
            if stage.get(key):
                return stage
    return None


def _fronts(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for cost, words in front.COSTS.items():
        points = front.points(report, cost)
        if len(points) > 1:
            best = ", ".join(one.name for one in front.front(points))
            yield {"words": words, "plot": plots.over_cost(points, cost), "best": best}


def _tested(report: Mapping[str, Any], pictures: Pictures) -> dict[str, Any] | None:
    test = report.get("test", {})
    if not test.get("per_class"):
        return None
    found = {
        "interval": ladder.interval(test),
        "figures": test,
        "per_class": plots.per_class(test),
        "confusion": plots.confusion(test),
        "left_out": max(0, len(test["labels"]) - plots.MOST_CLASSES),
        "reliability": plots.reliability(test) if "reliability" in test else "",
        "lost": [],
    }
    changed = test.get("changed", {"shown": ()})
    for number, one in enumerate(changed["shown"]):
        seen = number < len(pictures.lost)
        found["lost"].append({
            "input": one["input"],
            "true": test["labels"][one["true"]],
            "answered": test["labels"][one["answered"]],
            "picture": _data_uri(_thumb(pictures.lost[number])) if seen else "",
        })  # fmt: skip
    return found


def _layers(report: Mapping[str, Any]) -> dict[str, Any] | None:
    found = report.get("layers")
    if not found:
        return None
    counted = found.get("histograms", {})
    worst = [row["layer"] for row in found.get("layers", ()) if row["layer"] in counted]
    histograms = [
        {
            "layer": layer,
            "plots": [plots.histogram(layer, kind, of, number) for kind, of in counts.items()],
        }
        for number, layer in enumerate(worst)
        for counts in (counted[layer],)
    ]
    spared = {layer: share for layer, share in found["zeros"].items() if share}
    return {
        "inputs": found.get("inputs", 0),
        "worst": found.get("layers", ())[: layers.MOST],
        "count": len(found.get("layers", ())),
        "histograms": histograms,
        "zeros": plots.zeros(found["zeros"]) if spared else "",
    }


def _early(
    report: Mapping[str, Any], stage: Mapping[str, Any], pictures: Pictures
) -> dict[str, Any]:
    return {
        "summary": leaving.summary(stage),
        "exits": stage["leaving"]["exits"],
        "costs": [
            {"words": words, "saved": cost["saved"]}
            | {
                name: leaving.number(cost[name])
                for name in ("mean", "p50", "p99", "worst", "whole")
            }
            for words, cost in leaving.costs(stage)
        ],
        "plot": plots.leaving_early(report),
        "picture": _data_uri(pictures.leaving) if pictures.leaving else "",
    }


def _thumb(picture: np.ndarray) -> bytes:
    shown = picture[..., 0] if picture.shape[-1] == 1 else picture
    image = Image.fromarray(np.ascontiguousarray(shown)).convert("RGB")
    image.thumbnail((_THUMB, _THUMB))
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
