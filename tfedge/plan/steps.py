"""A pipeline that was checked, and its stages each in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
      stages: In the order of the file, without those that are skipped.
      skipped: Of each stage that is left out, the one that others read in its place.
      search: The [search] table as the file has it: unchecked, and no part of a build.
    """

    name: str
    file: Path
    source: sources.Source
    seed: int
    stages: dict[str, Stage]
    targets: Targets | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
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
