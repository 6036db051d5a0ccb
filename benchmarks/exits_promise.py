"""Hold the promise of thresholds over random splits of tune and test.

    python benchmarks/exits_promise.py PIPELINE.toml MODEL.tflite [--max-drop 0.005] [--splits 20]

Every exit of a file answers all inputs of the two splits once.  Then they are shuffled and dealt
out anew, thresholds chosen on the one part as `convert` does, and the accuracy that is lost against
the last exit counted on the other.  Prints a line a split and a JSON object: in how many the drop
that was promised is kept, where 19 of 20 are promised.  A part is itself a sample: a drop that is
kept for all inputs may be broken on one part by chance.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from tfedge import progress
from tfedge.plan import pipeline
from tfedge.tflite import exits
from tfedge.tflite.leaving import Answers, stage_outputs
from tfedge.tflite.thresholds import choose


def answered(content, data):
    """Return what each exit answers to tune and test together, and the right classes."""
    both = [data.tune, data.test]
    found = [stage_outputs(content, (data.normalise(x) for x in split.inputs)) for split in both]
    logits = tuple(
        np.concatenate(rows) for rows in zip(*(one.logits for one in found), strict=True)
    )
    return Answers(logits, found[0].quantisation), np.concatenate([one.classes for one in both])


def dealt(answers, classes, costs, most, chance, count):
    """Choose on `count` inputs drawn by chance; return drop and mean cost on the others."""
    order = chance.permutation(len(classes))
    mine, others = order[:count], order[count:]
    choice = choose([one[mine] for one in answers.logits], answers.quantisation, classes[mine],
                    costs, max_drop=most)  # fmt: skip
    rest = Answers(tuple(one[others] for one in answers.logits), answers.quantisation)
    said = choice.entry()
    left = exits.taken(said, rest, said["points"][said["chosen"]]["thresholds"])
    right = np.stack([one.argmax(axis=1) == classes[others] for one in rest.logits])
    drop = right[-1].mean() - right[left, np.arange(len(left))].mean()
    return float(drop), float(np.asarray(costs)[left].mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--max-drop", type=float, default=0.005)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--build-dir", type=Path, default=Path("build"))
    options = parser.parse_args()
    source = pipeline.load(options.pipeline).source
    data = source.open(options.build_dir, progress.terminal())
    content = options.model.read_bytes()
    answers, classes = answered(content, data)
    costs = exits.relative_macs(content)
    chance, found = np.random.default_rng(0), []
    for number in range(options.splits):
        drop, cost = dealt(
            answers, classes, costs, options.max_drop, chance, len(data.tune.classes)
        )
        print(
            f"split {number:2}: {100 * drop:+.2f} points lost, {cost:.3f} of the MACs", flush=True
        )
        found.append({"drop": drop, "cost": cost})
    kept = sum(one["drop"] <= options.max_drop + 1e-9 for one in found)
    print(f"kept in {kept} of {options.splits}")
    print(json.dumps({"max_drop": options.max_drop, "kept": kept, "splits": found}))


if __name__ == "__main__":
    main()
