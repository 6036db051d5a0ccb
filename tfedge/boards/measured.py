"""What boards have measured of a build's result, kept in the build folder for its report."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from tfedge import paths

FOLDER = "boards"


def save(figures: dict[str, Any], model: Path, build: Path) -> Path:
    """Write what a board measured of `model` into a build folder, and return the file.

    Args:
      figures: ``host``, the board's `Board.name`, and what `infer.py --bench` found.
    """
    folder = build / FOLDER
    folder.mkdir(exist_ok=True)
    # Not every file system takes the colons of a port and of IPv6.
    name = re.sub(r"[^\w@.-]", "+", figures["host"])
    file = folder / f"{name}.json"
    kept = {"model_sha256": fingerprint(model), **figures}
    paths.replace(file, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return file


def figures(build: Path) -> list[dict[str, Any]]:
    """Return the boards' figures, each with the `model` that it is of, by the host's name.

    Left out is what was measured of a file that is not in the build folder any more, or that is no
    JSON of ours.
    """
    files = sorted((build / FOLDER).glob("*.json"))
    models = sorted(build.glob("*.tflite")) if files else []
    known = {fingerprint(model): model.name for model in models}
    found = []
    for file in files:
        try:
            one = json.loads(file.read_text("utf-8"))
        except ValueError:
            continue
        if isinstance(one, dict) and "host" in one and one.get("model_sha256") in known:
            found.append({**one, "model": known[one["model_sha256"]]})
    return found


def holds(build: Path, model: Path) -> bool:
    """Whether a build folder has `model`, as it is or with another card."""
    wanted = fingerprint(model)
    return any(fingerprint(made) == wanted for made in build.glob("*.tflite"))


def fingerprint(model: Path) -> str:
    """Return the sha256 of the flatbuffer; a card may change without another answer."""
    from tfedge.tflite.container import split  # not before a plan is told: it imports numpy

    return hashlib.sha256(split(model.read_bytes())[0]).hexdigest()
