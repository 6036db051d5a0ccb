"""What this machine measures of the .tflite files of a report, kept in the build folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfedge import paths
from tfedge.boards.measured import fingerprint
from tfedge.progress import Progress

FOLDER = "host"
ROUNDS = 30
_RUNTIME = "ai-edge-litert"
_SCRIPT = Path(__file__).with_name("timed.py")


def figures(build: Path, files: Mapping[str, Path], progress: Progress) -> dict[str, Any]:
    """Return what each of `files` takes here, by its name; measured once for the same files.

    All are called in turn in one run, so that their times may be compared.  Files whose flatbuffers
    are equal are one.

    Args:
      build: Where the figures are kept, in a folder of their own.

    Returns:
      For each, ``host_ms_p50``, the median time of an inference on one thread, with
      ``host_calls``, how many there were; and ``arena_measured_bytes``, see `timed.arena`.  Of a
      file that does not run, ``failed`` says why.
    """
    known = {name: fingerprint(file) for name, file in files.items()}
    distinct = {mark: files[name] for name, mark in known.items()}
    kept = _kept(build / FOLDER, sorted(distinct))
    found = _read(kept)
    if found is None or set(found) != set(distinct):
        progress.say(f"{'host':12} times {len(distinct)} files in turn")
        found = dict(zip(distinct, measure(list(distinct.values()), ROUNDS), strict=True))
        kept.parent.mkdir(parents=True, exist_ok=True)
        paths.replace(kept, json.dumps(found, indent=1) + "\n")
    return {name: found[mark] for name, mark in known.items()}


def measure(files: Sequence[Path], rounds: int) -> list[dict[str, Any]]:
    """Run `timed.py` in a process of its own and return what it prints, a dictionary a file.

    Where a file ends the process, there are no figures of any.

    Args:
      rounds: How often each is called a while; 0 measures the arenas alone.
    """
    # -P: the modules beside the script are not for it to import.
    command = [sys.executable, "-P", str(_SCRIPT), str(rounds), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [{"failed": _why(done)} for _ in files]
    return [json.loads(line) for line in done.stdout.splitlines()]


def _why(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"the runtime ended with {signal.Signals(-done.returncode).name}"
    return (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]


def _kept(folder: Path, marks: Sequence[str]) -> Path:
    decides = [importlib.metadata.version(_RUNTIME), *marks]
    return folder / f"{hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]}.json"


def _read(file: Path) -> dict[str, Any] | None:
    """Return what is kept; None if nothing is, or it is no JSON of ours."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
