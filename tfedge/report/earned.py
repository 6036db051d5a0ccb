"""What a stage did to the figures of the stage that it was made of, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = {
    "raw_bytes": "raw bytes",
    "zipped_bytes": "zipped bytes",
    "macs": "MACs",
    "host_ms_p50": "host ms",
    "arm_pi4": "Pi 4 instructions",
    "arm_pi5": "Pi 5 instructions",
    "arena_bytes": "arena",
}
"""What a stage may make smaller, with the words for it."""

_SAME = 0.005
_SAME_MS = 0.05
"""Changes, as shares, up to which a figure counts as unchanged; milliseconds never repeat."""


def lines(stages: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return a sentence by a stage's place for those that bought nothing on some figure.

    A stage that makes nothing of another, or only measures it, has none.
    """
    by_name = {stage["name"]: stage for stage in stages}
    found = {
        number: line(stage, by_name[stage["of"]])
        for number, stage in enumerate(stages)
        if stage["use"] != "evaluate" and stage["of"] in by_name
    }
    return {number: words for number, words in found.items() if words}


def line(stage: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """Say which figures of `base` a stage left as they were and how it changed the others.

    Empty if every figure that both have became smaller.
    """
    changes = {
        name: stage[name] / base[name] - 1 for name in FIGURES if base.get(name) and name in stage
    }
    same = [FIGURES[name] for name, change in changes.items() if _is_same(name, change)]
    if not same and not any(change > 0 for change in changes.values()):
        return ""
    parts = [f"{_listed(same)} unchanged"] if same else []
    parts += [
        f"{FIGURES[name]} {100 * change:+.1f} %"
        for name, change in changes.items()
        if not _is_same(name, change)
    ]
    return f"against {base['name']}: " + "; ".join([*parts, *_accuracy(stage, base)])


def _is_same(name: str, change: float) -> bool:
    return abs(change) <= (_SAME_MS if name == "host_ms_p50" else _SAME)


def _accuracy(stage: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    if "accuracy_low" not in stage or stage.get("split") != base.get("split"):
        return []
    change = 100 * (stage["accuracy"] - base["accuracy"])
    inside = stage["accuracy_low"] <= base["accuracy"] <= stage["accuracy_high"]
    return [f"accuracy {change:+.2f} points" + (" (inside its interval)" if inside else "")]


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
