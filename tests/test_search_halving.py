"""Which candidates go on from a rung."""

import numpy as np
import pytest

from tfedge.search import halving


def rows(*pairs):
    return np.array(pairs, float)


def test_the_front_holds_what_nothing_beats():
    values = rows((1, 9), (2, 5), (3, 6), (9, 1), (9, 2))
    assert halving.front(values).tolist() == [True, True, False, True, False]


def test_equal_candidates_do_not_beat_one_another():
    assert halving.front(rows((1, 1), (1, 1))).all()


def test_the_order_goes_front_by_front():
    values = rows((5, 5), (1, 2), (2, 1), (3, 3))
    assert halving.order(values).tolist()[2:] == [3, 0]


def test_within_a_front_the_ends_come_first_and_then_the_loneliest():
    # On one line: neighbours of (4, 6) are 6 apart in each figure, those of (1, 9) 4.
    values = rows((0, 10), (1, 9), (4, 6), (10, 0), (7, 3))
    assert halving.order(values).tolist() == [0, 3, 2, 4, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_a_comparison_of_all_pairs_finds(seed):
    values = np.random.default_rng(seed).integers(0, 6, (40, 3)).astype(float)
    beaten = [
        any(all(a <= b) and any(a < b) for a in values) for b in values
    ]  # a comparison in plain Python
    assert (halving.front(values) == ~np.array(beaten)).all()


def test_a_third_of_nine_goes_on():
    now = rows(*((place, place) for place in range(9)))
    assert halving.go_on(now[:0], now, 0.34) == [0, 1, 2]


def test_one_goes_on_however_few_there_are():
    assert halving.go_on(rows()[:0].reshape(0, 2), rows((1, 1), (2, 2)), 0.34) == [0]


def test_those_of_earlier_generations_take_places():
    earlier = rows((0, 0), (1, 1), (8, 8))
    now = rows((2, 2), (3, 3), (4, 4))
    assert halving.go_on(earlier, now, 0.34) == []
    assert halving.go_on(earlier, now, 0.5) == [0]


@pytest.mark.parametrize("seed", range(3))
def test_over_many_generations_no_more_than_the_share_goes_on(seed):
    chance = np.random.default_rng(seed)
    earlier, gone_on = np.zeros((0, 2)), 0
    for _ in range(30):
        now = chance.normal(size=(8, 2))
        gone_on += len(halving.go_on(earlier, now, 0.34))
        earlier = np.concatenate([earlier, now])
    assert 0 < gone_on <= 0.34 * len(earlier)
