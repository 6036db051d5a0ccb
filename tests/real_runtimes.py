"""Python processes with one TFLite runtime or the other, which do not fit into one."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tfedge import paths

RUNTIMES = ("ai-edge-litert", "tflite-runtime")
OLD = Path(sys.prefix) / "tflite-runtime"
"""Where `make` puts tflite-runtime 2.14 and the numpy 1 that it needs."""


def python_with(package: str) -> list[str]:
    """Return what starts a Python that finds no other runtime, in `environment_with` it."""
    return [sys.executable, "-S"] if package == "tflite-runtime" else [sys.executable]


def environment_with(package: str) -> dict[str, str]:
    """Return the environment of a process in which infer.py takes that runtime."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if package == "tflite-runtime":
        if not (OLD / "tflite_runtime").is_dir():
            raise FileNotFoundError(f"{OLD}: is not there; make .venv/installed puts it there")
        bare["PYTHONPATH"] = str(OLD)
    return {**bare, "TFEDGE_RUNTIME": package}


_LOOP = """
import contextlib, io, json, re, sys
import infer
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = infer.main(json.loads(line))
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
# Not ru_maxrss: that counts in the process which started this one, and it may be a large one.
print(json.dumps(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024))
"""


def run_all(package: str, commands: list[list[str]]) -> tuple[int, list, float]:
    """Run the board's script in one process, once for each of `commands`.

    Returns:
      How the process ended, [status, stdout, stderr] of each command, and its peak memory in MiB.
      What the runtime's C++ writes to stderr is not in it.
    """
    done = subprocess.run(
        [sys.executable, "-c", _LOOP],
        input="".join(json.dumps(command) + "\n" for command in commands),
        env=environment_with(package),
        cwd=paths.bundled() / "device",
        capture_output=True,
        text=True,
        check=False,
    )
    *found, peak = [json.loads(line) for line in done.stdout.splitlines()] or [0]
    return done.returncode, found, peak
