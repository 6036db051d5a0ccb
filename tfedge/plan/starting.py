"""A first pipeline for a folder of somebody's photos."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tfedge import paths
from tfedge.errors import UserError

RUNNER = "infer.py"


def _name(folder: Path) -> str:
    """Name a pipeline after its folder: two of them may be built side by side."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", folder.resolve().name).strip("_") or "photos"


def start(folder: Path, photos: str) -> Iterator[str]:
    """Write a pipeline, a README and the board's script into `folder`; yield what to tell the user.

    Args:
      photos: Where the photos are or will be; from `folder`, if relative.
    """
    made = {"pipeline.toml": "photos.toml", "README.md": "photos.md"}
    for name in (*made, RUNNER):
        if (folder / name).exists():
            raise UserError(folder / name, "is already there", "choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, template in made.items():
        text = (paths.bundled() / "pipelines" / "templates" / template).read_text("utf-8")
        text = text.replace("@NAME@", _name(folder))
        if name.endswith(".toml"):
            text = text.replace('"@PHOTOS@"', json.dumps(photos))
        paths.replace(folder / name, text.replace("@PHOTOS@", photos))
        yield f"wrote {folder / name}"
    paths.replace(folder / RUNNER, (paths.bundled() / "device" / RUNNER).read_text("utf-8"))
    yield f"wrote {folder / RUNNER}"
    place = folder / Path(photos).expanduser()
    if not place.exists():
        place.mkdir(parents=True)
        yield f"made  {place}"
    classes = sorted(path.name for path in place.iterdir() if path.is_dir())
    if classes:
        yield f"found {len(classes)} folders in {place}: {', '.join(classes[:10])}"
    else:
        yield f"next: put photos into {place}/<class>/, a folder for each class"
    yield f"then: tfedge build {folder / 'pipeline.toml'}"
