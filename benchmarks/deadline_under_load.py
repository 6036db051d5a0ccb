"""Hold a deadline on a machine that others load, and see it recover.

    python benchmarks/deadline_under_load.py [MODEL INPUTS.npy] [--seconds 8] [--period-ms P]

The deadline is 1.5 times what the whole way through all stages takes on the idle machine (median).
Then the inputs are answered with `--deadline-ms` and `--adaptive`: on the idle machine, with a
process that only counts on every core, and idle again.  Without a MODEL it is made-up convolutions
over noise.  An answer is full unless the deadline cut it short, it was late, or the effort was
lower than asked for.  Prints a line for
each part and a JSON object: share of answers that are late, and how long after the end of the load
half a second has as many full answers as before it.  What is late on the idle machine, too, and
late_by_cpu, where the time on the CPU alone was too long, are not the load's work: a virtual
machine may be stopped by its host, which counts as its own time.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tfedge import paths

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from tiny_board import pixels
from tiny_exits import exits_card, exits_model
from tiny_model import with_card

TIMES, MOST_LATE, RECOVERED_S = 1.5, 0.01, 2.0
COUNT = "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])])\nwhile True: pass"


def made_up(folder, side, channels):
    """Write a model that lets about a third leave at each exit, and return it with its inputs."""
    shape = (side, side, 3)
    flatbuffer, file = exits_model(0, shape, channels, 4), folder / "model.tflite"
    inputs = np.stack([pixels(seed, shape) for seed in range(100)])
    file.write_bytes(with_card(flatbuffer, exits_card(flatbuffer, shape)))
    thresholds = []
    for exit, share in ((0, 2 / 3), (1, 1 / 2)):
        model = staged(file, exit=exit)
        measures = [float(model._measures[exit](model.raw(x))) for x in inputs]
        thresholds.append(float(np.quantile(measures, share)))
    card = exits_card(flatbuffer, shape, tuple(thresholds))
    file.write_bytes(with_card(flatbuffer, card))
    return file, inputs


def staged(file, **options):
    exits = paths.runner()._beside("exits")
    return exits.Staged(paths.runner().Classifier(str(file), threads=1), **options)


def full_ms(file, inputs):
    model, times = staged(file, exit=len(staged(file).names) - 1, held_open=True), []
    for x in itertools.islice(itertools.cycle(inputs), 300):
        model.start()
        began = time.perf_counter()
        model.classify(x)
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times[30:]))


def answered(model, inputs, seconds, period_s):
    """Return (when, seconds taken, exit, whether full, CPU seconds) of each answer for a time."""
    found, start, number = [], time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        if period_s:
            time.sleep(max(0, start + number * period_s - time.perf_counter()))
        model.start()
        began, cpu = time.perf_counter(), time.thread_time()
        model.classify(inputs[number % len(inputs)])
        took, cpu = time.perf_counter() - began, time.thread_time() - cpu
        full = model.because in ("sure", "last") and model.used == model.point
        found.append((began, took, model.answered, full, cpu))
        number += 1
    return found


def figures(answers, deadline_ms, exits):
    took = np.array([each[1] for each in answers]) * 1e3
    taken = np.array([each[2] for each in answers])
    cpu = np.array([each[4] for each in answers]) * 1e3
    return {
        "answers": len(answers),
        "late": round(float((took > deadline_ms).mean()), 5),
        "late_at_first": round(float(((took > deadline_ms) & (taken == 0)).mean()), 5),
        "late_by_cpu": round(float((cpu > deadline_ms).mean()), 5),
        "full": round(float(np.mean([each[3] for each in answers])), 4),
        "shares": [round(float((taken == exit).mean()), 4) for exit in range(exits)],
        "p50_ms": round(float(np.median(took)), 3),
        "p99_ms": round(float(np.percentile(took, 99)), 3),
    }


def recovery_s(answers, end, usual, window_s=0.5):
    """Return when, after `end`, half a second begins with as many full answers as usual."""
    when = np.array([each[0] - end for each in answers])
    full = np.array([each[3] for each in answers])
    for start in np.arange(0, when[-1] - window_s, 0.05):
        inside = (when >= start) & (when < start + window_s)
        if inside.any() and full[inside].mean() >= 0.95 * usual:
            return round(float(start), 2)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("inputs", nargs="?")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--period-ms", type=float, default=0)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--channels", type=int, default=64)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        file, inputs = made_up(Path(name), args.side, args.channels)
        if args.model:
            file, inputs = args.model, np.load(args.inputs)
        whole_ms = full_ms(file, inputs)
        model = staged(file, held_open=True)
    deadline_ms = TIMES * whole_ms
    model.pace = paths.runner()._beside("pace").Pace(model, deadline_ms, adaptive=True)
    print(f"all stages: {whole_ms:.2f} ms; deadline {deadline_ms:.2f} ms")
    parts, end = measured(model, inputs, args.seconds, args.period_ms / 1e3)
    found = {name: figures(part, deadline_ms, len(model.names)) for name, part in parts.items()}
    for name, each in found.items():
        print(name, *(f"{key} {value}" for key, value in each.items()), sep="  ")
    recovered = recovery_s(parts["after"], end, found["idle"]["full"])
    print(f"late under load: {found['loaded']['late']:.2%} (at most {MOST_LATE:.0%})")
    print(f"recovered after {recovered} s (at most {RECOVERED_S:.0f} s)")
    result = {"full_ms": whole_ms, "deadline_ms": deadline_ms, "recovered_s": recovered}
    print(json.dumps({**result, **found}))


def measured(model, inputs, seconds, period_s):
    """Return the answers of each part, and when the load ended."""
    parts = {"idle": answered(model, inputs, seconds, period_s)}
    cores = sorted(os.sched_getaffinity(0))
    load = [subprocess.Popen([sys.executable, "-c", COUNT, str(core)]) for core in cores]
    try:
        time.sleep(0.5)
        parts["loaded"] = answered(model, inputs, seconds, period_s)
    finally:
        for each in load:
            each.kill()
            each.wait()
    end = time.perf_counter()
    parts["after"] = answered(model, inputs, seconds, period_s)
    return parts, end


if __name__ == "__main__":
    main()
