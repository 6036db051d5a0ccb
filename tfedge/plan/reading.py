"""Read a pipeline's file: every table checked, every mistake named, before anything runs."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
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
from tfedge.report.targets import Targets

RESERVED = ("data", "settings", "targets", "search")
"""Names of tables that are no stages."""

SKIP = "skip"


@dataclass(frozen=True)
class General:
    """The [settings] table: what holds for the whole pipeline."""

    seed: int = setting(0, "decides every random choice", low=0, high=2**31 - 1)
    name: str = setting("", "of the folder and the file that are built; the pipeline file's own")


@dataclass(frozen=True)
class Every:
    """What the table of any stage may hold besides the stage's own settings."""

    skip: bool = setting(
        default=False,
        help="leave the stage out: those that name it take what its own of names; settings of exits"
        " count for nothing where the stage that gives them is left out",
    )


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
    wanted = tables.pop("targets", None)
    search = tables.pop("search", None)
    if search and "use" in search:
        fix = "give a stage another name; [search] says what a search may set"
        raise UserError(f"{file.name} [search]", "is no stage", fix)
    found = _Stages(file)
    for name, table in tables.items():
        _check_name(name, f"{file.name} [{name}]")
        found.add(name, table)
    if not found.written:
        raise UserError(file, "has no stages", f"add a table with use = one of {', '.join(STAGES)}")
    kept_to = None if wanted is None else found.targets(wanted)
    return Pipeline(
        name=general.name or file.stem,
        file=file,
        source=source,
        seed=general.seed,
        stages=found.left,
        targets=kept_to,
        skipped=found.skipped,
        search=search,
    )


class _Stages:
    """The stages of a file, read one after another.

    Attributes:
      written: All of them, as the file has them.
      left: Those that are not skipped, with inputs that are not either.
      skipped: Of each that is, the one of `left` that stands in for it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.written: dict[str, Stage] = {}
        self.left: dict[str, Stage] = {}
        self.skipped: dict[str, str] = {}

    def add(self, name: str, table: Mapping[str, Any]) -> None:
        """Read a stage, and check it against those above."""
        where = f"{self.file.name} [{name}]"
        own = {key: value for key, value in table.items() if key != SKIP}
        stage = _stage(own, where, self.file.parent)
        every = {SKIP: table[SKIP]} if SKIP in table else {}
        skip = settings.read(Every, every, where, self.file.parent).skip
        if every:
            _check_free(stage, where)
        if skip:
            if hasattr(stage, "check"):
                stage.check(where)
            kinds.check_named(stage, where, self.written)
            self.skipped[name] = self._instead(stage, where)
        else:
            self.left[name] = self._checked(stage, where)
        self.written[name] = stage

    def targets(self, table: Mapping[str, Any]) -> Targets:
        """Read the [targets] table."""
        stage = table.get("stage")
        if isinstance(stage, str) and stage in self.skipped:
            table = {**table, "stage": self.skipped[stage]}
        return targets.read(table, f"{self.file.name} [targets]", self.left)

    def _instead(self, stage: Stage, where: str) -> str:
        """Return what others read in the place of a stage that is skipped."""
        source = settings.inputs_of(stage).get("of")
        if not source:
            fix = "skip one that has `of`, or take its table and those that name it out"
            raise UserError(f"{where} {SKIP}", "without `of` nothing can take its place", fix)
        return self.skipped.get(source, source)

    def _checked(self, stage: Stage, where: str) -> Stage:
        """Return a stage that reads none that is skipped, and fits those that it reads."""
        sources_ = settings.inputs_of(stage)
        gone = {name: self.skipped[name] for name in sources_.values() if name in self.skipped}
        stage = settings.with_inputs(stage, gone)
        kinds.check_named(stage, where, self.left)
        if self._lost_exits(sources_.get("of", "")) and hasattr(stage, "without_exits"):
            stage = stage.without_exits()
        try:
            if hasattr(stage, "check"):
                stage.check(where)
            kinds.check_inputs(stage, where, self.left)
        except UserError as error:
            if not gone:
                raise
            place, problem, fix = error.parts
            said = ", ".join(f"{name!r} is skipped, {it!r} stands in" for name, it in gone.items())
            raise type(error)(place, f"{problem} ({said})", fix) from None
        return stage

    def _lost_exits(self, source: str) -> bool:
        """Whether a stage has exits as it is written, and none without those that are skipped."""
        now = self.skipped.get(source, source)
        had = bool(source) and kinds.exits_of(source, self.written) != 1
        return had and kinds.exits_of(now, self.left) == 1


def _tables(file: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(file, getattr(error, "strerror", None) or str(error)) from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            fix = f"every setting stands in a table: [{'], ['.join(RESERVED)}] or a stage's"
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


def _stage(table: Mapping[str, Any], where: str, folder: Path) -> Stage:
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
    return cast("Stage", settings.read(cast("type[Any]", kind), table, where, folder))


def _check_free(stage: Any, where: str) -> None:
    """Refuse a setting or argument of the user's own that `skip` would be taken for."""
    own = [type(stage).__qualname__] if hasattr(stage, SKIP) else []
    own += [ref.text for ref in settings.refs_of(stage) if SKIP in (ref.parameters(0) or {})]
    if own:
        problem = f"{own[0]} has {SKIP!r} as well, which is a setting of every stage"
        raise UserError(where, problem, "give it another name there: it could not be set")
