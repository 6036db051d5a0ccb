"""The runner as a service of systemd: started with the board, told of a new model."""

from __future__ import annotations

import re
from pathlib import Path

from tfedge import paths
from tfedge.boards.ssh import Board
from tfedge.errors import CheckError, UserError

NAME = "tfedge.service"
OWED = ".owed"
"""File in the board's folder: the ``reload`` or ``restart`` that a running service still needs."""

SYSTEM, USER = "system", "user"
"""Whose service it is: the system's wants root to install it, a user's own does not."""

_STATE, _DATA = "/var/lib/tfedge", "data"
"""What the unit reads and writes, and what stands for it in the folder of a user's own service."""

_NO_SYSTEMD, _NO_RIGHT = 3, 4

_AS_ROOT = """
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
"""

_FIND = f"""{_AS_ROOT}
command -v systemctl >/dev/null || exit {_NO_SYSTEMD}
if root true 2>/dev/null; then kind={SYSTEM}
elif systemctl --user show-environment >/dev/null 2>&1; then kind={USER}
else kind=none; fi
echo "tfedge:kind=$kind"
echo "tfedge:user=$(id -un)"
"""

# Arguments: the folder, the account that runs it.  The unit was copied into the folder.
_INSTALL = {
    SYSTEM: f"""{_AS_ROOT}
set -e
id "$2" >/dev/null 2>&1 || root useradd --system --user-group "$2"
root install -m 644 "$1/{NAME}" /etc/systemd/system/{NAME}
root systemctl daemon-reload
root systemctl enable {NAME}
root systemctl restart {NAME}
rm -f "$1/{OWED}"
""",
    USER: f"""
set -e
mkdir -p "$HOME/.config/systemd/user" "$1/{_DATA}/photos"
cp "$1/{NAME}" "$HOME/.config/systemd/user/{NAME}"
systemctl --user daemon-reload
systemctl --user enable {NAME}
systemctl --user restart {NAME}
rm -f "$1/{OWED}"
""",
}

# Settings that a user's own systemd has no right to: other accounts, and walls around a process.
_WALLS = re.compile(
    r"User|Group|SupplementaryGroups|StateDirectory\w*|ReadWritePaths|Protect\w+|Private\w+"
    r"|CapabilityBoundingSet|Restrict\w+|LockPersonality|SystemCall\w+|Device\w+"
)

# Argument: the folder.  Only a service of this folder is touched.
_RELOAD = f"""{_AS_ROOT}
folder=$1
cd "$folder" || exit
owed=$(cat {OWED} 2>/dev/null)
[ -n "$owed" ] || exit 0
echo "tfedge:owed=$owed"
ours() {{
  "$@" is-active --quiet {NAME} && "$@" cat {NAME} | grep -qF " $folder/current/infer.py "
}} 2>/dev/null
if ! command -v systemctl >/dev/null; then :
elif ours systemctl; then
  root systemctl "$owed" {NAME} && echo tfedge:done=yes || exit {_NO_RIGHT}
elif ours systemctl --user; then
  systemctl --user "$owed" {NAME} && echo tfedge:done=yes || exit {_NO_RIGHT}
fi
rm -f {OWED}
"""


def install(board: Board, python: str, device: Path | None) -> str:
    """Install and start the service for the version in use; return what was done, in words.

    Args:
      board: Its folder is absolute.
      python: The board's Python, absolute.
      device: The folder of the unit; None for tfedge's own.

    Raises:
      CheckError: There is no systemd, or neither sudo without a password nor a user's own service.
    """
    found = board.run(_FIND)
    if found.status == _NO_SYSTEMD:
        fix = f"the version is in use; start it there by other means: {python} {_runner(board)}"
        raise CheckError(board.at, "has no systemd to install a service in", fix)
    told = found.told
    source = (device or paths.bundled() / "device") / NAME
    if not source.is_file():
        raise UserError(source, "is missing", "install tfedge again")
    kind = told["kind"]
    text = unit(
        source.read_text("utf-8"), board.folder, python, user="" if kind == USER else told["user"]
    )
    _put(board, text)
    if kind not in _INSTALL:
        fix = (
            f"the version is in use; by hand there: sudo cp {board.folder}/{NAME} "
            f"/etc/systemd/system/ && sudo systemctl enable --now {NAME}"
        )
        raise CheckError(board.at, "the service needs sudo, which asks for a password", fix)
    account = re.search(r"(?m)^User=(\S+)$", text)
    done = board.run(_INSTALL[kind], board.folder, account[1] if account else told["user"])
    if done.status:
        fix = f"the version is in use; look there: systemctl status {NAME}"
        raise CheckError(board.at, f"the service does not start: {done.last}", fix)
    watched = re.search(r"--watch (\S+)", text)
    watches = f", watches {watched[1]}" if watched else ""
    after = "" if kind == SYSTEM else "; sudo loginctl enable-linger starts it without a login"
    return f"{NAME} runs as a {kind} service{watches}{after}"


def reload(board: Board) -> str:
    """Tell a running service of this folder that its model changed; return what was done, if any.

    A reload keeps the process and needs the same runner; a new runner needs a restart.  Which of
    them a switch needs it has noted, and the note stays until it is done.
    """
    answer = board.run(_RELOAD, board.folder)
    action = answer.told.get("owed", "restart")
    if answer.status:
        by_hand = f"sudo systemctl {action} {NAME}"
        return f"still runs the version before ({answer.last}); there: {by_hand}"
    return f"{NAME}: {action} done" if "done" in answer.told else ""


def unit(text: str, folder: str, python: str, *, user: str) -> str:
    """Fit the unit that ships with the runner to a board.

    Args:
      text: The unit, for a runner and a model in one folder.
      folder: The board's, absolute; runner and model are those of its link `current`.
      python: What runs them.
      user: Who runs it: the account that the folder belongs to, which may read it.  root leaves it
        to the unit's own account.  Empty makes a user's own service, in which the walls of a
        system's cannot be put up, and which reads and writes below the folder.
    """
    refuse_odd(folder, python)
    lines = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        key, sign, value = line.partition("=")
        if not user and (line.startswith("#") or _WALLS.fullmatch(key)):
            continue  # the comments are on the walls
        if key == "ExecStart":
            value = _command(value, folder, python)
        elif key == "User" and user != "root":
            value = user
        elif key == "ProtectHome" and folder.startswith(("/home/", "/root/")):
            value = "read-only"
        elif key == "WantedBy" and not user:
            value = "default.target"
        value = value if user else value.replace(_STATE, f"{folder}/{_DATA}")
        lines.append(f"{key}{sign}{value}")
    return "\n".join(lines) + "\n"


def refuse_odd(*paths: str) -> None:
    """Refuse paths that systemd would not read as they stand."""
    for path in paths:
        if re.search(r"[\s%\"'\\]", path):
            fix = "take a folder and a Python without blanks, quotes and %"
            raise UserError("--service", f"systemd would read {path!r} otherwise", fix)


def _command(command: str, folder: str, python: str) -> str:
    """Replace the Python, the runner and the model of a command; its other options stay."""
    fitted = [python]
    for word in command.split()[1:]:
        name = word.rpartition("/")[2]
        if name == "infer.py":
            fitted.append(f"{folder}/current/infer.py")
        elif name.endswith(".tflite"):
            fitted.append(f"{folder}/current/model.tflite")
        else:
            fitted.append(word)
    return " ".join(fitted)


def _put(board: Board, text: str) -> None:
    script = f"cat >\"$1/{NAME}\" <<'TFEDGE_UNIT_ENDS'\n{text}TFEDGE_UNIT_ENDS\n"
    answer = board.run(script, board.folder)
    if answer.status:
        raise UserError(board.at, f"cannot write {board.folder}/{NAME}: {answer.last}")


def _runner(board: Board) -> str:
    current = f"{board.folder}/current"
    return f"{current}/infer.py {current}/model.tflite --watch FOLDER --serve"
