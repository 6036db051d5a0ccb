"""What the runner is like after a hundred thousand answers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from real_runtimes import RUNTIMES, environment_with
from tiny_board import DEVICE, pixels, write

pytestmark = pytest.mark.slow
MOST_KIB = 1024  # a leak of 12 bytes an answer would be more

CODE = """
import sys
import numpy as np
import infer

def resident_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))

model, images = infer.Classifier(sys.argv[1], threads=1), np.load(sys.argv[2])
for number in range(1, 100_001):
    model.classify(images[number % len(images)], 1 + number % 3)
    if number == 10_000:
        early = resident_kib()
print(resident_kib() - early)
"""


@pytest.mark.parametrize("package", RUNTIMES)
@pytest.mark.parametrize("scale", [1 / 255, 0.007])
def test_memory_does_not_grow_over_a_hundred_thousand_answers(tmp_path, package, scale):
    model = write(tmp_path, (8, 8, 3), input_scale=scale)
    np.save(tmp_path / "x.npy", np.stack([pixels(seed, (8, 8, 3)) for seed in range(7)]))
    done = subprocess.run(
        [sys.executable, "-c", CODE, model, tmp_path / "x.npy"],
        env=environment_with(package),
        cwd=DEVICE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < MOST_KIB
