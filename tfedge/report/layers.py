"""Layers of a quantised file as rows of a table, the worst first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADS = ("layer", "class", "alone dB", "arrived dB", "weights dB", "lost")
LEGEND = (
    "dB: signal to noise; 20 dB is a tenth, 40 dB a hundredth.  The worst layer stands first.\n"
    "alone: what the layer's own rounding damages, seen where its channels are next mixed;\n"
    "arrived: what it answers, with the noise of all layers before; lost: channels too small for\n"
    "the range that they share."
)
NUMBERS_FROM = 2
"""The columns before it hold names."""

MOST = 12
"""Layers that a report shows."""


def row(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts below `HEADS` of a layer, as `tflite.layerwise.rows` has it."""
    weights = f"{layer['weights_db']:.1f}" if "weights_db" in layer else ""
    lost = f"{layer['lost']} of {layer['channels']}" if layer["lost"] else ""
    decibels = (f"{layer['own_db']:.1f}", f"{layer['arrived_db']:.1f}")
    return (" + ".join(layer["fused"]), layer["kind"], *decibels, weights, lost)


def markdown(found: Mapping[str, Any]) -> list[str]:
    """Write the layers of a report as a section, in lines; nothing if none were compared."""
    if not found.get("layers"):
        return []
    marks = ["---" if place < NUMBERS_FROM else "---:" for place in range(len(HEADS))]
    lines = [HEADS, marks, *(row(layer) for layer in found["layers"][:MOST])]
    table = ["| " + " | ".join(line) + " |" for line in lines]
    compared = f"On {found['inputs']} inputs of tune, against the float network."
    return ["## Layers", "", *table, "", f"{LEGEND}\n{compared}", ""]
