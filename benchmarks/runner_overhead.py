"""Compare what device/infer.py takes with what the runtime alone takes.

    python benchmarks/runner_overhead.py [--rounds 5] [--runs 1000] [--starts 31]

An image: `Classifier.classify` of pixels in memory against set_tensor, invoke and get_tensor of a
tensor that is ready, the two taking turns, for each way in which pixels become a tensor; of several
rounds the quickest, as what else a machine does only adds.  A start:
`infer.py MODEL x.npy`, and the same with a small PNG, against a script that imports numpy and the
runtime and runs once, processes taking turns.  Prints a line each and a JSON object.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from tfedge import paths

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from tiny_model import card_for, tiny_model, with_card

MOST_US = {32: 10, 96: 30}  # a picture of so many pixels a side
MOST_RATIO = 1.3
KINDS = {  # how pixels become a tensor: input scale, input zero point, mean, std
    "flipped bit": (1 / 255, -128, [0] * 3, [255] * 3),
    "table": (0.0079, 3, [127.5] * 3, [127.5] * 3),
    "table a channel": (0.0187, -14, [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]),
}
BARE = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
interpreter.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
interpreter.invoke()
print(interpreter.get_tensor(found["index"]))
"""


def written(folder, side, kind):
    scale, zero, mean, std = KINDS[kind]
    flatbuffer = tiny_model((side, side, 3), 5, scale, zero)
    card = card_for(flatbuffer, (side, side, 3), 5)
    card["input"].update(mean=mean, std=std)
    file = folder / f"{side}.tflite"
    file.write_bytes(with_card(flatbuffer, card))
    return file


def overhead_us(file, side, runs):
    """Return the medians of `runs` pairs and their difference."""
    model = paths.runner().Classifier(str(file), threads=1)
    images = np.random.default_rng(0).integers(0, 256, (64, side, side, 3), dtype=np.uint8)
    tensors = [model.quantise(image) for image in images]
    bare = Interpreter(model_content=paths.runner().split_model(file.read_bytes())[0])
    bare.allocate_tensors()
    given, found = bare.get_input_details()[0]["index"], bare.get_output_details()[0]["index"]
    took = np.empty((runs, 2))
    for number in range(runs):
        image, tensor = images[number % 64], tensors[number % 64]
        began = time.perf_counter()
        model.classify(image)
        between = time.perf_counter()
        bare.set_tensor(given, tensor)
        bare.invoke()
        bare.get_tensor(found)
        took[number] = between - began, time.perf_counter() - between
    whole, alone = (1e6 * np.median(took[runs // 10 :], axis=0)).tolist()
    return {"overhead_us": whole - alone, "classify_us": whole, "bare_us": alone}


def starts_ms(folder, count):
    """Return the median time of each kind of process, and its median ratio to the bare one."""
    file, side = written(folder, 32, "flipped bit"), 32
    image = np.zeros((side, side, 3), np.uint8)
    np.save(folder / "x.npy", image)
    Image.fromarray(image).save(folder / "x.png")
    runner = [sys.executable, str(paths.bundled() / "device" / "infer.py"), str(file)]
    commands = {
        "bare": [sys.executable, "-c", BARE, str(file)],
        "npy": [*runner, str(folder / "x.npy")],
        "png": [*runner, str(folder / "x.png")],
    }
    took = {name: [] for name in commands}
    # As on a board: with Python's caches, which a shell may have turned off.
    keeps = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for number in range(count + 2):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=keeps)
            if number > 1:  # the first write Python's caches, and fill the disk's
                took[name].append(1e3 * (time.perf_counter() - began))
    medians = {name: statistics.median(each) for name, each in took.items()}
    return {name: {"ms": ms, "ratio": ms / medians["bare"]} for name, ms in medians.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=31)
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(args.rounds):
            for side, kind in itertools.product(MOST_US, KINDS):
                figures = overhead_us(written(folder, side, kind), side, args.runs)
                found.setdefault((side, kind), []).append(figures)
        found = {at: min(each, key=lambda of: of["overhead_us"]) for at, each in found.items()}
        for (side, kind), figures in found.items():
            over, most = figures["overhead_us"], MOST_US[side]
            print(f"{side}x{side}x3, {kind}: {over:.1f} us over invoke (at most {most})")
        found = {f"{side}x{side}x3, {kind}": each for (side, kind), each in found.items()}
        found["starts"] = starts_ms(folder, args.starts)
        for name, figures in found["starts"].items():
            limit = f" (at most {MOST_RATIO})" if name == "npy" else ""
            print(f"start, {name}: {figures['ms']:.0f} ms, {figures['ratio']:.2f} times{limit}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
