"""What `tfedge check` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from tfedge.boards import edgetpu
from tfedge.boards.checking import Finding, Verdict
from tfedge.boards.memory import MIB
from tfedge.boards.runtimes import listed
from tfedge.boards.targets import Target

_WIDTH = 100
_SHOWN = 5
_WORDS = {"fails": "FAILS", "wrong": "WRONG ANSWERS", "slow": "slow", "note": "note"}


def text(of: Verdict, where: object, *, carded: bool = True) -> str:
    """Lay out a verdict: the target, a paragraph a finding, the memory, and the upshot.

    Args:
      carded: Whether the file has a card, without which `infer.py` refuses it.
    """
    lines = [f"{where} on {of.target.name}: {of.target.what}"]
    lines += [f"runtime  {listed(of.target.runtimes)}", ""]
    for finding in of.findings:
        lines += [*_finding(finding), ""]
    if of.mapping:
        lines += ["Edge TPU", textwrap.indent(edgetpu.describe(of.mapping), "  "), ""]
    room = f" of {of.target.memory_mib}" if of.target.memory_mib else ""
    lines.append(
        f"memory   about {of.process_bytes / MIB:.0f} MiB{room}, of which activations take"
        f" {of.arena_bytes / 1024:,.1f} kB (estimated)"
    )
    if of.ok:
        lines.append("verdict  it runs there and answers right, as far as is known")
        if not carded:
            lines[-1] += ", but infer.py refuses it: it has no card"
            lines.append(f"  do: tfedge attach {where} --from ORIGINAL.tflite")
    else:
        words = dict.fromkeys(_WORDS[one.severity].lower() for one in of.serious)
        lines.append(f"verdict  not fit for {of.target.name}: {', '.join(words)}")
    return "\n".join(lines)


def targets(all_of_them: Iterable[Target]) -> str:
    """List the targets, for a terminal."""
    known = list(all_of_them)
    width = max(len(target.name) for target in known)
    lines = []
    for target in known:
        lines.append(f"{target.name.ljust(width)}  {target.what}")
        facts = [listed(target.runtimes), f"Python {target.python}"]
        facts += [f"{target.memory_mib} MiB for a process"] if target.memory_mib else []
        lines.append(f"{' ' * width}  {'; '.join(facts)}")
    return "\n".join(lines)


def _finding(one: Finding) -> list[str]:
    on = f" on {listed(one.runtimes)}" if one.runtimes else ""
    paragraphs = [f"{_WORDS[one.severity]}{on}: {one.happens}"]
    if one.operators:
        more = len(one.operators) - _SHOWN
        places = ", ".join(one.operators[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        paragraphs.append(f"  at {places}")
    if one.remedy:
        paragraphs.append(f"  do: {one.remedy}")
    return [line for of in paragraphs for line in _wrapped(of)]


def _wrapped(paragraph: str) -> list[str]:
    indent = " " * (len(paragraph) - len(paragraph.lstrip()) + 2)
    return textwrap.wrap(
        paragraph, _WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
