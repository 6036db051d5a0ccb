"""Compare inference engines on networks of models/; write docs/engines.md and its JSON.

    python benchmarks/engines.py [--engines all] [--rounds 30] [--only NAME] [--models FOLDER]

Each network is made in float and in int8 by tfedge's own conversion: untrained, but with the
statistics of BatchNormalization taken over random inputs, so that what flows through it is of the
size that it has in a trained one.  Then it runs on every engine that is installed, as in `tfedge
compare --engines`; the others stand in the table with what to install or with their message.
`--python ENGINE=PATH` is that command's.  Both files are written anew after each network.
"""

import argparse
import json
import multiprocessing
import tempfile
from pathlib import Path

import numpy as np

from tfedge import progress
from tfedge.engines.known import named, pythons
from tfedge.plan.engines import Wishes, compare
from tfedge.report.engines import LEGEND, markdown, on

REPO = Path(__file__).parent.parent
JSON, PAGE = REPO / "docs/results/engines.json", REPO / "docs/engines.md"
NETWORKS = {  # name: file and function, shape, classes
    "ds_cnn_s": ("models/ds_cnn.py:ds_cnn_s", (49, 10, 1), 12),
    "resnet8": ("models/resnet.py:resnet8", (32, 32, 3), 10),
    "mobilenet_v2": ("models/mobilenet.py:mobilenet_v2", (96, 96, 3), 10),
}
FORMS = ("float", "int8")
LIMITS = (0.0, 1.0)
BUSY = 0.5


def make(folder, name):
    """Write a network's files into `folder`; in a process of its own, as TensorFlow stays in it."""
    import tensorflow as tf

    from tfedge.networks.backend import build, seed_everything
    from tfedge.plan.refs import Ref
    from tfedge.tflite.conversion import to_float, to_int8
    from tfedge.training.batchnorm import estimate

    ref, shape, classes = NETWORKS[name]
    seed_everything(0)
    model = build(Ref.parse(ref, REPO).load(), shape, classes, {})
    x = np.random.default_rng(0).uniform(*LIMITS, (64, *shape)).astype(np.float32)
    estimate(model, tf.data.Dataset.from_tensor_slices((x, x)).batch(32).repeat(3))
    (folder / f"{name}_float.tflite").write_bytes(to_float(model))
    (folder / f"{name}_int8.tflite").write_bytes(to_int8(model, x, LIMITS))


def files(folder, only):
    """Return the .tflite files of networks with `only` in their name; what is missing is made."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name in NETWORKS:
        wanted = [folder / f"{name}_{form}.tflite" for form in FORMS]
        if only in name and not all(file.exists() for file in wanted):
            work = multiprocessing.get_context("spawn").Process(target=make, args=(folder, name))
            work.start()
            work.join()
            if work.exitcode:
                raise SystemExit(work.exitcode)
        found += wanted if only in name else []
    return found


def page(found):
    """Return the text of docs/engines.md."""
    machine = found["machine"]
    parts = [INTRODUCTION, f"Measured on: {on(machine)}."]
    if machine["load_before"] > BUSY:
        parts.append(BUSY_NOTE)
    return "\n\n".join([*parts, markdown(found), LEGEND, NOTES]) + "\n"


INTRODUCTION = """\
# The same networks on other engines

Made by `python benchmarks/engines.py`, after `pip install -e ".[engines]"` and what its rows name;
the same figures are in [results/engines.json](results/engines.json).  `tfedge compare MODEL.tflite
--engines all` makes such a table of any file.  The networks are untrained, with statistics of
random inputs: speed and agreement are measured here, and no accuracy."""

BUSY_NOTE = """\
The machine did other work meanwhile, which slows all engines alike within a round and widens the
intervals: read the ratios, and no more of them than their intervals tell."""

NOTES = """\
- LiteRT, tflite-runtime and OpenVINO read the .tflite; for ONNX Runtime tf2onnx converts it; TVM
  imports it and compiles it for this processor, without the search for schedules that its speed
  comes from; ExecuTorch takes .pte files, which torch.export makes, and imports no .tflite.
- float32 is computed in float32: OpenVINO's own default is bfloat16 on processors that have it.
- int8 is rounded otherwise by each engine.  What that does to a trained network, `--data` tells;
  why answers of the untrained MobileNetV2 are tens of steps apart was not looked into."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", default="all")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH")
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--models", type=Path, help="keep the .tflite files here")
    args = parser.parse_args()
    wishes = Wishes(named(args.engines), pythons(tuple(args.python)), rounds=args.rounds)
    found = {"models": []}
    JSON.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for file in files(args.models or Path(temporary), args.only):
            one = compare(
                [file], None, wishes, progress.terminal(), changes=(), build_dir=Path("build")
            )
            (model,) = one["models"]
            model["file"] = file.name
            found = {"machine": found.get("machine", one["machine"]), "models": found["models"]}
            found["models"].append(model)
            print(markdown(one) + "\n", flush=True)
            JSON.write_text(json.dumps(found, indent=1) + "\n")
            PAGE.write_text(page(found))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
