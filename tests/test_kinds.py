"""What stages make, and which of it others take, where a network has exits."""

import pytest
from test_pipeline import edit, load

from tfedge.errors import UserError
from tfedge.plan import kinds

EXITS = '[early]\nuse = "exits"\nof = "student"\ncount = 2\n\n'


@pytest.fixture
def early(project):
    """Give the student exits before it is pruned."""
    edit(project, "[sparse]", EXITS + "[sparse]")
    edit(project, 'use = "prune"\nof = "student"', 'use = "prune"\nof = "early"')
    return project


def test_exits_are_handed_on_from_stage_to_stage(early):
    stages = load(early).stages
    assert {name: kinds.exits_of(name, stages) for name in stages} == {
        "teacher": 1,
        "student": 1,
        "early": 3,
        "sparse": 3,
        "shared": 3,
        "aware": 3,
        "int8": 3,
        "tested": 3,
    }
    assert kinds.makes(stages["early"]) == "network"


OF_EARLY = 'use = "prune"\nof = "early"'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("count = 2", "count = 0", "[early] count: must be from 1 to 16, got 0"),
        ("count = 2", 'count = 3\npoints = ["a"]', "[early] count: is for exits without points"),
        ("count = 2", 'points = ["a", "b", "a"]', "[early] points: name 'a' more than once"),
        ("count = 2", 'head = "big"', "[early] head: must be one of pool, separable"),
        ("count = 2", "exit_weights = [1, 1]", "has 3 exits, the last included, got 2 weights"),
        ("count = 2", "exit_weights = [0, 0, 0]", "one at least must be above 0"),
        ("count = 2", "exit_weights = [1, -1, 1]", "exit_weights: must be from 0 to 1000000.0"),
        ("count = 2", "self_distillation = 2", "self_distillation: must be from 0 to 1"),
        (
            OF_EARLY,
            OF_EARLY + "\nexit_weights = [1, 2]",
            "[sparse] exit_weights: the network has 3 exits, the last included, got 2 weights",
        ),
        (
            OF_EARLY,
            'use = "prune"\nof = "student"\nself_distillation = 0.2',
            "[sparse] self_distillation: is for a network with exits",
        ),
        (
            "[int8]",
            '[more]\nuse = "exits"\nof = "early"\n\n[int8]',
            "[more] of: 'early' makes a network that has exits already",
        ),
        (
            "[int8]",
            '[more]\nuse = "exits"\nof = "aware"\n\n[int8]',
            "'aware' makes an 8-bit network, not a float network",
        ),
    ],
)
def test_a_mistake_about_exits_is_named_before_anything_runs(early, old, new, message):
    edit(early, old, new)
    with pytest.raises(UserError) as caught:
        load(early)
    assert message in str(caught.value)


def test_instructions_that_cannot_be_counted_here_are_refused_before_anything_runs(
    early, monkeypatch
):
    monkeypatch.setenv("PATH", "/nowhere")
    edit(early, 'use = "convert"', 'use = "convert"\nexit_cost = "pi5"')
    with pytest.raises(UserError, match=r"\[int8\] exit_cost"):
        load(early)


def test_clustered_weights_get_no_exits_for_these_would_move_them(project):
    edit(project, 'of = "shared"', 'of = "shared"\n\n[early]\nuse = "exits"\nof = "shared"')
    with pytest.raises(UserError, match="shared' makes weights share values, which this stage"):
        load(project)
