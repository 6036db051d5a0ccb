"""A pipeline that was checked, and its stages each in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfedge.plan import sources, store
from tfedge.plan.job import Stage
from tfedge.report.targets import Targets

FRESH = "--fresh"
"""Why a step runs that is finished already."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file, checked: its refs exist, and its settings have their types and ranges.

    Attributes:
      search: The [search] table as it is written; None without one.
    """

    name: str
    file: Path
    source: sources.Source
    seed: int
    stages: dict[str, Stage]
    targets: Targets | None = None
    search: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Step:
    """A stage in its place.

    Attributes:
      folder: ``build/<pipeline>/<name>-<first 8 digits of the recipe's key>``.
      inputs: The stage that each Input setting names.
      recipe: Everything that decides what the stage makes.
      why: The reason to run it; empty if `folder` is finished.
    """

    name: str
    stage: Stage
    folder: Path
    inputs: dict[str, str]
    recipe: dict[str, Any]
    why: str

    @property
    def key(self) -> str:
        """The recipe's hash, 64 hex digits."""
        return store.key_of(self.recipe)
