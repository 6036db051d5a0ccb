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
    made = b.training_batches(data, augment, b.Order(20, 20, 1), first_epoch=0, epochs=1)
    ((inputs, targets),) = made.as_numpy_iterator()
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
    order = b.Order(20, 20, 2**31 - 1)
    made = b.training_batches(data, (watch, "crop"), order, first_epoch=0, epochs=1)
    assert len(list(made)) == 1
    assert kinds == [("int32", (2,))] * 2  # once to try it, once for the graph


def test_with_views_an_epoch_shows_the_batches_of_the_one_that_came_so_many_before(b):
    order, fresh = b.Order(1000, 10, 3, views=4), b.Order(1000, 10, 3)
    assert order.steps == 100

    def epoch(order, number):
        return [order.number(step) for step in range(100 * number, 100 * (number + 1))]

    for number in range(4):
        assert epoch(order, number) == epoch(fresh, number)
    for number in range(4, 12):
        assert sorted(epoch(order, number)) == epoch(fresh, number % 4)
    orders = {tuple(np.mod(epoch(order, number), 100)) for number in range(3, 12)}
    assert len(orders) == 9
    assert np.array_equal(
        np.sort(np.concatenate([order.rows(n) for n in range(300, 400)])), range(1000)
    )


def test_a_batch_that_comes_back_is_changed_as_the_first_time(b):
    data = stripes(train=50)
    order = b.Order(50, 16, 3, views=2)
    augment = ("flip", "crop", "colour", "cutout", "mixup")
    made = b.training_batches(data, augment, order, first_epoch=0, epochs=3, numbered=True)
    shown = [(int(number), x, y) for (x, number), y in made.as_numpy_iterator()]
    first = {number: (x, y) for number, x, y in shown[:8]}
    assert sorted(number for number, _, _ in shown[8:]) == [0, 1, 2, 3]
    for number, x, y in shown[8:]:
        assert np.array_equal(x, first[number][0])
        assert np.array_equal(y, first[number][1])
