"""Instruction counts of an emulated Pi 4 and Pi 5."""

import json
import shutil

import pytest
from conftest import STRIPES

from tfedge.boards import pi
from tfedge.boards.cost import costs, counted_once
from tfedge.cli import main
from tfedge.progress import Silent
from tfedge.tflite import card

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(apt, model):
    counted = costs(model.read_bytes(), tuple(pi.BOARDS), model, Silent(), by_operator=True)
    return {cost.board: cost for cost in counted}


def test_the_same_model_costs_the_same_again(found, model):
    for cost in costs(model.read_bytes(), tuple(pi.BOARDS), model, Silent()):
        assert cost.instructions == pytest.approx(found[cost.board].instructions, rel=0.01)


def test_the_pi_5_multiplies_int8_in_fewer_instructions(found):
    convolutions = {
        name: sum(step.instructions for step in cost.steps if step.name == "CONV_2D")
        for name, cost in found.items()
    }
    assert 0 < convolutions["pi5"] < 0.8 * convolutions["pi4"]


def test_a_file_is_counted_once_and_with_another_card_not_again(
    found, model, tmp_path, monkeypatch
):
    count = counted_once(model, "pi5", Silent())
    assert count == pytest.approx(found["pi5"].instructions, rel=0.01)
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(card.strip(model.read_bytes()))
    monkeypatch.setattr("tfedge.boards.cost.costs", None)
    assert counted_once(bare, "pi5", Silent()) == count


@pytest.mark.parametrize("board", pi.BOARDS)
def test_the_operators_add_up_to_nearly_the_whole(found, board):
    assert found[board].covered == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("board", pi.BOARDS)
def test_every_operator_is_listed_and_the_convolutions_cost_most(found, board):
    names = [step.name for step in found[board].steps]
    assert names.count("CONV_2D") == 2
    assert names[-1] == "FULLY_CONNECTED"
    costliest = max(found[board].steps, key=lambda step: step.instructions)
    assert costliest.name == "CONV_2D"


def test_evaluate_brings_the_counts_into_the_report_and_its_ladder(apt, built, found, tmp_path):
    shutil.copytree(built.parent, tmp_path / "build")
    wish = 'tested.cost=["pi4", "pi5"]'
    pipeline = ["build", str(STRIPES / "stripes.toml"), "--build-dir", str(tmp_path / "build")]
    assert main([*pipeline, "--set", wish]) == 0
    folder = tmp_path / "build" / "stripes"
    *others, tested = json.loads((folder / "report.json").read_text())["stages"]
    for name, cost in found.items():
        assert tested[f"arm_{name}"] == pytest.approx(cost.instructions, rel=0.01)
        assert all(f"arm_{name}" not in stage for stage in others)
    assert "Pi 4 instr. | Pi 5 instr." in (folder / "report.md").read_text()
