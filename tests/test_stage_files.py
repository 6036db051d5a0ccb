"""Files of single stages, compiled by a stand-in for Google's compiler."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from stand_in_compiler import install, success, table
from tiny_conv import G, Op, T, conv_model, model_of

from tfedge.boards.edgetpu_rules import MAPPED
from tfedge.data.dataset import Split
from tfedge.errors import UserError
from tfedge.plan.stages.leaving import stage_files, unproven
from tfedge.tflite import card, staging
from tfedge.tflite.evaluation import evaluate
from tfedge.tflite.facts import facts

EXITS = {
    "signatures": ["exit_0", "exit_1"],
    "features": [[]],
    "measure": "confidence",
    "temperatures": [1.0, 1.0],
    "logits": [{"scale": 2.0, "zero": 3}] * 2,
    "points": [{"effort": 1, "thresholds": [2.0], "accuracy": 1, "shares": [0, 1], "mean_cost": 1}],
    "chosen": 0,
    "promise": {"max_drop": 0.005, "confidence": 0.95, "split": "tune", "inputs": 9},
}


def said(exits):
    feed = card.Input("image", (4, 4, 3), (0,) * 3, (255,) * 3, "bilinear", "stretch")
    made = card.Maker("0", "pets", "int8", "0" * 64)
    return card.Card(("cat", "dog", "eel"), feed, made, exits=exits)


@pytest.fixture
def content():
    bare = staging.cascade(conv_model(), conv_model())
    return card.write(bare, said(EXITS))


@pytest.fixture
def job(tmp_path):
    return SimpleNamespace(name="int8", out=tmp_path, made_by={"pipeline": "pets"})


def test_where_the_compiler_is_missing_each_stage_is_a_file_to_be_compiled(
    content, job, monkeypatch
):
    monkeypatch.setenv("PATH", str(job.out))
    (note,) = stage_files(content, job)
    assert "one file a stage, to be compiled" in note
    assert sorted(file.name for file in job.out.glob("*.tflite")) == [
        "pets_exit_0.tflite",
        "pets_exit_1.tflite",
    ]


def test_the_first_file_has_the_golden_vectors_of_all_exits(job, monkeypatch):
    monkeypatch.setenv("PATH", str(job.out))
    inputs = np.zeros((1, 4, 4, 3), np.uint8)
    golden = card.golden_npz(inputs, np.zeros((1, 3), np.int8), np.zeros((2, 1, 3), np.int8))
    told = replace(said(EXITS), golden=("0" * 64,))
    bare = staging.cascade(conv_model(), conv_model())
    stage_files(card.write(bare, told, {card.GOLDEN: golden}), job)
    first, second = (
        card.read((job.out / f"pets_exit_{number}.tflite").read_bytes(), "it") for number in (0, 1)
    )
    assert (first[0].golden, first[1][card.GOLDEN]) == (("0" * 64,), golden)
    assert (second[0].golden, set(second[1])) == ((), {card.LABELS})


def test_one_stage_is_not_measured_as_if_it_were_the_network(content, job, monkeypatch):
    monkeypatch.setenv("PATH", str(job.out))
    stage_files(content, job)
    nothing = Split(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1, np.int64))
    with pytest.raises(UserError, match="is stage 0 of a network, in a file of its own"):
        evaluate(job.out / "pets_exit_0.tflite", nothing, ("cat", "dog", "eel"), "test", None)


def test_compiled_stages_name_compiled_ones(content, job, monkeypatch, tmp_path):
    (graph,) = facts(conv_model(), "it").subgraphs
    ends = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    tensors = tuple(T(t.name, t.dtype, t.shape, None, t.scales, t.zero_points) for t in ends)
    made = model_of(
        G("", tensors, (Op("edgetpu-custom-op", (0,), (1,)),), (0,), (1,), signature=False)
    )
    rows = table(("CONV_2D", 1, MAPPED), ("RESHAPE", 1, MAPPED), ("FULLY_CONNECTED", 1, MAPPED))
    place = install(tmp_path / "bin", success(3), rows, output=made)
    monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)

    notes = stage_files(content, job)

    assert "exit_0: edgetpu_compiler 16.0.384591198 mapped 3 of 3 operators" in notes[0]
    assert "compiled, one file a stage" in notes[-1]
    for number, following in ((0, "pets_exit_1_edgetpu.tflite"), (1, None)):
        file = job.out / f"pets_exit_{number}_edgetpu.tflite"
        named, _ = card.read(file.read_bytes(), file)
        assert (named.exits["stage"], named.exits["next"]) == (number, following)
        assert facts(file.read_bytes(), file).custom_operators == ("edgetpu-custom-op",)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"temperatures": [1.0]}, "2 exits, but 1 temperatures"),
        ({"points": [{"thresholds": []}]}, "2 exits, but 0 thresholds"),
        ({"chosen": 1}, "point 1 of 1 is chosen"),
    ],
)
def test_a_card_whose_exits_contradict_one_another_is_not_written(change, problem):
    bare = staging.cascade(conv_model(), conv_model())
    with pytest.raises(ValueError, match=problem):
        card.write(bare, said(EXITS | change))


@pytest.mark.parametrize(
    ("promise", "at", "said"),
    [
        ({"max_drop": 0.01}, [0.9], []),
        (
            {"max_drop": 0.02},
            [2.0],
            ["cannot be proven with 140 of the 210 inputs of tune", "that takes 317 or so"],
        ),
        ({"max_drop": 0.0}, [2.0], ["none can; take a larger exit_max_drop;"]),
        ({"max_drop": 0.1}, [2.0], ["nothing that saves work was proven to keep", "0.1"]),
        ({"max_drop": 1.0}, [-1000.0], []),
        ({"mean_cost": 0.5}, [-1000.0], ["every input leaves at exit_0", "exit_mean_cost = 0.5"]),
        ({"mean_cost": 1.0}, [2.0], []),
    ],
)
def test_a_note_says_why_nothing_was_proven(promise, at, said):
    points = [{"effort": 1, "thresholds": at}]
    of = EXITS | {"points": points, "promise": promise | {"inputs": 140}}
    notes = unproven(of, 210)
    assert len(notes) == bool(said)
    for words in said:
        assert words in notes[0]
