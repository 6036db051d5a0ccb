"""A network that two processors of this machine train: as one does."""

import json
import os
import subprocess
import sys

import pytest
from conftest import REPO

pytestmark = pytest.mark.slow

STAGES = (
    *("train", "bfloat16", "distill", "lessons"),
    *("prune", "cluster", "exits", "narrow"),
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `two_processors.py` tells, by name."""
    program = [sys.executable, str(REPO / "tests/two_processors.py")]
    paths = {"PYTHONPATH": os.pathsep.join((str(REPO), str(REPO / "tests")))}
    done = subprocess.run(
        [*program, str(tmp_path_factory.mktemp("two"))],
        env=os.environ | paths,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr[-3000:]
    return {line["name"]: line for line in map(json.loads, lines)}


def test_each_processor_gets_its_part_of_every_batch(found):
    # Even rows weigh 1 and odd ones 3; of 5, the first part has 2 of 2.5 and the other 3.
    rows, weights = zip(*found["parts"]["parts"], strict=True)
    assert list(rows) == [[[0, 1, 2], [3, 4, 5]], [[6, 7], [8, 9, 10]]]
    assert weights[0] == [[1, 3, 1], [3, 1, 3]]
    assert weights[1][0] == pytest.approx([0.8, 2.4])
    assert weights[1][1] == pytest.approx([1.2, 3.6, 1.2])


def test_a_loss_of_ones_own_counts_by_its_share(found):
    assert found["parts"]["share"] == [1.5, 1.5]


@pytest.mark.parametrize("stage", STAGES)
def test_two_processors_train_what_one_does(found, stage):
    one, two = found[stage]["losses"]
    tolerance = 0.05 if stage == "bfloat16" else 1e-3  # its sums have two decimal digits
    assert one[0] != pytest.approx(one[-1], abs=0.02)
    assert two == pytest.approx(one, abs=tolerance)
    assert found[stage]["tune"][1] == pytest.approx(found[stage]["tune"][0], abs=10 * tolerance)


def test_parts_that_are_not_equal_count_by_what_is_in_them(found):
    one, two = found["uneven"]["tune"]
    assert two == pytest.approx(one, abs=1e-3)
    assert found["uneven"]["weights"] < 5e-3


@pytest.mark.parametrize("stage", STAGES)
def test_the_bar_is_told_a_mean_and_no_sum_over_processors(found, stage):
    # Of one's own part of the batches.
    assert found[stage]["told"] == pytest.approx(found[stage]["losses"][1][-1], rel=0.3)


def test_with_dropout_they_draw_otherwise_and_learn(found):
    one, two = found["dropout"]["losses"]
    assert two != pytest.approx(one, abs=1e-3)
    assert two[-1] < two[0]


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_made_knows_nothing_of_processors(found, stage):
    assert found[stage]["synchronized"] == []


def test_a_batch_that_cannot_be_split_is_refused(found):
    odd, rest = found["refused"]["said"]
    assert odd.startswith("batch: 49 inputs a step cannot be split evenly over 2 processors")
    assert "write a multiple of 2, such as 50" in odd
    assert rest.startswith("batch: 62 leaves 1 of 125 inputs for an epoch's last step")
