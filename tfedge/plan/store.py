"""Folders of finished stages, found again by the hash of everything that made them."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import inspect
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tfedge import paths
from tfedge.errors import UserError
from tfedge.plan.claims import Claim, beside
from tfedge.plan.settings import input_names, plain

RECORD = "stage.json"
SCRATCH = "scratch"
LOCK = ".lock"
_TRIES, _PAUSE_S = 5, 0.1
OWN_STAGES = "tfedge.plan.stages"


def recipe_of(stage: Any, inputs: Mapping[str, str], data: Any, seed: int) -> dict[str, Any]:
    """List everything that decides what `stage` makes, as plain JSON values.

    Defaults are written out: a later tfedge that changes one re-runs the stages that relied on it.

    Args:
      inputs: For each Input setting, the key of the recipe that makes it.
      data: What stands for the data, as JSON.
    """
    # Which stage an input names is in `inputs` by its key: a stage may be renamed.
    settings = {
        name: value for name, value in plain(stage).items() if name not in input_names(type(stage))
    }
    return {
        "stage": type(stage).__qualname__,
        "code": _code_of(type(stage)),
        "settings": settings,
        "inputs": dict(inputs),
        "data": data,
        "seed": seed,
    }


def _code_of(kind: Any) -> str | int:
    """Return the version of one of tfedge's own stages; hash the file of a user's."""
    if kind.__module__.startswith(OWN_STAGES):
        return int(kind.version)
    return hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()


def key_of(recipe: Mapping[str, Any]) -> str:
    """Hash a recipe; 64 hex digits."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def changes(old: Any, new: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield the path, the old and the new value of each place where two recipes differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from changes(old.get(name), new.get(name), *path, name)
    elif old != new:
        yield path, old, new


def reasons(folder: Path, inputs: Mapping[str, str], recipe: Mapping[str, Any]) -> str:
    """Say how `recipe` differs from that of the newest finished folder of the same stage."""
    name = folder.name.rpartition("-")[0]
    records = list(folder.parent.glob(f"{name}-????????/{RECORD}"))
    if _partial(folder).is_dir() or beside(folder).numbers():
        return "not finished"
    if folder.is_dir():
        return damage(folder)
    records = [record for record in records if read_record(record.parent)]
    if not records:
        return "not built yet"
    newest = max(records, key=lambda record: record.stat().st_mtime)
    old = json.loads(newest.read_text("utf-8"))["recipe"]
    said = [_reason(path, before, now, inputs) for path, before, now in changes(old, recipe)]
    return ", ".join(dict.fromkeys(said))


def _reason(path: tuple[str, ...], old: Any, new: Any, inputs: Mapping[str, str]) -> str:
    match path:
        case ("inputs", setting):
            return f"{inputs.get(setting, setting)} changed"
        case ("settings", setting, "file"):
            return f"the file of {setting} changed"
        case ("settings" | "data", name, "ref"):
            return f"{name} {old} -> {new}"
        case ("settings", *names):
            return f"{names[0]} {_short(old)} -> {_short(new)}"
        case ("data", "fingerprint"):
            return "the data changed"
        case ("data", *names):
            return f"data's {names[0]} {_short(old)} -> {_short(new)}" if names else "data changed"
        case _:
            return f"{path[0]} changed"


def _short(value: Any) -> str:
    """Write a setting as a user knows it: of a ref its text, not its file's hash."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    if isinstance(value, dict) and "ref" in value:
        return str(value["ref"])
    return "unset" if value is None else json.dumps(value, ensure_ascii=False).strip('"')


@contextmanager
def finished(folder: Path, record: Mapping[str, Any], claim: Claim) -> Iterator[Path]:
    """Give a folder to fill; it gets its name and its record only if nothing raised.

    What an earlier try left is in it, so that a long training can go on from the backup in its
    scratch folder.  It bears the claim's number: whoever takes the claim over renames it first, and
    then what is still written by its old name goes astray, rather than into the new holder's work.
    A finished folder that already has the name is replaced.

    Raises:
      Lost: Another has the claim.
    """
    partial = _adopted(folder, claim.number)
    try:
        yield partial
    except BaseException:
        with suppress(OSError):  # one is there; the next try finds this by its number, too
            if not claim.is_lost():
                partial.rename(_partial(folder))
        raise
    shutil.rmtree(partial / SCRATCH, ignore_errors=True)
    files = {file.name: _seen(file) for file in partial.iterdir() if file.name != RECORD}
    content = {**record, "files": files}
    paths.replace(partial / RECORD, json.dumps(content, indent=2, sort_keys=True) + "\n")
    claim.check()
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    discard_partial(folder, claim)


def versions() -> dict[str, str]:
    """Return what a record says of the packages that made it."""
    names = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return a finished folder's record, or None if there is none or it is damaged."""
    try:
        return record_in((folder / RECORD).read_bytes())
    except OSError:
        return None


def record_in(content: bytes) -> dict[str, Any] | None:
    """Return the record that a file or an object of the shelf holds, or None if it is damaged."""
    try:
        record = json.loads(content)
    except ValueError:
        return None
    parts = ("recipe", "figures", "seconds", "versions", "files")
    whole = isinstance(record, dict) and all(part in record for part in parts)
    whole = whole and all(isinstance(seen, dict) for seen in record["files"].values())
    return record if whole else None


def damage(folder: Path) -> str:
    """Say what a folder lacks to count as finished; empty if nothing."""
    if not folder.is_dir():
        return "not built yet"
    record = read_record(folder)
    if record is None:
        return f"its {RECORD} is missing or damaged"
    for name, seen in record["files"].items():
        if not _is_whole(folder / name, seen):
            return f"its {name} is missing or damaged"
    return ""


def _seen(file: Path) -> dict[str, Any]:
    """Return what tells later whether a file has changed."""
    stat = file.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256(file)}


def _is_whole(file: Path, seen: Mapping[str, Any]) -> bool:
    """Whether a file is as it was; one whose time is another is read, such as a copy."""
    try:
        stat = file.stat()
    except OSError:
        return False
    if not file.is_file() or stat.st_size != seen["bytes"]:
        return False
    return bool(stat.st_mtime_ns == seen["mtime_ns"] or sha256(file) == seen["sha256"])


def sha256(file: Path) -> str:
    """Hash a file; 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def discard_partial(folder: Path, claim: Claim) -> None:
    """Forget what interrupted runs left for `folder`."""
    for number in range(claim.number + 1):
        shutil.rmtree(_partial(folder, number), ignore_errors=True)


def _partial(folder: Path, number: int = 0) -> Path:
    """Return the name of what a claim of that `number` makes; of 0, of what nobody makes now."""
    return folder.with_name(f"{folder.name}.partial{number or ''}")


def begun(folder: Path) -> Path | None:
    """Return the folder in which the stage of `folder` is being made; None if it is not."""
    numbers = beside(folder).numbers()
    partial = _partial(folder, numbers[-1]) if numbers else None
    return partial if partial and partial.is_dir() else None


def _adopted(folder: Path, number: int) -> Path:
    """Take over what the last of the earlier claims left, or begin anew."""
    mine = _partial(folder, number)
    for earlier in range(number - 1, -1, -1):
        with suppress(OSError):  # there is none
            _partial(folder, earlier).rename(mine)
            break
    mine.mkdir(parents=True, exist_ok=True)
    return mine


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other builds of the same pipeline out of `folder` until done, also after a crash."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as stream:
        for left in reversed(range(_TRIES)):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    fix = "wait for it to end, or give this one a --build-dir of its own"
                    raise UserError(folder, "another build is at work here", fix) from None
                time.sleep(_PAUSE_S)  # it may be one who asked `is_locked`
        yield


def is_locked(folder: Path) -> bool:
    """Whether a build is at work in `folder`."""
    try:
        with (folder / LOCK).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
