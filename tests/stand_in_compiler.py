"""A stand-in for Google's edgetpu_compiler: takes its options, prints a log in its format.

`install` writes an executable of its name into a folder, which a test puts on the PATH.  The logs
are written after those that users show in the issues of github.com/google-coral/edgetpu.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

VERSION = "Edge TPU Compiler version 16.0.384591198"
TIMER = "Started a compilation timeout timer of 180 seconds."
ENDED = "Compilation child process completed within timeout period."

_PROGRAM = """\
#!{python}
import argparse, json, os, pathlib, subprocess, sys, time

told = json.loads(pathlib.Path(__file__).with_name("told.json").read_text())
options = argparse.ArgumentParser(allow_abbrev=False)
options.add_argument("-s", "--show_operations", action="store_true")
options.add_argument("-o", "--out_dir", default=".")
options.add_argument("model")
given = options.parse_args()
model = pathlib.Path(given.model)
content = model.read_bytes()
if content[4:8] != b"TFL3":
    sys.exit("Invalid model: " + given.model)
pathlib.Path(__file__).with_name("seen.tflite").write_bytes(content)
if told["hang"]:
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path(__file__).with_name("child").write_text(str(child.pid))
    time.sleep(600)
if told["signal"]:
    os.kill(os.getpid(), told["signal"])
table = told["table"] + "\\n"
log = told["log"].replace("NAME", model.stem)
out = pathlib.Path(given.out_dir) / (model.stem + "_edgetpu.tflite")
if told["output"]:
    out.write_bytes(pathlib.Path(told["output"]).read_bytes())
    head = log.splitlines()[0]
    out.with_suffix(".log").write_text(head + "\\nInput: m\\nOutput: m\\n\\n" + table)
print(log.replace("TABLE", table if given.show_operations else "See the operation log file."))
sys.exit(told["exit"])
"""


def table(*rows: tuple[str, int, str]) -> str:
    """Return the compiler's table of operators."""
    lines = ["Operator                       Count      Status", ""]
    return "\n".join(
        [*lines, *(f"{name:<30} {count:<10} {status}" for name, count, status in rows)]
    )


def success(mapped: int, left: int = 0, *, cached: str = "1.92MiB", streamed: str = "0.00B") -> str:
    """Return the log of a compilation that made a file."""
    partial = (
        "\nModel successfully compiled but not all operations are supported by the Edge TPU. A "
        "percentage of the model will instead run on the CPU, which is slower.\n"
        f"Number of operations that will run on Edge TPU: {mapped}\n"
        f"Number of operations that will run on CPU: {left}\n"
    )
    return "\n".join(
        [
            *(VERSION, TIMER, "", "Model compiled successfully in 133 ms.", ""),
            *("Input model: NAME.tflite", "Input size: 1.40MiB"),
            *("Output model: NAME_edgetpu.tflite", "Output size: 1.84MiB"),
            f"On-chip memory used for caching model parameters: {cached}",
            "On-chip memory remaining for caching model parameters: 5.07MiB",
            f"Off-chip memory used for streaming uncached model parameters: {streamed}",
            *("Number of Edge TPU subgraphs: 1", f"Total number of operations: {mapped + left}"),
            f"Operation log: NAME_edgetpu.log{partial if left else ''}",
            *("", "TABLE", ENDED, "Compilation succeeded!"),
        ]
    )


def install(  # noqa: PLR0913 - each is one thing that the compiler can do
    folder: Path,
    log: str,
    rows: str = "",
    *,
    output: bytes | None = None,
    code: int = 0,
    died_of: int = 0,
    hang: bool = False,
) -> Path:
    """Write the program into `folder`; it makes `output`, or none."""
    folder.mkdir(exist_ok=True)
    made = folder / "output.tflite"
    if output is not None:
        made.write_bytes(output)
    told = {"log": log, "table": rows, "exit": code, "signal": died_of, "hang": hang}
    told["output"] = str(made) if output is not None else ""
    (folder / "told.json").write_text(json.dumps(told))
    program = folder / "edgetpu_compiler"
    program.write_text(_PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    return folder
