"""The exact tests behind a promise, against all outcomes counted out."""

import itertools
from math import comb

import numpy as np
import pytest

from tfedge.tflite import promises


def test_one_answer_that_is_the_same_says_little_worked_out_by_hand():
    # If a drop of 0.1 is all there is, one answer is lost with 0.1: the p-value is 0.9, and more
    # of other shares that differ cannot make "nothing lost" likelier than 1 - (0.1 + share) / 2.
    assert promises.drop(0, 0, 1, 0.1) == pytest.approx(0.9 + 0.003)


def test_two_answers_that_are_the_same_worked_out_by_hand():
    # Not more lost than gained unless both are lost, or one and the other is the same.  Where 0.1
    # differ, and are all lost: 1 - 0.1 ** 2 - 2 * 0.1 * 0.9.  At 0.5 it is 0.61, at 1 0.6975.
    assert promises.drop(0, 0, 2, 0.1) == pytest.approx(0.81 + 0.003)


def outcomes(count, share, most):
    """Return {(lost, gained): probability}, each of the 3 ** count outcomes counted one by one."""
    lost, gained = (share + most) / 2, (share - most) / 2
    chances = {1: lost, -1: gained, 0: 1 - share}
    found = {}
    for each in itertools.product(chances, repeat=count):
        key = (each.count(1), each.count(-1))
        found[key] = found.get(key, 0) + np.prod([chances[one] for one in each])
    return found


@pytest.mark.parametrize(("share", "most"), [(0.3, 0.1), (0.6, 0.2), (0.05, 0.05)])
@pytest.mark.parametrize("difference", [-3, -1, 0, 1, 2])
def test_the_distribution_of_the_difference_is_that_of_all_outcomes(share, most, difference):
    known = outcomes(7, share, most)
    expected = sum(p for (lost, gained), p in known.items() if lost - gained <= difference)
    found = promises._at_most(difference, 7, np.array([share]), most)
    assert found == pytest.approx([expected], abs=1e-9)


def trinomial(count, share, most):
    """Yield (lost, gained, probability) of all that is not too unlikely."""
    p, q = (share + most) / 2, (share - most) / 2
    for lost in range(count + 1):
        for gained in range(count - lost + 1):
            ways = comb(count, lost) * comb(count - lost, gained)
            chance = ways * p**lost * q**gained * (1 - share) ** (count - lost - gained)
            if chance > 1e-9:
                yield lost, gained, chance


@pytest.mark.parametrize(("count", "most"), [(40, 0.05), (150, 0.02)])
@pytest.mark.parametrize("share", [1, 2, 4, 10])
def test_a_drop_of_just_too_much_passes_in_at_most_one_of_20(count, most, share):
    """All outcomes counted: no simulation, no luck."""
    wrongly = sum(
        chance
        for lost, gained, chance in trinomial(count, most * share, most)
        if lost - gained <= count * most and promises.drop(lost, gained, count, most) <= 0.05
    )
    assert wrongly <= 0.05


def test_the_test_sees_what_is_kept():
    rng, passed = np.random.default_rng(0), 0
    for _ in range(200):  # nothing is lost on average, 2 % of the answers differ
        lost, gained, _ = rng.multinomial(4000, [0.01, 0.01, 0.98])
        passed += promises.drop(lost, gained, 4000, 0.005) <= 0.05
    # A normal approximation: (0.005 - 1.645 s) / s with s = sqrt(0.02 / 4000): passes in 72 %.
    assert passed > 120


def test_p_values_grow_with_what_is_lost_and_fall_with_what_is_gained():
    values = [promises.drop(lost, 5, 1000, 0.01) for lost in range(0, 30, 2)]
    assert values == sorted(values)
    values = [promises.drop(10, gained, 1000, 0.01) for gained in range(0, 30, 2)]
    assert values == sorted(values, reverse=True)


def test_the_mean_of_zeros_and_ones_is_binomial_worked_out_by_hand():
    # At most 1 of 4 at 0.5: (1 + 4) / 16.
    assert promises.mean(np.array([0, 0, 1.0, 0]), 0.5) == pytest.approx(5 / 16)


@pytest.mark.parametrize("true", [0.2, 0.5])
def test_a_mean_of_just_too_much_passes_in_at_most_one_of_20(true):
    rng, wrongly = np.random.default_rng(0), 0
    for _ in range(2000):
        values = rng.choice([0, 0.5, 1], 300, p=[1 - 1.5 * true, true, true / 2])
        wrongly += promises.mean(values, true) <= 0.05
    assert wrongly <= 0.05 * 2000
    values = rng.choice([0, 0.5, 1], 3000, p=[1 - 1.5 * true, true, true / 2])
    assert promises.mean(values, true + 0.05) <= 0.05


def test_what_comes_after_the_first_doubt_is_not_looked_at():
    def ordered():
        yield "a", 0.01
        yield "b", 0.05
        yield "c", 0.06
        raise AssertionError("read on")

    assert promises.proven(ordered()) == ["a", "b"]


@pytest.mark.parametrize("most", [0.005, 0.02])
def test_the_fewest_inputs_are_those_with_which_nothing_lost_is_a_proof(most):
    # Without answers that differ it is (1 - most) ** count, but for the few that may be missed.
    found = promises.fewest(most)
    assert (1 - most) ** found + 0.003 <= 0.05
    assert promises.drop(0, 0, found, most) <= 0.05 < promises.drop(0, 0, found - 1, most)


def test_no_number_of_inputs_proves_that_nothing_is_lost_ever():
    assert promises.fewest(0) is None
