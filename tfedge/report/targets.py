"""What a pipeline's file is to keep to, and the verdict on each of these targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MET, MISSED, OPEN = "met", "missed", "not measurable here"
HOST = "host"
"""The device that is the machine which builds."""

Figure = dict[str, Any]
"""``value`` and what it was measured on, or ``why`` there is none and ``how`` to measure it."""

_DIGITS = 9
"""Differences of accuracies are rounded to: 0.9 - 0.89 is to be no more than 0.01."""


@dataclass(frozen=True)
class Limit:
    """One target.

    Attributes:
      name: Its key in the [targets] table.
      value: Bytes, instructions, milliseconds, or a fraction from 0 to 1.
      device: What it holds on, for instructions and milliseconds.
    """

    name: str
    value: float
    device: str = ""

    @property
    def label(self) -> str:
        """Its name and its device."""
        return f"{self.name} {self.device}".strip()


@dataclass(frozen=True)
class Targets:
    """The targets of a pipeline.

    Attributes:
      stage: The one whose .tflite they are about.
      evaluated: The `evaluate` that measures it on the test split; empty if there is none.
      against: The one whose network a drop of accuracy is against.
      counts: The boards whose instructions that `evaluate` counts in any case.
    """

    limits: tuple[Limit, ...]
    stage: str
    evaluated: str
    against: str
    counts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """All that verdicts rest on.

    Attributes:
      rows: The report's stages by name; those that are not built are not among them.
      boards: What boards have measured of the very file; see `boards.measured`.
      counted: For boards whose instructions no stage has counted: the number, or why it is not
        known.
      pipeline: The file, and what else its commands need.
    """

    targets: Targets
    rows: Mapping[str, Mapping[str, Any]]
    boards: Sequence[Mapping[str, Any]]
    counted: Mapping[str, int | str]
    pipeline: str


def verdicts(case: Case) -> list[dict[str, Any]]:
    """Hold the figures of a build to its targets.

    Returns:
      For each target, as JSON values: ``target``, ``device`` if it has one, ``stage``, ``limit``,
      ``verdict``, and ``value`` with what it was measured on; ``missed_by``, above 0 and in the
      unit of the limit; or, where there is no figure, ``why`` and ``how`` to measure it.
    """
    found = []
    for limit in case.targets.limits:
        row = case.rows.get(case.targets.stage)
        figure = _FIGURES[limit.name](limit, row, case) if row else _not_built(case)
        device = {"device": limit.device} if limit.device else {}
        own = {"target": limit.name, **device, "stage": case.targets.stage, "limit": limit.value}
        found.append(own | _judged(limit, figure) | figure)
    return found


def cost(row: Mapping[str, Any], board: str) -> float | None:
    """Return the Arm instructions of an inference that a stage has counted.

    Of a file with exits they are the mean over the inputs that it was measured on, each of which
    left where it was sure.
    """
    if "leaving" in row:
        mean: float | None = row["leaving"]["boards"].get(board, {}).get("mean")
        return mean
    return row.get(f"arm_{board}")


def wish(one: Mapping[str, Any]) -> str:
    """Say in a line what a plan tells of a target: see `plan.targets.foreseen`."""
    limit = _limit(one)
    why = f"; cannot be measured here yet: {one['why']}" if "why" in one else ""
    return f"{'target':12} {limit.label} {number(limit, limit.value)}, of {one['stage']}{why}"


def missed(report: Mapping[str, Any]) -> list[str]:
    """Name the targets that a report says are missed."""
    return [_limit(one).label for one in report.get("targets", ()) if one["verdict"] == MISSED]


def lines(report: Mapping[str, Any]) -> list[str]:
    """Lay the verdicts out for a terminal; nothing if there are no targets."""
    found = report.get("targets", ())
    return [summary(found), *(line for one in found for line in _lines(one))] if found else []


def markdown(report: Mapping[str, Any]) -> list[str]:
    """Write the verdicts as a section, in lines; nothing if there are no targets."""
    found = report.get("targets", ())
    if not found:
        return []
    out = ["## Targets", "", f"{summary(found).capitalize()}.", ""]
    out += ["| target | limit | measured | verdict |", "|---|---:|---:|---|"]
    for one in rows(report):
        verdict = one["verdict"] + (f": {one['why']}" if one["why"] else "")
        out.append(f"| {one['target']} | {one['limit']} | {one['measured']} | {verdict} |")
    return [*out, ""]


def rows(report: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the verdicts as texts: ``target``, ``limit``, ``measured``, ``verdict`` and ``why``.

    Their ``mood`` is the verdict's word alone.
    """
    for one in report.get("targets", ()):
        limit = _limit(one)
        yield {
            "target": limit.label,
            "limit": number(limit, limit.value),
            "measured": _figure(one) if "value" in one else "",
            "verdict": f"{one['verdict']} {_by(one)}".strip(),
            "why": f"{one['why']}; {one['how']}" if "why" in one else "",
            "mood": one["verdict"],
        }


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """Count the verdicts in a sentence."""
    told = [one["verdict"] for one in found]
    counts = [f"{told.count(word)} {word}" for word in (MET, MISSED, OPEN) if word in told]
    return f"targets of {found[0]['stage']}: {', '.join(counts)}"


def number(limit: Limit, value: float) -> str:
    """Write a figure in the unit of a target."""
    match limit.name:
        case "max_bytes":
            return f"{value:,.0f} bytes"
        case "max_cost":
            return f"{value:,.0f} instructions"
        case "max_ms":
            return f"{value:.4g} ms"
        case "min_accuracy":
            return f"{100 * value:.2f} %"
        case _:
            return f"{100 * value:.2f} points"


def deploying(board: str, pipeline: str) -> str:
    """Return the command that has a board measure what a pipeline made.

    Args:
      board: As `boards.ssh.Board.name` says it.
      pipeline: Its file, and what else the command needs.
    """
    at, _, port = board.rpartition(":") if board.rpartition(":")[2].isdigit() else (board, "", "")
    option = f"-p {port} " if port else ""
    return f"tfedge deploy {option}{at}:tfedge {pipeline} --bench 200"


def _judged(limit: Limit, figure: Figure) -> dict[str, Any]:
    if "value" not in figure:
        return {"verdict": OPEN}
    sign = -1 if limit.name.startswith("min_") else 1
    over = round(sign * (figure["value"] - limit.value), _DIGITS)
    return {"verdict": MISSED, "missed_by": over} if over > 0 else {"verdict": MET}


def _bytes(_: Limit, row: Mapping[str, Any], case: Case) -> Figure:
    if "raw_bytes" in row:
        return {"value": row["raw_bytes"]}
    problem = f"{case.targets.stage!r} does not say how large its file is"
    return {"why": problem, "how": "return raw_bytes from its run()"}


def _cost(limit: Limit, row: Mapping[str, Any], case: Case) -> Figure:
    measured = case.rows.get(case.targets.evaluated, row)
    value = cost(measured, limit.device)
    how = f'write cost = ["{limit.device}"] in an evaluate stage: that fetches what is missing'
    if "leaving" in measured:
        on = {"on": f"{measured['leaving']['split']}, mean of leaving early"}
        why = "what leaving early costs there was not counted"
        return {"why": why, "how": how} if value is None else {"value": value, **on}
    counted = case.counted.get(limit.device, "not counted") if value is None else value
    return {"why": counted, "how": how} if isinstance(counted, str) else {"value": counted}


def _ms(limit: Limit, row: Mapping[str, Any], case: Case) -> Figure:
    if limit.device == HOST:
        on = {"on": "the whole network, nothing left early"} if "leaving" in row else {}
        if "host_ms_p50" in row:
            return {"value": row["host_ms_p50"], **on}
        why = f"this machine did not run it, see the notes of {case.targets.stage}"
        return {"why": why, "how": "build where ai-edge-litert runs it"}
    how = {"how": deploying(limit.device, case.pipeline)}
    one = next((one for one in case.boards if one["host"] == limit.device), None)
    if one is None:
        return {"why": "that board has not measured this file", **how}
    if not one.get("valid", True):
        reason = one.get("invalid_because", "throttled")
        return {"why": f"its run there is not valid: {reason}", **how}
    if "invoke_p50_ms" not in one:
        return {"why": "its run there did not time the network alone", **how}
    return {"value": one["invoke_p50_ms"]}


def _accuracy(_limit: Limit, _row: Mapping[str, Any], case: Case) -> Figure:
    measured = case.rows.get(case.targets.evaluated)
    found = _right(measured) if measured else None
    if not found:
        return _not_built(case, case.targets.evaluated)
    bounds = {f"value_{end}": found[f"accuracy_{end}"] for end in ("low", "high")}
    return {"value": found["accuracy"], **bounds, "on": found["split"]}


def _drop(_: Limit, row: Mapping[str, Any], case: Case) -> Figure:
    """Take the accuracies of the file and of a network, measured on one split."""
    evaluated, name = case.targets.evaluated, case.targets.against
    if evaluated and evaluated not in case.rows:
        return _not_built(case, evaluated)
    measured = case.rows.get(evaluated, row)
    base = measured.get("against") or _right(case.rows.get(name, {}))
    rows = [measured, row, case.rows.get(row.get("of", ""), {})]
    own = [found for found in map(_right, rows) if found]
    same = [found for found in own if base and found["split"] == base["split"]]
    if not (base and same):
        why = f"no accuracy of {name!r} and of the file on one split"
        return {"why": why, "how": f'write against = "{name}" in an evaluate stage'}
    value = round(base["accuracy"] - same[0]["accuracy"], _DIGITS)
    return {"value": value, "on": f"{base['split']}, against {name}"}


_FIGURES = {
    "max_bytes": _bytes,
    "max_cost": _cost,
    "max_ms": _ms,
    "min_accuracy": _accuracy,
    "max_drop": _drop,
}


def _right(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a stage's accuracy as its file will answer: leaving early, if it has exits."""
    found: Mapping[str, Any] = row.get("leaving", row)
    return found if "accuracy" in found and "split" in found else None


def _not_built(case: Case, stage: str = "") -> Figure:
    why = f"{stage or case.targets.stage!r} is not built"
    return {"why": why, "how": f"tfedge build {case.pipeline}"}


def _limit(one: Mapping[str, Any]) -> Limit:
    return Limit(one["target"], one["limit"], one.get("device", ""))


def _lines(one: Mapping[str, Any]) -> Iterator[str]:
    limit = _limit(one)
    wish = f"{limit.label} {number(limit, limit.value)}"
    if "value" in one:
        yield f"  {one['verdict']:8} {wish}: {_figure(one)}" + (f", {_by(one)}" if _by(one) else "")
    else:
        yield f"  {'open':8} {wish}: {one['verdict']}: {one['why']}"
        yield f"  {'':8} do: {one['how']}"


def _figure(one: Mapping[str, Any]) -> str:
    limit = _limit(one)
    ends = [f"{100 * one[end]:.2f}" for end in ("value_low", "value_high") if end in one]
    bounds = f" ({' to '.join(ends)})" if ends else ""
    return number(limit, one["value"]) + bounds + (f" on {one['on']}" if "on" in one else "")


def _by(one: Mapping[str, Any]) -> str:
    if "missed_by" not in one:
        return ""
    limit, by = _limit(one), one["missed_by"]
    if limit.name in ("min_accuracy", "max_drop"):
        return f"by {100 * by:.2f} points"
    return f"by {number(limit, by)} ({100 * by / limit.value:+.1f} %)"
