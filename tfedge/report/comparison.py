"""How a comparison of a float file and a quantised one is shown: as a table and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from tfedge.errors import UserError
from tfedge.report import layers
from tfedge.report.ladder import interval
from tfedge.report.layers import HEADS, LEGEND, NUMBERS_FROM

_ROW_INCHES, _MARGIN_INCHES, _WIDTH_INCHES = 0.22, 1.3, 8.0


def table(found: Mapping[str, Any]) -> str:
    """Lay a comparison out for a terminal.

    Args:
      found: As `tfedge.plan.comparing.compare` returns it.
    """
    lines = [
        f"float      {interval(found['float'])}, {found['float']['count']:,} inputs of"
        f" {found['split']}",
        f"quantised  {interval(found['quantised'])}",
        f"agreement  {100 * found['agreement']:.2f} %",
        "",
    ]
    rows = [HEADS, *(layers.row(layer) for layer in found["layers"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    for row in rows:
        cells = [
            cell.rjust(width) if column >= NUMBERS_FROM else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if found["left_out"]:
        lines.append(f"{found['left_out']} operators have no partner and were left out")
    return "\n".join([*lines, "", LEGEND, f"Layers were compared on {found['inputs']} inputs."])


def plot(found: Mapping[str, Any]) -> bytes:
    """Draw the layers from input to output, as SVG; the same comparison makes the same bytes.

    Raises:
      UserError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        fix = "install it: pip install matplotlib"
        raise UserError("--plot", "needs matplotlib", fix) from None
    ordered = sorted(found["layers"], key=lambda layer: layer["order"])
    places = range(len(ordered))
    with mpl.rc_context({"svg.hashsalt": "tfedge"}):
        height = _MARGIN_INCHES + _ROW_INCHES * len(ordered)
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.barh(places, [layer["own_db"] for layer in ordered], color="0.75", label="alone")
        axes.plot([layer["arrived_db"] for layer in ordered], places, "o-", ms=3, label="arrived")
        weights = [(p, at["weights_db"]) for p, at in enumerate(ordered) if "weights_db" in at]
        axes.plot([db for _, db in weights], [p for p, _ in weights], "x", label="weights")
        axes.set_yticks(places, [layer["layer"] for layer in ordered], fontsize=7)
        axes.invert_yaxis()
        axes.set_xlim(min(0.0, *(layer["own_db"] for layer in ordered)), 60.0)
        axes.set_xlabel("signal to noise, dB (longer is better)")
        axes.legend(loc="lower right")
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
