"""What a build puts beside its folders, where a user looks for it.

What an earlier build of other settings has put there goes: it would be taken for this one's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfedge import paths
from tfedge.plan.job import COMPILED, EXAMPLES, LOST, TFLITE
from tfedge.report import ladder, leaving, page

PAGE = "report.html"
_WITHOUT = "A page with pictures is made where {} can be imported: {}"


def publish(folders: Sequence[Path], target: Path, report: Mapping[str, Any]) -> None:
    """Copy the last .tflite, what was made for an Edge TPU, and the report with its pictures.

    Args:
      folders: Of the stages that make a .tflite, in their order.
      target: Where the .tflite goes; the others go beside it.
    """
    _put(_those(folders, TFLITE), target)
    _put(_those(folders, COMPILED), target.with_name(COMPILED.replace("model", target.stem)))
    _put_stages(folders, target)
    tell(folders, target.parent, report)


def tell(
    folders: Sequence[Path], place: Path, report: Mapping[str, Any], *, anew: bool = False
) -> None:
    """Write the report into a folder: report.json, report.md, report.html and their pictures.

    Args:
      folders: As `publish` takes them.
      anew: Draw the page even if it is there and nothing has changed.
    """
    _put(_those(folders, EXAMPLES), place / EXAMPLES)
    if leaving.of(report) and leaving.can_plot():
        paths.replace(place / leaving.CURVE, leaving.plot(report))
    else:
        (place / leaving.CURVE).unlink(missing_ok=True)
    pictures = [name for name in (leaving.CURVE, EXAMPLES) if (place / name).is_file()]
    told, file = json.dumps(report, indent=1, ensure_ascii=False) + "\n", place / "report.json"
    same = not anew and file.is_file() and file.read_bytes() == told.encode()
    text = ladder.markdown(report, pictures)
    if (lacking := page.missing()) or not report["stages"]:
        (place / PAGE).unlink(missing_ok=True)
        text += f"\n{_WITHOUT.format(' and '.join(lacking), page.INSTALL)}\n" if lacking else ""
    elif not (same and (place / PAGE).is_file()):
        paths.replace(place / PAGE, page.html(report, _pictures(folders)))
    paths.replace(place / "report.md", text)
    paths.replace(file, told)  # the last: where it is, the others are of the same report


def _pictures(folders: Sequence[Path]) -> page.Pictures:
    lost, left = _those(folders, LOST), _those(folders, EXAMPLES)
    pictures: Sequence[Any] = ()
    if lost:
        with np.load(lost[-1]) as file:
            pictures = list(file["pictures"])
    return page.Pictures(pictures, left[-1].read_bytes() if left else b"")


def _those(folders: Sequence[Path], name: str) -> list[Path]:
    return [folder / name for folder in folders if (folder / name).is_file()]


def _put(files: Sequence[Path], target: Path) -> None:
    """Copy the last of `files` to `target`, and let there be none if there are none."""
    if files:
        paths.replace(target, files[-1].read_bytes())
    else:
        target.unlink(missing_ok=True)


def _put_stages(folders: Sequence[Path], target: Path) -> None:
    """Copy the files of stages that the last of `folders` with any has."""
    pattern = f"{target.stem}_exit_*.tflite"
    for file in target.parent.glob(pattern):
        file.unlink()
    found = [files for folder in folders if (files := sorted(folder.glob(pattern)))]
    for file in found[-1] if found else ():
        paths.replace(target.with_name(file.name), file.read_bytes())
