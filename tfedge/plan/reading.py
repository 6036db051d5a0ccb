"""Read a pipeline's file: every table checked, every mistake named, before anything runs."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tfedge.declarations import setting
from tfedge.errors import UserError, did_you_mean
from tfedge.plan import kinds, settings, sources, targets
from tfedge.plan.job import Stage
from tfedge.plan.refs import Ref
from tfedge.plan.stages import STAGES
from tfedge.plan.steps import Pipeline

RESERVED = ("data", "settings", "targets", "search")


@dataclass(frozen=True)
class General:
    """The [settings] table: what holds for the whole pipeline."""

    seed: int = setting(0, "decides every random choice", low=0, high=2**31 - 1)
    name: str = setting("", "of the folder and the file that are built; the pipeline file's own")


def load(file: Path, changes: Sequence[str] = ()) -> Pipeline:
    """Read `file`; every mistake in it is a UserError that names the table and the key.

    Args:
      changes: Settings that take the place of the file's, as ``stage.setting=value``.
    """
    tables = _tables(file)
    for change in changes:
        _change(tables, change)
    where = f"{file.name} [settings]"
    general: General = settings.read(General, tables.pop("settings", {}), where, file.parent)
    if general.name:
        _check_name(general.name, f"{where} name")
    if "data" not in tables:
        raise UserError(file, "has no [data] table", 'write [data] with use = "folder"')
    source = sources.read(tables.pop("data"), f"{file.name} [data]", file.parent)
    wanted, searched = tables.pop("targets", None), tables.pop("search", None)
    stages: dict[str, Stage] = {}
    for name, table in tables.items():
        _check_name(name, f"{file.name} [{name}]")
        stages[name] = _stage(table, f"{file.name} [{name}]", file.parent, above=stages)
    if not stages:
        raise UserError(file, "has no stages", f"add a table with use = one of {', '.join(STAGES)}")
    kept_to = None if wanted is None else targets.read(wanted, f"{file.name} [targets]", stages)
    return Pipeline(
        general.name or file.stem, file, source, general.seed, stages, kept_to, searched
    )


def _tables(file: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(file, getattr(error, "strerror", None) or str(error)) from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            fix = "every setting stands in a table: [data], [settings], [targets] or a stage's"
            raise UserError(file, f"unknown setting {name!r}", fix)
    return tables


def _change(tables: dict[str, Any], change: str) -> None:
    """Apply one --set."""
    place, sign, text = change.partition("=")
    table, dot, key = place.strip().partition(".")
    if not (sign and dot and key):
        raise UserError("--set", f"cannot read {change!r}", "write --set stage.setting=value")
    if table not in tables and table not in RESERVED:
        known = sorted({*tables, *RESERVED})
        raise UserError("--set", f"there is no [{table}]", did_you_mean(table, known))
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is text
    tables.setdefault(table, {})[key] = value


def _check_name(name: str, where: str) -> None:
    if not name.replace("_", "").replace("-", "").isalnum():
        fix = "write letters, digits, - and _, because a folder gets this name"
        raise UserError(where, f"{name!r} is no name for a folder", fix)


def _stage(table: dict[str, Any], where: str, folder: Path, above: dict[str, Stage]) -> Stage:
    table = dict(table)
    use = table.pop("use", None)
    if isinstance(use, str) and ":" in use:
        kind: Any = Ref.parse(use, folder, where).load()
    elif isinstance(use, str) and use in STAGES:
        kind = STAGES[use]
    elif use is None:
        raise UserError(where, "'use' is missing", did_you_mean("", STAGES))
    else:
        raise UserError(where, f"unknown stage {use!r}", did_you_mean(str(use), STAGES))
    is_class = isinstance(kind, type) and dataclasses.is_dataclass(kind)
    if not is_class or not callable(getattr(kind, "run", None)):
        fix = "write a frozen dataclass with run(self, job)"
        raise UserError(where, f"{use!r} is no stage", fix)
    stage: Stage = settings.read(cast("type[Any]", kind), table, where, folder)
    if hasattr(stage, "check"):
        stage.check(where)
    kinds.check_inputs(stage, where, above)
    return stage
