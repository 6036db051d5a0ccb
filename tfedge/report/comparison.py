"""How a comparison of a float file and a quantised one is shown: as a table and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from tfedge.errors import UserError
from tfedge.report.ladder import interval

HEADS = ("layer", "class", "alone dB", "arrived dB", "weights dB", "lost")
LEGEND = (
    "dB: signal to noise; 20 dB is a tenth, 40 dB a hundredth.  The worst layer stands first.\n"
    "alone: what the layer's own rounding damages, seen where its channels are next mixed;\n"
    "arrived: what it answers, with the noise of all layers before; lost: channels too small for\n"
    "the range that they share."
)
_NUMBERS_FROM = 2  # the columns before it hold names
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
    rows = [HEADS, *(_row(layer) for layer in found["layers"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    for row in rows:
        cells = [
            cell.rjust(width) if column >= _NUMBERS_FROM else cell.ljust(width)
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
    layers = sorted(found["layers"], key=lambda layer: layer["order"])
    places = range(len(layers))
    with mpl.rc_context({"svg.hashsalt": "tfedge"}):
        height = _MARGIN_INCHES + _ROW_INCHES * len(layers)
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.barh(places, [layer["own_db"] for layer in layers], color="0.75", label="alone")
        axes.plot([layer["arrived_db"] for layer in layers], places, "o-", ms=3, label="arrived")
        weights = [(p, at["weights_db"]) for p, at in enumerate(layers) if "weights_db" in at]
        axes.plot([db for _, db in weights], [p for p, _ in weights], "x", label="weights")
        axes.set_yticks(places, [layer["layer"] for layer in layers], fontsize=7)
        axes.invert_yaxis()
        axes.set_xlim(min(0.0, *(layer["own_db"] for layer in layers)), 60.0)
        axes.set_xlabel("signal to noise, dB (longer is better)")
        axes.legend(loc="lower right")
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _row(layer: Mapping[str, Any]) -> tuple[str, ...]:
    weights = f"{layer['weights_db']:.1f}" if "weights_db" in layer else ""
    lost = f"{layer['lost']} of {layer['channels']}" if layer["lost"] else ""
    decibels = (f"{layer['own_db']:.1f}", f"{layer['arrived_db']:.1f}")
    return (" + ".join(layer["fused"]), layer["kind"], *decibels, weights, lost)
