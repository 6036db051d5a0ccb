"""Turn a table of a pipeline file into a frozen dataclass, or say exactly what is wrong with it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType, TypeVar, get_args, get_origin, get_type_hints

from tfedge.declarations import INPUTS
from tfedge.declarations import Converted as Converted
from tfedge.declarations import Free as Free
from tfedge.declarations import Input as Input
from tfedge.declarations import Network as Network
from tfedge.declarations import Plain as Plain
from tfedge.declarations import Single as Single
from tfedge.errors import UserError, did_you_mean
from tfedge.plan.refs import REQUIRED, Ref

File = NewType("File", Path)
"""A file or folder of the user's that a stage reads; its contents are part of the stage's key."""

Options = NewType("Options", dict[str, Any])
"""Settings that the stage hands on to the function which its only `Ref` names."""

Names = NewType("Names", tuple[Any, ...])
"""Words of `choices`, or refs to functions of the user's own."""

T = TypeVar("T")


@dataclass(frozen=True)
class Field:
    """One setting: what a table may hold under `name`.

    Attributes:
      kind: Its type; for one of a group's, the type in the group.
      group: The field of the stage that holds the group; empty for a setting of the stage itself.
      default: `dataclasses.MISSING` where the table must give it.
    """

    name: str
    kind: Any
    group: str
    default: Any
    metadata: Mapping[str, Any]


def fields_of(kind: type) -> Iterator[Field]:
    """Yield the settings of a stage, those of its groups in the place where the group stands.

    A group is a field whose type is itself a dataclass: what several stages have in common.  The
    user writes a group's settings into the stage's own table.  The stage's default for the group
    gives the defaults of its settings.  A group may have a `check`, as a stage may.
    """
    types = _types(kind)
    for field in dataclasses.fields(kind):
        if types[field.name] is Options or field.metadata.get("hidden"):
            continue
        if _is_group(types[field.name]):
            for inner in fields_of(types[field.name]):
                default = getattr(field.default, inner.name)
                yield dataclasses.replace(inner, group=field.name, default=default)
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield Field(field.name, types[field.name], "", default, field.metadata)


def read(kind: type[T], table: Mapping[str, Any], where: str, folder: Path) -> T:
    """Build a `kind` from `table`; every mistake is a UserError that names the key.

    Args:
      where: The file and the table, for messages.
      folder: Where relative refs start.
    """
    fields = {field.name: field for field in fields_of(kind)}
    own = {key: value for key, value in table.items() if key in fields}
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and key not in own:
            raise UserError(where, f"{key!r} is missing", field.metadata.get("help", ""))
    checked = {
        key: _checked(fields[key], value, f"{where} {key}", folder) for key, value in own.items()
    }
    values = {key: value for key, value in checked.items() if not fields[key].group}
    groups = _groups(kind, fields, checked)
    rest = {key: value for key, value in table.items() if key not in fields}
    for name, inner in _types(kind).items():
        if inner is Options:
            values[name] = _options(rest, values, fields, where)
            rest = {}
    for key in rest:
        raise UserError(where, f"unknown setting {key!r}", did_you_mean(key, fields))
    for group in groups.values():
        if hasattr(group, "check"):
            group.check(where)
    return kind(**values, **groups)


def _groups(kind: type, fields: Mapping[str, Field], checked: Mapping[str, Any]) -> dict[str, Any]:
    """Build each of the stage's groups from its default and what the table gives."""
    defaults: dict[str, Any] = {member.name: member.default for member in dataclasses.fields(kind)}
    return {
        name: dataclasses.replace(
            defaults[name],
            **{key: value for key, value in checked.items() if fields[key].group == name},
        )
        for name, inner in _types(kind).items()
        if _is_group(inner)
    }


def plain(stage: Any) -> dict[str, Any]:
    """List what decides what a stage makes as JSON values: its settings, defaults included.

    Refs come with their file's hash; settings that decide nothing are left out.
    """
    values: dict[str, Any] = {}
    types = _types(type(stage))
    for field in dataclasses.fields(stage):
        value = getattr(stage, field.name)
        if not field.metadata.get("decides", True):
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, Ref):
            values |= plain(value)
        elif types[field.name] is Options:
            values |= value
        elif types[field.name] is File and value is not None:
            values[field.name] = {"ref": value.name, "file": _content(value)}
        else:
            values[field.name] = _plain_value(value)
    return values


def inputs_of(stage: object) -> dict[str, str]:
    """Map each of the stage's Input settings that is given to the stage that it names."""
    given = {field.name: _value(stage, field) for field in _inputs(type(stage))}
    return {key: given[key] for key in sorted(given) if given[key]}


def with_inputs(stage: T, instead: Mapping[str, str]) -> T:
    """Return a stage that reads other stages where it names one of `instead`."""
    if not instead:
        return stage
    given: Any = stage
    changed: dict[str, Any] = {}
    for field in _inputs(type(stage)):
        new = instead.get(_value(given, field))
        if new is not None and field.group:
            group = changed.get(field.group, getattr(given, field.group))
            changed[field.group] = dataclasses.replace(group, **{field.name: new})
        elif new is not None:
            changed[field.name] = new
    made: T = dataclasses.replace(given, **changed)
    return made


def refs_of(stage: Any) -> list[Ref]:
    """List the functions that a stage's settings name."""
    values = [getattr(stage, field.name) for field in dataclasses.fields(stage)]
    return [value for value in values if isinstance(value, Ref)]


def input_names(kind: type) -> set[str]:
    """Name the settings that hold an earlier stage's name."""
    return {field.name for field in _inputs(kind)}


def wanted(stage: object) -> dict[str, tuple[str, ...]]:
    """Map each given Input setting to what its stage may have made, where that matters."""
    types = {field.name: field.kind for field in _inputs(type(stage))}
    made: dict[Any, tuple[str, ...]] = {
        Network: ("network", "clustered network", "8-bit network"),
        Plain: ("network", "clustered network"),
        Free: ("network",),
        Single: ("network",),
        Converted: ("tflite",),
    }
    return {key: made[types[key]] for key in inputs_of(stage) if types[key] in made}


def single(stage: object) -> list[str]:
    """Name the given Input settings whose network must have no early exits."""
    given = inputs_of(stage)
    return [
        field.name for field in _inputs(type(stage)) if field.kind is Single and field.name in given
    ]


def _inputs(kind: type) -> list[Field]:
    return [field for field in fields_of(kind) if field.kind in INPUTS]


def _value(stage: object, field: Field) -> Any:
    """Return a setting's value, which may be in a group."""
    return getattr(getattr(stage, field.group) if field.group else stage, field.name)


def _types(kind: type) -> dict[str, Any]:
    """Map a stage's settings to their types; of one that may be absent, that which it has else."""
    found = get_type_hints(kind)
    for name, type_ in found.items():
        if type(None) in get_args(type_):
            found[name] = next(item for item in get_args(type_) if item is not type(None))
    return found


def _is_group(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) and kind is not Ref


def _plain_value(value: Any) -> Any:
    if isinstance(value, Ref):
        return {"ref": value.text, "file": value.fingerprint()}
    if isinstance(value, tuple):
        return [_plain_value(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _content(place: Path) -> str:
    """Hash a file, or the names and contents of all in a folder."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    digest = hashlib.sha256()
    for file in (file for file in files if file.is_file()):
        digest.update(f"{file.relative_to(place)}\0".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _checked(field: Field, value: Any, where: str, folder: Path) -> Any:
    value = _convert(field.kind, value, where, folder, field.metadata.get("choices", ()))
    if field.kind in INPUTS and not value:
        raise UserError(where, "expected a stage's name, got ''")
    choices = field.metadata.get("choices", ())
    if choices and isinstance(value, str) and value not in choices:
        raise UserError(
            where,
            f"must be one of {', '.join(choices)}, got {value!r}",
            did_you_mean(value, choices),
        )
    low, high = (field.metadata.get(end) for end in ("low", "high"))
    numbers = value.values() if isinstance(value, dict) else value
    for number in numbers if isinstance(value, (tuple, dict)) else (value,):
        if isinstance(number, str) or not isinstance(number, (int, float)):
            continue
        too_small = low is not None and not number >= low  # so that nan is refused
        if too_small or (high is not None and not number <= high) or not math.isfinite(number):
            raise UserError(where, f"must be from {low} to {high}, got {number}")
    return value


def _convert(kind: Any, value: Any, where: str, folder: Path, choices: tuple[str, ...]) -> Any:
    if kind is Names:
        items = _convert(tuple[str, ...], value, where, folder, ())
        return tuple(_named(item, where, folder, choices) for item in items)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        items = _listed(kind, value, where)
        return tuple(_convert(inner, item, where, folder, ()) for item in items)
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise UserError(where, f"expected a table, got {value!r}", 'write { "name" = value }')
        inner = get_args(kind)[1]
        return {key: _convert(inner, item, where, folder, ()) for key, item in value.items()}
    plain_kind = str if kind in (*INPUTS, Ref, Path, File) else kind
    if plain_kind is float and type(value) is int:
        value = float(value)
    if type(value) is not plain_kind:  # not isinstance: True must not pass for the integer 1
        raise UserError(where, f"expected {_word(kind)}, got {value!r}")
    if kind in (Path, File):
        return _place(kind, folder / Path(value).expanduser(), where)
    return Ref.parse(value, folder, where) if kind is Ref else value


def _place(kind: Any, place: Path, where: str) -> Path:
    if kind is File and not place.exists():
        raise UserError(where, f"no such file or folder: {place}")
    return place


def _listed(kind: Any, value: Any, where: str) -> Sequence[Any]:
    """Refuse what is no list, or of another length than a fixed tuple has."""
    inner, *rest = get_args(kind)
    if not isinstance(value, (list, tuple)):
        raise UserError(where, f"expected a list of {_word(inner)}, got {value!r}")
    if rest != [...] and len(value) != 1 + len(rest):
        raise UserError(where, f"expected {1 + len(rest)} of {_word(inner)}, got {value!r}")
    return value


def _named(word: str, where: str, folder: Path, choices: tuple[str, ...]) -> str | Ref:
    if ":" in word:
        return Ref.parse(word, folder, where)
    if word not in choices:
        raise UserError(where, f"unknown name {word!r}", did_you_mean(word, choices))
    return word


def _word(kind: Any) -> str:
    if kind in INPUTS:
        return "a stage's name"
    words: dict[Any, str] = {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        Ref: "path.py:name",
        Path: "a path",
        File: "a path",
    }
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def _options(
    table: Mapping[str, Any], values: Mapping[str, Any], fields: Mapping[str, Field], where: str
) -> dict[str, Any]:
    """Check the settings that go on to a function against its signature, read from its source."""
    (ref,) = [value for value in values.values() if isinstance(value, Ref)]
    skip = fields[next(key for key, value in values.items() if value is ref)].metadata
    parameters = ref.parameters(skip.get("given", 0))
    if parameters is None:
        return dict(table)
    if shared := sorted(set(parameters) & set(fields)):
        problem = f"{ref.text} has an argument {shared[0]!r}, which is a setting of the stage, too"
        raise UserError(where, problem, "give the argument another name: it could not be set")
    for key, value in table.items():
        if key not in parameters:
            known = [*fields, *parameters]
            problem = f"unknown setting {key!r}, and {ref.text} takes no such argument"
            raise UserError(where, problem, did_you_mean(key, known))
        _check_like(parameters[key], value, f"{where} {key}")
    for key, default in parameters.items():
        if default is REQUIRED and key not in table:
            raise UserError(where, f"{key!r} is missing", f"{ref.text} needs it")
    defaults = {key: value for key, value in parameters.items() if value not in (REQUIRED, None)}
    return {**defaults, **table}


def _check_like(default: Any, value: Any, where: str) -> None:
    """Refuse a value of another type than the parameter's default has."""
    if default is REQUIRED or default is None:
        return
    allowed: tuple[type, ...] = (type(default),)
    if isinstance(default, (list, tuple)):
        allowed = (list, tuple)
    if type(default) is float:
        allowed = (int, float)
    if type(value) not in allowed:
        raise UserError(where, f"expected {_word(type(default))}, got {value!r}")
