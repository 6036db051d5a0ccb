"""Instruction counts by exit, of a cascade on an emulated Pi."""

import pytest

from tfedge.boards.cost import costs, stage_costs
from tfedge.progress import Silent
from tfedge.tflite import card, staging

pytestmark = pytest.mark.slow


def test_stages_cost_what_their_networks_cost_alone(apt, model):
    alone = card.strip(model.read_bytes())
    (expected,) = costs(alone, ("pi5",), "it", Silent())
    both = staging.cascade(alone, alone)
    whole, each = stage_costs(both, ("pi5",), "it", Silent())["pi5"]
    assert len(each) == 2
    for counted in (whole, *each):
        assert counted == pytest.approx(expected.instructions, rel=0.02)


def test_without_boards_nothing_is_counted(model):
    alone = card.strip(model.read_bytes())
    assert stage_costs(staging.cascade(alone, alone), (), "it", Silent()) == {}
