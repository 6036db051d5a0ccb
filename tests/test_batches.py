import dataclasses

import numpy as np
import pytest
from small_data import stripes

from tfedge.data.dataset import Data, Split

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def b():
    from tfedge.training import batches

    return batches


def test_evaluation_shows_a_split_in_its_order_normalised(b):
    data = dataclasses.replace(stripes(tune=300), mean=(99.5,), std=(31.25,))
    parts = list(b.evaluation_batches(data, data.tune).as_numpy_iterator())
    assert [len(x) for x, _ in parts] == [256, 44]
    inputs, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert np.array_equal(inputs, data.normalise(data.tune.inputs))
    assert np.array_equal(targets, np.eye(4)[data.tune.classes])


@pytest.mark.parametrize("augment", [(), ("mixup",)])
def test_arrays_of_floats_are_shown_as_well(b, augment):
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 3, (20, 12, 3)).astype(np.float32), np.arange(20) % 2
    split = Split(x, y)
    data = Data(split, split, split, ("a", "b"), "array", (5.0, 4.0, 3.0), (1.0, 2.0, 3.0))
    options = {"batch": 20, "seed": 1, "first_epoch": 0, "epochs": 1}
    ((inputs, targets),) = b.training_batches(data, augment, **options).as_numpy_iterator()
    assert inputs.dtype == targets.dtype == np.float32
    mean = data.normalise(x).mean(axis=0)
    if not augment:
        assert inputs.mean(axis=0) == pytest.approx(mean, abs=1e-5)
    assert targets.sum() == pytest.approx(20)


def test_the_largest_seed_works_and_a_users_function_gets_int32(b):
    kinds = []

    def watch(images, seed):
        kinds.append((seed.dtype.name, tuple(seed.shape)))
        return images

    data = stripes(train=20)
    options = {"batch": 20, "seed": 2**31 - 1, "first_epoch": 0, "epochs": 1}
    assert len(list(b.training_batches(data, (watch, "crop"), **options))) == 1
    assert kinds == [("int32", (2,))] * 2  # once to try it, once for the graph
