"""What ``tfedge cost`` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_WIDTH = 100


def table(found: Mapping[str, Any]) -> str:
    """Lay out the costs of `boards.cost.summary` for a terminal, a column a board."""
    boards = found["boards"]
    whole = [f"{board['instructions']:,}" for board in boards.values()]
    rows = [("", *boards, ""), ("Arm instructions", *whole, "one inference, one thread")]
    first = next(iter(boards.values()))
    for number, step in enumerate(first["operators"]):
        counts = [f"{board['operators'][number]['instructions']:,}" for board in boards.values()]
        # The converter joins the names of all that it folds; the first will do here.
        rows.append((f"  {number} {step['name']}", *counts, step["makes"].split(";")[0]))
    if first["call"]:
        rows.append(("  the call itself", *(f"{b['call']:,}" for b in boards.values()), ""))
    if first["operators"]:
        shares = [f"{100 * board['covered']:.1f} %" for board in boards.values()]
        rows.append(("  these add up to", *shares, "of the whole, each counted alone"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
            + [row[-1]]
        ).rstrip()
        for row in rows
    ]
    lines.append(f"host ms  {found['host_ms_p50']}  median of {found['host_runs']}, one thread")
    return "\n".join([*lines, "", *textwrap.wrap(found["note"], _WIDTH)])
