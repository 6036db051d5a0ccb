"""A build that is killed at any moment, again and again, ends as one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPO

pytestmark = [pytest.mark.slow, pytest.mark.very_slow]

KILLS = 30
BUILD = [sys.executable, "-m", "tfedge", "build", "pipelines/digits.toml", "--build-dir"]


def finished(place):
    return {folder.name for folder in place.glob("digits/*-????????") if folder.is_dir()}


def test_killed_at_30_random_moments_it_makes_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    subprocess.run([*BUILD, str(whole)], cwd=REPO, check=True, capture_output=True)
    seconds = time.monotonic() - began
    moments, had, log = random.Random(7), set(), []
    for _ in range(KILLS):
        # Most of a start goes by before anything is written; later moments are as many.
        moment = moments.uniform(0.02, 0.4) * seconds
        process = subprocess.Popen(
            [*BUILD, str(killed)], cwd=REPO, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        has = finished(killed)
        assert had <= has  # what was finished stays finished
        log.append(f"{moment:.1f} s: {process.returncode}, {len(has)} stages")
        had = has
    (tmp_path / "kills.txt").write_text("\n".join(log))
    last = [*BUILD, str(killed)]
    done = subprocess.run(last, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert finished(killed) == finished(whole)
    assert [line for line in log if ": -9," in line]
    files = [place / "digits/digits.tflite" for place in (whole, killed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list(killed.rglob("*.partial"))
    assert not list(killed.rglob("*.old"))
