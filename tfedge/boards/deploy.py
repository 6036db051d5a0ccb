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
from tfedge.boards import measured, service
from tfedge.boards.ssh import Answer, Board
from tfedge.errors import CheckError, UserError
from tfedge.progress import Progress
from tfedge.tflite import card

MODEL = "model.tflite"
TEST_S, BENCH_S = 600.0, 3600.0
"""How long a board may take; a first start from a slow card is minutes."""

_AS_JSON = ("--format", "json")
_NO_FOLDER, _NO_PYTHON, _OLD_PYTHON, _NO_ROOM, _NO_PREVIOUS, _FOREIGN, _BROKEN_PYTHON = range(3, 10)
_LOCK_S = 60

# In the folder, $python being what the user asked for, or nothing.
_PYTHON = f"""
case $python in "~/"*) python=$HOME/${{python#"~/"}} ;; esac
[ -n "$python" ] || [ ! -x venv/bin/python3 ] || python=venv/bin/python3
python=$(command -v "${{python:-python3}}") || exit {_NO_PYTHON}
case $python in /*) ;; *) python=$(pwd)/$python ;; esac
"""

# Arguments: the folder, the version's name, the kB it needs, a Python or nothing.
_PREPARE = f"""
mkdir -p "$1/versions" && cd "$1" && [ -w . ] && [ -w versions ] || exit {_NO_FOLDER}
for name in current previous; do [ ! -e $name ] || [ -L $name ] || exit {_FOREIGN}; done
python=$4{_PYTHON}
[ "$("$python" -c 'print(6 * 7)' </dev/null)" = 42 ] || exit {_BROKEN_PYTHON}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 7))' </dev/null || exit {_OLD_PYTHON}
free=$(df -Pk . | awk 'NR == 2 {{ print $4 }}')
echo "tfedge:free=$free"
[ -z "$free" ] || [ "$free" -ge "$3" ] || exit {_NO_ROOM}
rm -rf "versions/.new-$2" && mkdir "versions/.new-$2" || exit {_NO_FOLDER}
echo "tfedge:folder=$(pwd)"
echo "tfedge:python=$python"
echo "tfedge:current=$(readlink current)"
"""

# Arguments: a version's folder, a Python, infer.py's arguments.
_INFER = """
cd "$1" || exit 2
python=$2
shift 2
exec "$python" infer.py "$@" </dev/null
"""

# From here on a broken connection must not stop it half way, nor another deploy come between.
_LINK = f"""
trap '' HUP PIPE
set -e
cd "$1"
exec 9>.lock
flock -w {_LOCK_S} 9 || {{ echo "another deploy has held it for {_LOCK_S} s" >&2; exit 1; }}
python=$2
link() {{ ln -s "$1" ".$2.$$"; mv -Tf ".$2.$$" "$2"; }}
old=$(readlink current || true)
"""

# Says whether a process that runs version $1 can go on with the model of version $2: it cannot with
# another runner or another input.  In the folder, $python being one.
_SAME = """
fed() {
  "$python" -c 'import json, sys, zipfile
print(json.loads(zipfile.ZipFile(sys.argv[1]).read("card.json"))["input"])' \
    "$1/model.tflite" </dev/null 2>/dev/null || echo "$1"
}
compare() {
  code=same
  for file in "$2"/*.py; do
    cmp -s "$file" "$1/${file##*/}" || code=changed
  done
  [ "$(fed "$1")" = "$(fed "$2")" ] || code=changed
  echo "tfedge:code=$code"
}
"""

_NAME = "[0-9a-f]" * 8
"""The shell's pattern of a version's name: whatever else is in the folder is somebody's own."""

# Arguments: the folder, a Python, the version's name.  Versions before the previous one go.
_SWITCH = f"""{_SAME}{_LINK}
name=$3
number=1
while [ -e "versions/$name" ]; do number=$((number + 1)); name=$3.$number; done
mv "versions/.new-$3" "versions/$name"
compare "$old" "versions/$name"
sync
link "versions/$name" current
case "$old" in
  "" | "versions/$3" | "versions/$3".*) ;;
  *) link "$old" previous ;;
esac
previous=$(readlink previous || true)
for version in versions/*; do
  case "$version" in
    "versions/$name" | "$previous") ;;
    versions/{_NAME} | versions/{_NAME}.*) [ ! -e "$version/infer.py" ] || rm -rf "$version" ;;
  esac
done
find versions -maxdepth 1 -name '.new-{_NAME}' -mmin +60 -exec rm -rf {{}} +
"""

_PREVIOUS = f"""
cd "$1" || exit {_NO_FOLDER}
[ -e previous/{MODEL} ] || exit {_NO_PREVIOUS}
echo "tfedge:folder=$(pwd)"
echo "tfedge:current=$(readlink current)"
echo "tfedge:previous=$(readlink previous)"
python=$2{_PYTHON}
echo "tfedge:python=$python"
"""

_SWAP = f"""{_SAME}{_LINK}
new=$(readlink previous)
compare "$old" "$new"
link "$new" current
link "$old" previous
"""


@dataclass(frozen=True)
class Wishes:
    """What is done besides copying and testing.

    Attributes:
      python: The board's Python; empty for the folder's own venv, or else python3.
      service: Leave it running, started with the board.
      bench: Inferences to time there; 0 for none.
    """

    python: str = ""
    service: bool = False
    bench: int = 0


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
    with tempfile.TemporaryDirectory(prefix="tfedge-deploy-") as folder:
        staged = [Path(shutil.copy(file, folder)) for file in files]
        staged.append(Path(shutil.copy(model, Path(folder) / MODEL)))
        name = _name(staged)
        board, python, old = _prepared(board, wishes, name, sum(f.stat().st_size for f in staged))
        if wishes.service:
            service.refuse_odd(board.folder, python)
        with _unchanged(old):
            new = f"{board.folder}/versions/.new-{name}"
            board.copy(staged, new)
            progress.say(f"copied       {len(staged)} files to {board.at}:{board.folder}")
            if any(file.name == "doctor.py" for file in files):
                _examined(board, new, python, progress)
            _tested(board, new, python, progress)
    switched = board.run(_SWITCH, board.folder, python, name)
    _expect(switched, board)
    progress.say(f"in use       version {name}" + (f", was {_short(old)}" if old else ""))
    if wishes.service:
        progress.say(f"service      {service.install(board, python, device)}")
    else:
        _reloaded(board, switched, progress)
    if wishes.bench:
        figures = bench(board, python, wishes.bench)
        file = measured.save(figures, model)
        progress.say(f"benchmark    {file}")
    return name


def rollback(board: Board, wishes: Wishes, progress: Progress) -> str:
    """Go back to the version before, which is tested again first; once more goes forward again.

    Returns:
      The version's name.

    Raises:
      UserError: There is none, or the board cannot be reached.
      CheckError: It failed its test there.
    """
    answer = board.run(_PREVIOUS, board.folder, wishes.python)
    if answer.status == _NO_PREVIOUS:
        fix = "only a second deploy leaves one behind"
        raise UserError(board.at, f"there is no version before in {board.folder}", fix)
    if answer.status == _NO_FOLDER:
        raise UserError(board.at, f"there is no {board.folder}", "deploy to it first")
    _expect(answer, board)
    told = answer.told
    board = replace(board, folder=told["folder"])
    with _unchanged(told["current"]):
        _tested(board, f"{board.folder}/previous", told["python"], progress)
    swapped = board.run(_SWAP, board.folder, told["python"])
    _expect(swapped, board)
    name = _short(told["previous"])
    progress.say(f"in use       version {name}, was {_short(told['current'])}")
    _reloaded(board, swapped, progress)
    return name


def bench(board: Board, python: str, runs: int) -> dict[str, Any]:
    """Return what `infer.py --bench` measures on the board with the version in use."""
    current = f"{board.folder}/current"
    asked = ("--bench", str(runs), *_AS_JSON)
    answer = board.run(_INFER, current, python, MODEL, *asked, limit_s=BENCH_S)
    figures = _json(answer)
    if answer.status or figures is None:
        raise CheckError(board.at, f"the benchmark failed: {answer.last}", "the version is in use")
    return {"host": board.host, **figures}


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


def _prepared(board: Board, wishes: Wishes, name: str, size: int) -> tuple[Board, str, str]:
    """Return the board with its folder absolute, its Python, and the version in use or nothing."""
    needed = 2 * size // 1024 + 1024
    answer = board.run(_PREPARE, board.folder, name, str(needed), wishes.python)
    told = answer.told
    python = wishes.python or "python3"
    troubles = {
        _NO_FOLDER: (
            f"cannot write to {board.folder}: {answer.last}",
            "take a folder of your own, such as one below the home folder",
        ),
        _NO_PYTHON: (
            f"there is no {python} there",
            "name another one with --python"
            if wishes.python
            else "install it: sudo apt install python3",
        ),
        _BROKEN_PYTHON: (f"its {python} is no Python that runs", "name another one with --python"),
        _FOREIGN: (
            f"in {board.folder}, current or previous is no link of tfedge's",
            "move it away, or take another folder",
        ),
        _OLD_PYTHON: (f"its {python} is older than 3.7", "name another one with --python"),
        _NO_ROOM: (
            f"no room: {int(told.get('free') or 0):,} kB free, {needed:,} needed",
            "delete what is not needed there",
        ),
    }
    if answer.status in troubles:
        raise UserError(board.at, *troubles[answer.status])
    _expect(answer, board)
    return replace(board, folder=told["folder"]), told["python"], told["current"]


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
    asked = (MODEL, question, *_AS_JSON)
    answer = board.run(_INFER, folder, python, *asked, limit_s=TEST_S)
    facts = _json(answer) or {}
    findings = "; ".join(facts.get("findings", ())) or answer.last
    return (findings if answer.status else ""), facts


def _of(facts: dict[str, Any], key: str) -> str:
    return f", {facts[key]}" if facts.get(key) else ""


def _reloaded(board: Board, switched: Answer, progress: Progress) -> None:
    told = service.reload(board, restart=switched.told.get("code") != "same")
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
