"""How a comparison of engines is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEADS = ("engine", "version", "threads", "ms (95 %)", "ratio (95 %)", "differs", "same")
LEGEND = (
    "ms: median over the rounds of an inference, its input being set; engines take turns in\n"
    "processes of their own.  ratio: within a round, to the first engine on as many threads.\n"
    "differs: the largest difference to the first engine, in steps of an int8 output or as\n"
    "a share of the largest value in float.  same: share of inputs with the same answer."
)


def table(found: Mapping[str, Any]) -> str:
    """Lay a comparison out for a terminal.

    Args:
      found: As `tfedge.plan.engines.compare` returns it.
    """
    blocks = []
    for model in found["models"]:
        cells = [HEADS, *(_cells(row) for row in model["engines"] if "ms_p50" in row)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(HEADS))]
        lines = [headline(model)]
        for row in cells:
            pairs = zip(row, widths, strict=True)
            lines.append("  ".join(cell.ljust(width) for cell, width in pairs).rstrip())
        lines += [
            f"{row['engine'].ljust(widths[0])}  {why(row)}"
            for row in model["engines"]
            if "ms_p50" not in row
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, LEGEND, on(found["machine"])])


def markdown(found: Mapping[str, Any]) -> str:
    """Lay a comparison out as tables of Markdown, one a model."""
    blocks = []
    for model in found["models"]:
        lines = [
            headline(model),
            "",
            f"| {' | '.join(HEADS)} |",
            "|---|---|---:|---:|---:|---|---|",
        ]
        for row in model["engines"]:
            cells = _cells(row) if "ms_p50" in row else (row["engine"], why(row, code="`"))
            cells += ("",) * (len(HEADS) - len(cells))
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def headline(model: Mapping[str, Any]) -> str:
    """Say what the rows below are of."""
    ends = f"{model['input']} -> {model['output']}"
    of = f"{model['inputs']} inputs {'of ' + model['of'] if 'of' in model else 'at random'}"
    return f"{Path(model['file']).name}: {model['bytes']:,} bytes, {ends}, {of}"


def why(row: Mapping[str, Any], code: str = "") -> str:
    """Say why a row has no figures: what to install, or the engine's message."""
    if "install" in row:
        return f"not installed: {code}{row['install']}{code}"
    threads = f"on {row['threads']} threads: " if row.get("threads", 1) > 1 else ""
    return f"{threads}{row['failed']}"


def on(machine: Mapping[str, Any]) -> str:
    """Say which machine it was, and whether it did something else."""
    return (
        f"{machine['processor']}, {machine['processors']} processors;"
        f" load before: {machine['load_before']:.1f}"
    )


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    ratio = "1"
    if "ratio" in row:
        ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
    low, high = _ms(row["ms_p50_low"]), _ms(row["ms_p50_high"])
    times = f"{_ms(row['ms_p50'])} ({low} to {high})"
    same = f"{100 * row['same_answers']:.1f} %" if "same_answers" in row else ""
    place = (row["engine"], row["version"], str(row["threads"]))
    return (*place, times, ratio, _differs(row), same)


def _differs(row: Mapping[str, Any]) -> str:
    if "largest_difference_steps" in row:
        steps = row["largest_difference_steps"]
        return f"{steps:g} step{'' if steps == 1 else 's'}"
    return f"{row['largest_difference']:.1e}" if "largest_difference" in row else ""


def _ms(value: float) -> str:
    return f"{value:.4f}" if value < 1 else f"{value:.3f}"
