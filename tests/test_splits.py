import hashlib
from collections import Counter

import pytest

from tfedge.data.choices import Choices
from tfedge.data.splits import classes_without_examples, repeated, split_of
from tfedge.errors import UserError


def test_the_split_is_where_the_names_hash_falls_between_0_and_1():
    for number in range(300):
        name = f"cat/{number}.jpg"
        place = int(hashlib.sha256(name.encode()).hexdigest(), 16) / 16**64
        expected = "test" if place < 0.2 else "tune" if place < 0.5 else "train"
        assert split_of(name, tune_share=0.3, test_share=0.2) == expected


def test_the_shares_are_kept_within_what_chance_allows():
    counts = Counter(split_of(str(row), 0.1, 0.2) for row in range(10_000))
    # Four standard deviations of a binomial: 4 * sqrt(10_000 * 0.2 * 0.8) = 160.
    assert abs(counts["test"] - 2000) < 160
    assert abs(counts["tune"] - 1000) < 120


def test_another_share_of_tune_leaves_test_alone():
    def test_split(share):
        return {row for row in range(500) if split_of(str(row), share, 0.2) == "test"}

    assert test_split(0.0) == test_split(0.5) != set()


def test_a_name_that_is_not_text_has_a_split_too():
    assert split_of("cat/\udcff.jpg", 0, 0) == "train"


def test_of_repeated_content_the_copies_in_test_are_kept_then_those_in_tune():
    splits = ["train", "test", "tune", "test", "train", "tune", "train", "train"]
    contents = ["a", "a", "a", "a", "b", "b", "c", "c"]
    found = repeated(splits, contents)
    assert set(found) == {0, 2, 4}
    assert found[0] in (1, 3)
    assert found[2] in (1, 3)
    assert found[4] == 5


def test_classes_are_named_with_the_splits_that_lack_them():
    lines = classes_without_examples(
        ["ant", "bee", "cow"], ["train", "tune", "test", "tune"], ["ant", "ant", "ant", "bee"]
    )
    assert lines == ["bee: none in train, test", "cow: none at all"]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.1), (0.1, -0.1), (0.9, 0.2)])
def test_shares_that_leave_nothing_to_train_on_are_refused(shares):
    with pytest.raises(UserError, match="must leave something to train on"):
        Choices(*shares)
