"""How sure an exit is: device/exits.py against softmaxes of numpy and of scipy."""

from decimal import Decimal, getcontext

import numpy as np
import pytest
from beside import beside
from scipy.special import softmax
from scipy.stats import entropy

SCALE, TEMPERATURE = 0.1, 1.7


@pytest.fixture(scope="module")
def exits():
    return beside("exits")


def logits(count=500, classes=10, seed=0):
    return np.random.default_rng(seed).integers(-128, 128, (count, classes)).astype(np.int8)


def shares(raw, scale=SCALE, temperature=TEMPERATURE):
    return softmax(raw.astype(np.float64) * scale / temperature, axis=-1)


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize(
    ("scale", "temperature"), [(0.1, 1.7), (0.02, 0.5), (1.3, 0.05), (1e-4, 9)]
)
def test_measures_are_those_of_the_softmax(exits, classes, scale, temperature):
    raw = logits(300, classes)
    p = np.sort(shares(raw, scale, temperature))
    expected = {"confidence": p[:, -1], "margin": p[:, -1] - p[:, -2], "entropy": -entropy(p.T)}
    for name in exits.MEASURES:
        found = exits.Measure(name, scale, temperature)(raw)
        assert found.dtype == np.float32
        assert found == pytest.approx(expected[name], abs=2e-7 * max(1, np.log(classes)) + 4e-6)


def test_confidence_of_two_classes_is_the_logistic_function_worked_out_by_hand(exits):
    # Ten steps of 0.2 at temperature 2 apart: 1 / (1 + exp(-1)).
    found = exits.Measure("confidence", 0.2, 2.0)(np.array([3, 13], np.int8))
    assert found == pytest.approx(0.7310586, abs=1e-7)


@pytest.mark.parametrize("name", ["confidence", "margin", "entropy"])
def test_one_input_and_many_and_any_order_of_classes_give_the_same_bits(exits, name):
    measure, raw = exits.Measure(name, SCALE, TEMPERATURE), logits(200, 300)
    expected = measure(raw)
    assert np.array_equal([measure(row) for row in raw], expected)
    assert np.array_equal(measure(raw[:, ::-1]), expected)
    assert np.array_equal(measure(np.asfortranarray(raw)), expected)
    mixed = raw[:, np.random.default_rng(1).permutation(300)]
    assert np.array_equal(measure(mixed), expected)


@pytest.mark.parametrize("name", ["confidence", "margin", "entropy"])
def test_it_is_that_of_50_digits(exits, name):
    getcontext().prec = 50
    measure, wrong = exits.Measure(name, SCALE, TEMPERATURE), 0
    steepness = Decimal(SCALE / TEMPERATURE)
    for row in logits(40, 8, seed=3):
        weights = [(-steepness * int(row.max() - value)).exp() for value in row.astype(int)]
        p = sorted((w / sum(weights) for w in weights), reverse=True)
        expected = {"confidence": p[0], "margin": p[0] - p[1]}.get(
            name, sum(each * each.ln() for each in p)
        )
        wrong = max(wrong, abs(float(measure(row)) - float(expected)))
    assert wrong < 3e-7


@pytest.mark.parametrize("name", ["confidence", "margin", "entropy"])
def test_never_and_always_are_beyond_every_measure(exits, name):
    raw = np.array([[127, -128, -128], [5, 5, 5]], np.int8)
    found = exits.Measure(name, 1.0, 0.05)(raw)
    assert not exits.sure(found, exits.NEVER).any()
    assert exits.sure(found, exits.ALWAYS).all()


def test_the_first_exit_that_is_sure_answers_or_else_the_last(exits):
    measures = [np.float32([0.9, 0.5, 0.5, 0.2]), np.float32([0.9, 0.9, 0.1, 0.5])]
    assert exits.leaving(measures, [0.8, 0.5]).tolist() == [0, 1, 2, 1]
    assert exits.leaving(measures, [exits.NEVER, exits.ALWAYS]).tolist() == [1, 1, 1, 1]


def test_a_threshold_of_more_digits_than_float32_has_takes_one_exit_everywhere(exits):
    measure = exits.Measure("confidence", SCALE, TEMPERATURE)(logits(50))
    for value in measure:
        assert exits.sure(measure, float(value))[measure == value].all()
        assert exits.sure(value, float(value))
        assert exits.sure(value, float(str(value)))


@pytest.mark.parametrize(("effort", "point"), [(0, 0), (0.3, 1), (0.29, 0), (0.99, 1), (1, 2)])
def test_an_effort_takes_the_most_effortful_point_within_it(exits, effort, point):
    assert exits.point_of([{"effort": 0.0}, {"effort": 0.3}, {"effort": 1.0}], effort) == point
