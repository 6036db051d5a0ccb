"""The ladder: one row a stage, from the first network to the file for the board."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfedge.report import earned, layers, leaving, targets

COLUMNS = {
    "name": "stage",
    "use": "use",
    "accuracy": "accuracy",
    "split": "on",
    "parameters": "parameters",
    "macs": "MACs",
    "raw_bytes": "bytes",
    "zipped_bytes": "zipped",
    "sparsity": "zeros",
    "host_ms_p50": "host ms",
    "arm_pi4": "Pi 4 instr.",
    "arm_pi5": "Pi 5 instr.",
    "arena_bytes": "arena",
    "arena_measured_bytes": "arena here",
    "seconds": "seconds",
}
"""The figures of a row, in their order, with the words above their column."""

ELSEWHERE = ("test", "history", "host_ms_p50", "layers")
"""What stages know and no row shows as theirs."""

GAINS = {**earned.FIGURES, "raw_bytes": "bytes"}
"""The figures of the last line, with their words."""

_MS_ROUNDED = 0.1

_OWN = ("name", "use", "of", "key", "seconds")

LEFT_OUT = ("history", "zeros", "clusters", "test", "notes", "left_in_float", "epochs", "count")


def report_of(
    pipeline: str,
    records: Iterable[Mapping[str, Any]],
    measured: Iterable[Mapping[str, Any]] = (),
    here: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Join the records of finished stages into a report, as JSON values.

    A figure that was not measured is absent.  ``test`` is what the last `evaluate` found,
    ``layers`` what it found of each, ``training`` the rows of each training's epochs, ``made`` the
    settings, ``data`` and ``seed`` what else decided the results, ``boards`` what boards have
    measured.  A stage's ``earned`` says in words what it did to the figures of the one that it was
    made of, ``of``.

    Args:
      here: What this machine has measured of each stage's file, see `boards.host`.  A stage's own
        milliseconds are left out: they were taken at another time than those of the others.
    """
    records = list(records)
    report: dict[str, Any] = {"pipeline": pipeline}
    report["stages"] = [_row(one, (here or {}).get(one["name"], {})) for one in records]
    for record in records:
        found = record["figures"]
        report |= {name: found[name] for name in ("test", "layers") if name in found}
    for stage, words in earned.lines(report["stages"]).items():
        report["stages"][stage]["earned"] = words
    report["training"] = {
        one["name"]: one["figures"]["history"] for one in records if one["figures"].get("history")
    }
    report["made"] = {one["name"]: one["recipe"]["settings"] for one in records if "recipe" in one}
    if records:
        report["versions"] = records[-1]["versions"]
        report |= {k: v for k, v in records[-1].get("recipe", {}).items() if k in ("data", "seed")}
    if boards := [dict(figures) for figures in measured]:
        report["boards"] = boards
    return report


def _row(record: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's figures, its own milliseconds replaced by those of the run of all."""
    figures = {k: v for k, v in record["figures"].items() if k not in ELSEWHERE}
    if "against" in record["figures"].get("test", {}):
        figures["against"] = record["figures"]["test"]["against"]
    timed = dict(here)
    if "failed" in timed:
        why = f"not measured on this machine: {timed.pop('failed')}"
        figures["notes"] = [*figures.get("notes", ()), why]
    return {name: record[name] for name in _OWN} | figures | timed


def table(report: Mapping[str, Any]) -> str:
    """Lay the ladder out for a terminal, with what was gained as the last line."""
    head, *rows = cells(report)
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    text = (1, 0, 3)  # names and words stand left, numbers right
    lines = [
        "  ".join(
            cell.ljust(width) if i in text else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    own = [board_line(figures) for figures in report.get("boards", ())]
    verdicts = targets.lines(report)
    held = ["", *verdicts] if verdicts else []
    return "\n".join([*lines, *notes(report), "", gained(report), *own, *held])


def markdown(report: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """Write the ladder as a Markdown page.

    Args:
      pictures: Names of those that lie beside it; see `leaving.markdown`.
    """
    head, *rows = cells(report)
    lines = [f"# {report['pipeline']}", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *(f"- {note.strip()}" for note in notes(report)), "", gained(report), ""]
    lines += targets.markdown(report)
    if "boards" in report:
        lines += ["## On boards", "", *(f"- {board_line(one)}" for one in report["boards"]), ""]
    if stage := leaving.of(report):
        lines += leaving.markdown(stage, pictures)
    if "test" in report:
        lines += _test(report["test"])
    lines += layers.markdown(report.get("layers", {}))
    return "\n".join(lines)


def gained(report: Mapping[str, Any]) -> str:
    """Say in one line what the last stage gained and lost against the first."""
    stages = report["stages"]
    if len(stages) < 2:  # noqa: PLR2004 - there is nothing to compare
        return "One stage has no other to be compared with."
    first, last = stages[0], stages[-1]
    parts = []
    for name, word in GAINS.items():
        if first.get(name) and name in last:
            parts.append(f"{word} {100 * (last[name] / first[name] - 1):+.1f} %")
    same = [stage for stage in stages if stage.get("split") == first.get("split")]
    if "accuracy" in first and len(same) > 1:
        change = 100 * (same[-1]["accuracy"] - first["accuracy"])
        parts.append(f"accuracy {change:+.2f} points on {first['split']} ({same[-1]['name']})")
    if "test" in report:
        parts.append(f"test accuracy {interval(report['test'])}")
        if "against" in report["test"]:
            other = report["test"]["against"]
            parts.append(f"of {other['stage']} {100 * other['accuracy']:.2f} %")
    return f"{last['name']} against {first['name']}: " + ", ".join(parts)


def board_line(figures: Mapping[str, Any]) -> str:
    """Say in one line what a board has measured itself."""
    parts = [
        f"{name} p50 {figures[f'{key}_p50_ms']:.3f} ms, p99 {figures[f'{key}_p99_ms']:.3f} ms"
        for key, name in (("total", "an input"), ("invoke", "the network alone"))
        if f"{key}_p50_ms" in figures and f"{key}_p99_ms" in figures
    ]
    parts += [f"first {figures['first_ms']:.1f} ms"] if "first_ms" in figures else []
    parts += [f"{figures['memory_mib']:.0f} MiB"] if figures.get("memory_mib") else []
    parts += [f"{figures['energy_mj']:.2f} mJ"] if "energy_mj" in figures else []
    runtime = ", ".join(str(figures[key]) for key in ("runtime", "delegate") if key in figures)
    line = f"on {figures['host']}, {figures['model']} ({runtime}): {', '.join(parts)}"
    if figures.get("valid", True):
        return line
    return f"{line}; NOT VALID: {figures.get('invalid_because', 'throttled')}"


def interval(figures: Mapping[str, Any]) -> str:
    """Write an accuracy with its 95 % interval, in percent."""
    low, high = figures["accuracy_low"], figures["accuracy_high"]
    return f"{100 * figures['accuracy']:.2f} % ({100 * low:.2f} to {100 * high:.2f})"


def evaluation(test: Mapping[str, Any]) -> str:
    """Lay out what an evaluation found, for a terminal."""
    lines = [f"accuracy   {interval(test)}, {test['count']:,} inputs of {test['split']}"]
    if "agreement" in test:
        lines.append(f"agreement  {100 * test['agreement']:.2f} % with the float network")
    if "reliability" in test:
        lines.append(f"confidence {_off(test)}")
    if "against" in test:
        other = test["against"]
        lines.append(f"beside     {other['stage']}, {interval(other)}")
    lines.append(f"host ms    p50 {test['host_ms_p50']}, p90 {test['host_ms_p90']} an input")
    lines.append(f"runtime    {test['runtime']}")
    if "leaving" in test:
        lines += ["", *leaving.text(test["leaving"])]
    labels = list(test["per_class"])
    width = max(map(len, labels))
    lines += ["", "accuracy by class, and what was answered instead"]
    names = test.get("labels", labels)
    for label, share in test["per_class"].items():
        row = test["confusion"][names.index(label)]
        wrong = sorted(
            ((n, other) for n, other in zip(row, names, strict=True) if n and other != label),
            reverse=True,
        )
        words = ", ".join(f"{other} {n}" for n, other in wrong[:3])
        lines.append(f"  {label.ljust(width)}  {100 * share:6.2f} %  {words}".rstrip())
    return "\n".join(lines)


def brief(figures: Mapping[str, Any]) -> str:
    """Name a stage's plain numbers on one line."""
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value:,}"
        for name, value in figures.items()
        if isinstance(value, (int, float)) and name not in LEFT_OUT
    )


def cells(report: Mapping[str, Any]) -> list[list[str]]:
    """Return the ladder as texts: the words above the columns, then a row a stage."""
    shown = [name for name in COLUMNS if any(name in stage for stage in report["stages"])]
    rows = [[_cell(name, stage) for name in shown] for stage in report["stages"]]
    return [[COLUMNS[name] for name in shown], *rows]


def _cell(name: str, stage: Mapping[str, Any]) -> str:
    if name not in stage:
        return ""
    value = stage[name]
    if name == "accuracy" and "accuracy_low" not in stage:
        return f"{100 * value:.2f} %"
    if name == "accuracy":
        low, high = stage["accuracy_low"], stage["accuracy_high"]
        return f"{100 * value:.2f} % ({100 * low:.1f}-{100 * high:.1f})"
    if name == "sparsity":
        return f"{100 * value:.1f} %"
    if name == "seconds":
        return f"{value:.1f}"
    if name == "host_ms_p50":
        return f"{value:.3f}" if value >= _MS_ROUNDED else f"{value:.2g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def notes(report: Mapping[str, Any]) -> list[str]:
    """Return what is to be said of each stage, a line each."""
    return [
        f"  {stage['name']}: {note}"
        for stage in report["stages"]
        for note in (
            *stage.get("notes", ()),
            *([_exits(stage["exits"])] if "exits" in stage else ()),
            *([stage["earned"]] if "earned" in stage else ()),
        )
    ]


def _exits(exits: Mapping[str, Mapping[str, Any]]) -> str:
    """Say in one line how often each exit of a network is right."""
    split = next(iter(exits.values()))["split"]
    shares = (f"{name} {100 * figures['accuracy']:.2f} %" for name, figures in exits.items())
    return f"right on {split}: {', '.join(shares)}"


def _off(test: Mapping[str, Any]) -> str:
    """Say how far confidence and accuracy are apart, see `tflite.reliability`."""
    beside = (
        f" (the float network's {100 * test['float_reliability']['error']:.1f})"
        if "float_reliability" in test
        else ""
    )
    return f"{100 * test['reliability']['error']:.1f} points off on average{beside}"


def _test(test: Mapping[str, Any]) -> list[str]:
    labels: Sequence[str] = list(test["labels"])
    lines = ["## Test split", "", f"Accuracy {interval(test)} of {test['count']:,} inputs."]
    if "agreement" in test:
        lines += [f"Agreement with the float network {100 * test['agreement']:.2f} %."]
    if "reliability" in test:
        lines += [f"Its confidence is {_off(test)}."]
    if "changed" in test:
        lost, won = test["changed"]["lost"], test["changed"]["won"]
        lines += [f"{lost} inputs only the float network has right, {won} only this file."]
    lines += ["", "| true \\ answered | " + " | ".join(labels) + " |"]
    lines += ["|---|" + "---:|" * len(labels)]
    for label, row in zip(labels, test["confusion"], strict=True):
        lines.append(f"| {label} | " + " | ".join(map(str, row)) + " |")
    return [*lines, ""]
