"""Putting a model on a board so that what ran there goes on until the new one has shown itself.

In the board's folder lie `versions/NAME` (the runner's files and `model.tflite`; the name is of
their contents), `current`, a link to the one in use, and `previous`, to the one before.  A version
is copied beside them, examined and tested there, and only then is the link replaced, by a rename: a
reader finds the old one or the new one, and a broken connection leaves the old.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfedge import paths
from tfedge.boards import measured, scripts, service
from tfedge.boards.ssh import Answer, Board
from tfedge.errors import CheckError, UserError
from tfedge.progress import Progress
from tfedge.tflite import card

TEST_S, BENCH_S = 600.0, 3600.0
"""How long a board may take; a first start from a slow card is minutes."""

_AS_JSON = ("--format", "json")


@dataclass(frozen=True)
class Wishes:
    """What is done besides copying and testing.

    Attributes:
      python: The board's Python; empty for the folder's own venv, or else python3.
      service: Leave it running, started with the board.
      bench: Inferences to time there; 0 for none.
      build: The build folder that keeps what they took; None for the model's own.
    """

    python: str = ""
    service: bool = False
    bench: int = 0
    build: Path | None = None


@dataclass(frozen=True)
class _Found:
    """What is on a board before a deploy.

    Attributes:
      board: Its folder is absolute.
      python: The board's, absolute.
      old: The version in use, ``versions/NAME``, or nothing.
      there: It is the very one that is to be deployed, and whole.
    """

    board: Board
    python: str
    old: str
    there: bool


def deploy(
    model: Path, board: Board, wishes: Wishes, progress: Progress, *, device: Path | None = None
) -> str:
    """Put a model and the runner on a board, test them there, and only then use them.

    Args:
      model: A .tflite with its card.
      device: The folder of the runner's files; None for tfedge's own.

    Returns:
      The version's name.

    Raises:
      UserError: The model has no card; or the board cannot be reached, has no Python or no room.
      CheckError: The board's doctor found something, or the model failed its test there.
    """
    card.read(_content(model), model)
    files = sorted((device or paths.bundled() / "device").glob("*.py"))
    with tempfile.TemporaryDirectory(prefix="tfedge-deploy-") as folder, board.sharing() as shared:
        staged = [Path(shutil.copy(file, folder)) for file in files]
        staged.append(Path(shutil.copy(model, Path(folder) / scripts.MODEL)))
        name = _name(staged)
        found = _prepared(shared, wishes, name, sum(file.stat().st_size for file in staged))
        if wishes.service:
            service.refuse_odd(found.board.folder, found.python)
        with _unchanged(found.old):
            _tried(found, name, staged, progress)
        if not found.there:
            _expect(found.board.run(scripts.SWITCH, found.board.folder, found.python, name), board)
            was = f", was {_short(found.old)}" if found.old else ""
            progress.say(f"in use       version {name}{was}")
        if wishes.service:
            progress.say(f"service      {service.install(found.board, found.python, device)}")
        else:
            _reloaded(found.board, progress)
        if wishes.bench:
            figures = bench(found.board, found.python, wishes.bench)
            file = measured.save(figures, model, wishes.build or model.parent)
            progress.say(f"benchmark    {file}")
    return name


def _tried(found: _Found, name: str, staged: list[Path], progress: Progress) -> None:
    """Copy a version, unless it is there, and have the doctor and its own test look at it."""
    board, version = found.board, found.old if found.there else f"versions/.new-{name}"
    folder = f"{board.folder}/{version}"
    if found.there:
        progress.say(f"in use       version {name} already, and whole; not copied again")
    else:
        board.copy(staged, folder)
        progress.say(f"copied       {len(staged)} files to {board.at}:{board.folder}")
    if any(file.name == "doctor.py" for file in staged):
        _examined(board, folder, found.python, progress)
    _tested(board, folder, found.python, progress)


def rollback(board: Board, wishes: Wishes, progress: Progress) -> str:
    """Go back to the version before, which is tested again first; once more goes forward again.

    Returns:
      The version's name.

    Raises:
      UserError: There is none, or the board cannot be reached.
      CheckError: It failed its test there.
    """
    with board.sharing() as shared:
        return _rolled_back(shared, wishes, progress)


def _rolled_back(board: Board, wishes: Wishes, progress: Progress) -> str:
    answer = board.run(scripts.PREVIOUS, board.folder, wishes.python)
    if answer.status == scripts.NO_PREVIOUS:
        fix = "only a second deploy leaves one behind"
        raise UserError(board.at, f"there is no version before in {board.folder}", fix)
    if answer.status == scripts.NO_FOLDER:
        raise UserError(board.at, f"there is no {board.folder}", "deploy to it first")
    _expect(answer, board)
    told = answer.told
    board = replace(board, folder=told["folder"])
    with _unchanged(told["current"]):
        _tested(board, f"{board.folder}/previous", told["python"], progress)
    _expect(board.run(scripts.SWAP, board.folder, told["python"]), board)
    name = _short(told["previous"])
    progress.say(f"in use       version {name}, was {_short(told['current'])}")
    _reloaded(board, progress)
    return name


def bench(board: Board, python: str, runs: int) -> dict[str, Any]:
    """Return what `infer.py --bench` measures on the board with the version in use."""
    current = f"{board.folder}/current"
    asked = ("--bench", str(runs), *_AS_JSON)
    answer = board.run(scripts.INFER, current, python, scripts.MODEL, *asked, limit_s=BENCH_S)
    figures = _json(answer)
    if answer.status or figures is None:
        raise CheckError(board.at, f"the benchmark failed: {answer.last}", "the version is in use")
    return {"host": board.name, **figures}


def _content(model: Path) -> bytes:
    fix = "give the .tflite that tfedge build made"
    try:
        content = model.read_bytes()
    except OSError as error:
        raise UserError(model, error.strerror or str(error), fix) from None
    if content[4:8] != b"TFL3":
        raise UserError(model, "is no .tflite file", fix)
    return content


def _name(files: list[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:8]


def _prepared(board: Board, wishes: Wishes, name: str, size: int) -> _Found:
    needed = 2 * size // 1024 + 1024
    answer = board.run(scripts.PREPARE, board.folder, name, str(needed), wishes.python)
    told = answer.told
    python = wishes.python or "python3"
    troubles = {
        scripts.NO_FOLDER: (
            f"cannot write to {board.folder}: {answer.last}",
            "take a folder of your own, such as one below the home folder",
        ),
        scripts.NO_PYTHON: (
            f"there is no {python} there",
            "name another one with --python"
            if wishes.python
            else "install it: sudo apt install python3",
        ),
        scripts.BROKEN_PYTHON: (
            f"its {python} is no Python that runs",
            "name another one with --python",
        ),
        scripts.FOREIGN: (
            f"in {board.folder}, current or previous is no link of tfedge's",
            "move it away, or take another folder",
        ),
        scripts.OLD_PYTHON: (f"its {python} is older than 3.7", "name another one with --python"),
        scripts.NO_ROOM: (
            f"no room: {int(told.get('free') or 0):,} kB free, {needed:,} needed",
            "delete what is not needed there",
        ),
    }
    if answer.status in troubles:
        raise UserError(board.at, *troubles[answer.status])
    _expect(answer, board)
    board = replace(board, folder=told["folder"])
    return _Found(board, told["python"], told["current"], "there" in told)


def _examined(board: Board, folder: str, python: str, progress: Progress) -> None:
    failed, facts = _asked(board, folder, python, "--doctor")
    if failed:
        install = facts.get("install") or f"{python} {folder}/infer.py --doctor"
        raise CheckError(board.at, f"its doctor says: {failed}", f"there: {install}")
    progress.say(f"doctor       nothing is wrong{_of(facts, 'runtime')}")


def _tested(board: Board, folder: str, python: str, progress: Progress) -> None:
    failed, facts = _asked(board, folder, python, "--selftest")
    if failed:
        raise CheckError(board.at, f"the model failed its test there: {failed}")
    progress.say(f"selftest     passed{_of(facts, 'runtime')}")


def _asked(board: Board, folder: str, python: str, question: str) -> tuple[str, dict[str, Any]]:
    """Return what infer.py found wrong, empty for nothing, and what else it said."""
    asked = (scripts.MODEL, question, *_AS_JSON)
    answer = board.run(scripts.INFER, folder, python, *asked, limit_s=TEST_S)
    facts = _json(answer) or {}
    findings = "; ".join(facts.get("findings", ())) or answer.last
    return (findings if answer.status else ""), facts


def _of(facts: dict[str, Any], key: str) -> str:
    return f", {facts[key]}" if facts.get(key) else ""


def _reloaded(board: Board, progress: Progress) -> None:
    told = service.reload(board)
    if told:
        progress.say(f"service      {told}")


@contextmanager
def _unchanged(old: str) -> Iterator[None]:
    """Say of what goes wrong in here that the version in use is still the old one."""
    kept = f"version {_short(old)} goes on there" if old else "nothing is in use there yet"
    try:
        yield
    except UserError as error:
        where, problem, fix = error.parts
        raise type(error)(where, problem, f"{fix}\n  {kept}" if fix else kept) from error


def _short(version: str) -> str:
    return version.rpartition("/")[2]


def _expect(answer: Answer, board: Board) -> None:
    if answer.status:
        raise UserError(board.at, f"a command failed there: {answer.last}")


def _json(answer: Answer) -> dict[str, Any] | None:
    for line in reversed(answer.out.splitlines()):
        if line.startswith("{"):
            try:
                found: dict[str, Any] = json.loads(line)
            except ValueError:
                return None
            return found
    return None
