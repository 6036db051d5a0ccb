"""Proposals: the same whatever came between, and none of them worse for being told."""

import pytest

from tfedge.errors import UserError
from tfedge.plan import freeing
from tfedge.search.proposals import Candidate, Proposals, twins

pytestmark = pytest.mark.slow  # Optuna takes a second to import

FREED = freeing.read(
    {
        "student": {"width": [8, 12, 16], "rate": {"low": 1e-4, "high": 1e-1, "log": True}},
        "narrow": {"share": {"low": 0.1, "high": 0.9}},
    },
    "[search]",
    ["student", "narrow"],
).freed


def opened(store, sampler="tpe", seed=1, generation=4):
    manner = freeing.Manner(sampler=sampler, generation=generation, minimise=("bytes", "pi5"))
    return Proposals(FREED, manner, seed, "study", store)


def one_generation(proposals, first=None):
    generation = proposals.next(first)
    for one in generation:
        share, width = one.values["narrow.share"], one.values["student.width"]
        one.found = {"accuracy": width / 20 - share / 3, "broken": {"max_bytes": width - 14}}
        one.found |= {"epochs": 1}
    costs = [[one.values["student.width"] * (1 - one.values["narrow.share"]), 1.0]
             for one in generation]  # fmt: skip
    proposals.end(generation, costs)


def values(proposals):
    return [one.values for one in proposals.past]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_search_that_is_gone_on_with_proposes_what_an_undisturbed_one_does(tmp_path, sampler):
    whole = opened(tmp_path / "whole", sampler)
    for _ in range(6):
        one_generation(whole)
    for _ in range(6):
        one_generation(opened(tmp_path / "parts", sampler))
    parts = opened(tmp_path / "parts", sampler)
    assert values(parts) == values(whole)
    assert parts.past[3].found == whole.past[3].found


@pytest.mark.parametrize("lost", [5, 40, 900, 3000])
def test_a_generation_that_was_half_kept_is_proposed_again(tmp_path, lost):
    whole = opened(tmp_path / "whole")
    for _ in range(3):
        one_generation(whole)
    part = opened(tmp_path / "part")
    one_generation(part)
    one_generation(part)
    # The power goes while the journal is written: it lacks its last bytes, in the midst of a line.
    (tmp_path / "part").write_bytes((tmp_path / "part").read_bytes()[:-lost])
    again = opened(tmp_path / "part")
    assert len(again.past) == 4
    one_generation(again)
    one_generation(again)
    assert values(again) == values(whole)
    assert values(opened(tmp_path / "part")) == values(whole)


def test_another_seed_proposes_something_else(tmp_path):
    found = []
    for seed in (1, 2):
        proposals = opened(tmp_path / str(seed), seed=seed)
        one_generation(proposals)
        found.append(values(proposals))
    assert found[0] != found[1]


def test_the_file_s_own_values_are_the_first_candidate(tmp_path):
    proposals = opened(tmp_path / "study")
    own = {"student.width": 12, "student.rate": 0.01, "narrow.share": 0.5}
    one_generation(proposals, own)
    assert proposals.past[0].values == own


def test_proposals_turn_to_what_is_good(tmp_path):
    proposals = opened(tmp_path / "study", generation=10)
    for _ in range(8):
        one_generation(proposals)
    kept = [one.values["student.width"] <= 14 for one in proposals.past]
    # By chance two of three keep the constraint; it learns that 16 breaks it.
    assert sum(kept[40:]) > 34


def test_importances_name_what_decides(tmp_path):
    proposals = opened(tmp_path / "study", "random", generation=40)
    one_generation(proposals)
    for found in (proposals.importances(), proposals.importances(0)):
        assert min(found, key=found.get) == "student.rate"  # it has no part in either
    assert proposals.importances(1) == {}  # all cost alike


def test_equal_candidates_are_found():
    def one(number, width):
        return Candidate(number, {"width": width})

    past = [one(0, 8), one(1, 12)]
    now = [one(2, 12), one(3, 16), one(4, 16), one(5, 12.0)]
    assert list(twins(now, past)) == [(0, 1), (1, 3), (2, 3), (3, 5)]


def test_a_database_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match="--study: cannot read 'nonsense'"):
        opened("nonsense")
    with pytest.raises(UserError, match="--study: cannot be reached"):
        opened(f"sqlite:///{tmp_path}/no/such/folder.db")


def test_a_database_keeps_a_study(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    one_generation(opened(url))
    assert len(opened(url).past) == 4
