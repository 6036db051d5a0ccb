"""Measure what a search itself costs: candidates that only pretend to train, many workers.

    python benchmarks/search_overhead.py [--trials 100 500 2000] [--workers 64]

Each candidate is looked at, claimed, run in rungs and kept by the very code that trains networks;
the stage beneath it does nothing but write a file.  Prints, for each number of trials, milliseconds
of processor time a trial in all, of them Optuna's proposals, and the rest, which is the scheduler's
and the store's own, and a JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import searched

import tfedge.networks.backend  # noqa: F401 - its import is no part of a trial
from tfedge.search.proposals import Proposals

MOST_MS = 50


def measured(trials, workers, sampler):
    """Return seconds of processor time of a search: in all, and of them of proposals."""
    asked = 0.0
    following = Proposals.next

    def timed(self, first=None):
        nonlocal asked
        started = time.process_time()
        found = following(self, first)
        asked += time.process_time() - started
        return found

    Proposals.next = timed
    with tempfile.TemporaryDirectory() as folder:
        file = searched.pipeline(Path(folder), trials, workers, sampler)
        started = time.process_time()
        searched.run(file, Path(folder) / "build", workers)
        whole = time.process_time() - started
    Proposals.next = following
    return whole, asked


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 500, 2000])
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--sampler", default="nsga2", choices=("tpe", "nsga2", "random"))
    options = parser.parse_args()
    found = {}
    for trials in options.trials:
        whole, asked = measured(trials, options.workers, options.sampler)
        own = 1000 * (whole - asked) / trials
        each = 1000 * asked / trials
        print(
            f"{trials:6,} trials: {each:.1f} ms to propose one, {own:.1f} own (at most {MOST_MS})"
        )
        found[trials] = {"own_ms": own, "propose_ms": 1000 * asked / trials}
    print(json.dumps({"workers": options.workers, "sampler": options.sampler, "trials": found}))


if __name__ == "__main__":
    main()
