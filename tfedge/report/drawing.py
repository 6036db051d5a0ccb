"""Pictures for a page: matplotlib's figures as SVG that takes its colours from the page.

Where matplotlib writes a colour, it writes one of `_STAND_INS`, and the page's style decides what
that is: by day and by night.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = ("C0", "C1", "C2", "C3")
"""The colours that differ from one another, as matplotlib calls them."""

_TEXT, _LINE, _CYCLE = "#010203", "#040506", ("#a10001", "#a10002", "#a10003", "#a10004")
_STAND_INS = {_TEXT: "currentColor", _LINE: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_CYCLE)
}
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]+)')


@contextmanager
def blank(width: float = 4.7, height: float = 3.3) -> Iterator[Figure]:
    """Give a figure, in inches, that is to be drawn on and, inside the context, made into `svg`."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "tfedge",
        "font.size": 9,
        "axes.prop_cycle": cycler(color=_CYCLE),
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": _LINE,
        "legend.frameon": False,
        "savefig.transparent": True,
        "figure.constrained_layout.h_pad": 0.1,  # room for what stands over a line
    }
    style |= dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _TEXT
    )
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def svg(figure: Figure, name: str, words: str) -> str:
    """Write a figure as an SVG element of an HTML page; the same figure makes the same text.

    Args:
      name: Of the picture, one of its kind on the page: what refers to something inside says it.
      words: What the picture shows, for those who do not see it.
    """
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    root = _cleaned(ElementTree.fromstring(out.getvalue()), name)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": words}
    text = _REFERENCE.sub(rf"\g<1>{name}-\g<2>", ElementTree.tostring(root, "unicode"))
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    for stand_in, colour in _STAND_INS.items():
        text = text.replace(stand_in, colour)
    return text


def _cleaned(root: ElementTree.Element, name: str) -> ElementTree.Element:
    """Take off what concerns a file of its own, and make the names inside a picture its own."""
    for prefix, space in (("", _SVG), ("xlink", _LINK)):
        ElementTree.register_namespace(prefix, space)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)  # a style here would be the whole page's
    used = {found for _, found in _REFERENCE.findall(ElementTree.tostring(root, "unicode"))}
    for element in root.iter():
        own = element.attrib.pop("id", "")
        if own in used:
            element.attrib["id"] = f"{name}-{own}"
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    return root
