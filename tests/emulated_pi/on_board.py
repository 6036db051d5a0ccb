"""Run on the board: use infer.py many times in one process, and print what came of it as JSON.

python on_board.py INFER.py WORK.json

A process takes seconds to start under emulation, so one does all the work that is in WORK.json:
``commands`` (lists of arguments for infer.py), ``model``, ``inputs`` (a .npy of what it is fed) and
``photos`` (paths, with the shape that they are read to).  ``staged`` names models with exits, a
.npy of inputs, and the effort to take.
"""

import contextlib
import importlib.util
import io
import json
import platform
import sys
from pathlib import Path

import numpy as np


def main(script, work):
    spec = importlib.util.spec_from_file_location("infer", script)
    infer = importlib.util.module_from_spec(spec)
    sys.modules["infer"] = infer  # as the files beside it know it
    spec.loader.exec_module(infer)
    work = json.loads(Path(work).read_text())
    model = infer.Classifier(work["model"], threads=1)
    tree = Path("/proc/device-tree/model")
    return {
        "machine": platform.machine(),
        "board": tree.read_text().rstrip("\0") if tree.exists() else "",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "runtime": model.runtime,
        "raw": [model.raw(x).tolist() for x in np.load(work["inputs"])],
        "photos": [infer.read_image(path, tuple(shape)).tolist() for path, shape in work["photos"]],
        "staged": [gone_through(infer, *each) for each in work.get("staged", ())],
        "commands": [answer(infer, arguments) for arguments in work["commands"]],
    }


def gone_through(infer, path, inputs, effort):
    """Return [exit, logits as they are] of each input."""
    model = infer._beside("exits").Staged(infer.Classifier(path, threads=1), effort)
    found = []
    for x in np.load(inputs):
        raw = model.raw(x).tolist()  # before the exit is known
        found.append([model.answered, raw])
    return found


def answer(infer, arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = infer.main(arguments)
        except SystemExit as stop:
            status = stop.code
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2])))
