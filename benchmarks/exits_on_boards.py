"""Compare a file with exits on this machine and on emulated boards, image by image.

    python benchmarks/exits_on_boards.py MODEL.tflite FOLDER [--count 500] [--efforts 0.2 1]

Reads `count` pictures from a folder with a folder a class, evenly from all of it, as the model
takes them, and lets each go through the exits on this processor and on an emulated Pi 4 and Pi 5,
by the runner that a board has.  Prints, a line a board and effort, in how many of them the exits
and the logits, bit for bit, are the same, and a JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tfedge import paths, progress
from tfedge.boards import emulation
from tfedge.boards.pi import BOARDS

sys.path.append(str(Path(__file__).parent.parent / "tests/emulated_pi"))
import on_board

REPO = Path(__file__).parent.parent


def pictures(model, folder, count):
    """Read pictures as a model takes them, uint8 [count, height, width, channels]."""
    runner = paths.runner()
    fed = runner.Classifier(str(model), threads=1).card["input"]
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".jpg", ".jpeg", ".png"))
    chosen = files[:: max(1, len(files) // count)][:count]
    shape, how = tuple(fed["shape"]), (fed.get("resize", "bilinear"), fed.get("fit", "stretch"))
    return np.stack([runner.read_image(str(file), shape, *how) for file in chosen])


def gone_through(command, model, inputs, effort):
    """Return [exit, logits] of each input, from a process that `command` makes."""
    work = {
        "model": str(model), "inputs": str(inputs), "photos": [], "commands": [],
        "staged": [(str(model), str(inputs), effort)],
    }  # fmt: skip
    file = inputs.with_name("work.json")
    file.write_text(json.dumps(work))
    script = str(REPO / "tests/emulated_pi/on_board.py")
    words = command([script, str(REPO / "device/infer.py"), str(file)])
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["staged"][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--efforts", type=float, nargs="+", default=[0.2, 0.5])
    options = parser.parse_args()
    userland = emulation.userland(progress.terminal())
    runner, found = paths.runner(), []
    sys.modules.setdefault("infer", runner)
    with tempfile.TemporaryDirectory() as folder:
        model, inputs = Path(folder) / "model.tflite", Path(folder) / "inputs.npy"
        model.write_bytes(options.model.read_bytes())
        np.save(inputs, pictures(model, options.folder, options.count))
        for effort in options.efforts:
            here = on_board.gone_through(runner, str(model), str(inputs), effort)
            for board in BOARDS:
                there = gone_through(
                    lambda words, board=board: userland.command(board, words), model, inputs, effort
                )
                exits = sum(a[0] == b[0] for a, b in zip(here, there, strict=True))
                logits = sum(a[1] == b[1] for a, b in zip(here, there, strict=True))
                print(f"{board}, effort {effort:g}: of {len(here)} inputs {exits} leave at the"
                      f" same exit, {logits} with the same logits", flush=True)  # fmt: skip
                found.append({"board": board, "effort": effort, "count": len(here),
                              "exits": exits, "logits": logits})  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
