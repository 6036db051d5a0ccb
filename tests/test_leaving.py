"""A cascade through the command line, and what is said of leaving it early."""

import json
from dataclasses import replace

import numpy as np
import pytest
from faint import PIPELINE, build, finished, opened, stages, write
from scipy.special import softmax
from scipy.stats import entropy

from tfedge import paths
from tfedge.cli import main
from tfedge.tflite import card, leaving, staging
from tfedge.tflite.facts import facts
from tfedge.tflite.running import answers


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("faint"))


@pytest.fixture(scope="module")
def split(made):
    """The test split: normalised inputs and classes."""
    data = opened(made.folder)
    return data.normalise(data.test.inputs), data.test.classes


def in_numpy(measure, logits, temperature):
    """Work out how sure an exit is, as textbooks do."""
    shares = softmax(logits.astype(np.float64) / temperature, axis=-1)
    if measure == "entropy":
        return -entropy(shares, axis=-1)
    ordered = np.sort(shares, axis=-1)
    return ordered[:, -1] - (ordered[:, -2] if measure == "margin" else 0)


@pytest.mark.slow
def test_leaving_is_measured_as_the_two_files_and_a_softmax_in_numpy_have_it(made, split):
    x, classes = split
    exits = card.read(made.file.read_bytes(), made.file)[0].exits
    folders = {p.parent.name.rsplit("-", 1)[0]: p for p in made.folder.rglob("model.tflite")}
    small, large = (answers(card.strip(folders[n].read_bytes()), x) for n in ("small", "large"))
    said = made.report["tested"]["leaving"]
    sure = in_numpy(exits["measure"], small, exits["temperatures"][0])
    early = sure >= said["thresholds"][0]
    right = np.where(early, small.argmax(axis=-1), large.argmax(axis=-1)) == classes
    assert said["exits"][0]["share"] == pytest.approx(early.mean(), abs=2 / len(x))
    assert said["accuracy"] == pytest.approx(right.mean(), abs=2 / len(x))
    assert said["last_accuracy"] == pytest.approx((large.argmax(axis=-1) == classes).mean())
    assert 0.05 < early.mean() < 0.95
    assert said["accuracy_low"] < said["accuracy"] < said["accuracy_high"]
    assert made.report["tested"]["accuracy"] == said["last_accuracy"]


@pytest.mark.slow
def test_cost_is_what_the_two_networks_multiply(made):
    small, large = (made.report[name]["macs"] for name in ("small", "large"))
    said = made.report["tested"]["leaving"]
    early = said["exits"][0]["share"]
    assert said["cost"]["mean"] == pytest.approx(
        early * small / large + (1 - early) * (small + large) / large, rel=1e-4
    )
    assert said["cost"]["worst"] == pytest.approx((small + large) / large, rel=1e-4)
    assert made.report["both"]["macs"] == large


@pytest.mark.slow
def test_the_card_says_when_to_leave(made):
    exits = card.read(made.file.read_bytes(), made.file)[0].exits
    assert exits["signatures"] == ["exit_0", "exit_1"]
    assert exits["features"] == [[]]
    efforts = [point["effort"] for point in exits["points"]]
    assert efforts == sorted(efforts)
    assert (efforts[0], efforts[-1]) == (0, 1)
    assert exits["promise"]["max_drop"] == 0.03
    assert exits["promise"]["confidence"] == 0.95
    known = staging.stages(made.file.read_bytes())
    quantised = [(one["scale"], one["zero"]) for one in exits["logits"]]
    assert quantised == [(one.scale, one.zero_point) for one in known]
    points = made.report["tested"]["leaving"]["points"]
    assert [point["shares"] for point in (points[0], points[-1])] == [[1, 0], [0, 1]]
    assert points[-1]["mean_cost"] == 1


@pytest.mark.slow
def test_a_stage_after_a_cascade_takes_the_large_network_for_it(made, split):
    x, _ = split
    found = leaving.stage_outputs(made.file.read_bytes(), x[:20])
    scale, zero = found.quantisation[-1]
    real = (found.logits[-1].astype(np.float32) - np.float32(zero)) * np.float32(scale)
    assert np.array_equal(answers(card.strip(made.file.read_bytes()), x[:20]), real)


@pytest.mark.slow
def test_the_board_leaves_where_the_figures_say(made):
    test = opened(made.folder).test
    model = paths.beside("exits").Staged(paths.runner().Classifier(str(made.file), threads=1))
    answered, left = [], []
    for picture in test.inputs:
        answered.append(int(model.raw(np.asarray(picture)).argmax()))
        left.append(model.answered)
    said = made.report["tested"]["leaving"]
    assert np.mean(np.array(answered) == test.classes) == said["accuracy"]
    assert np.mean(np.array(left) == 0) == said["exits"][0]["share"]


@pytest.mark.slow
def test_inspect_says_when_it_is_left(made, capsys):
    assert main(["inspect", str(made.file)]) == 0
    said = capsys.readouterr().out
    assert "exits" in said
    assert "max_drop 0.03, confidence 0.95, on tune" in said


@pytest.mark.slow
def test_evaluate_measures_leaving_on_any_data(made, capsys):
    data = ["--data", str(made.folder / "faint.toml"), "--build-dir", str(made.folder / "build")]
    assert main(["evaluate", str(made.file), *data, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["leaving"]
    said = made.report["tested"]["leaving"]
    assert [found[name] for name in ("accuracy", "exits", "points", "cost")] == [
        said[name] for name in ("accuracy", "exits", "points", "cost")
    ]
    assert main(["evaluate", str(made.file), *data]) == 0
    assert f"left early {100 * said['accuracy']:.2f} % right" in capsys.readouterr().out


@pytest.mark.slow
def test_evaluate_counts_multiply_accumulates_whatever_the_card_counted(made, tmp_path, capsys):
    known, files = card.read(made.file.read_bytes(), made.file)
    other = replace(known, exits={**known.exits, "costs": [0.5, 2.0]})  # Arm instructions, say
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(card.write(card.strip(made.file.read_bytes()), other, files))
    data = ["--data", str(made.folder / "faint.toml"), "--build-dir", str(made.folder / "build")]
    assert main(["evaluate", str(copy), *data, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["leaving"]
    assert found["cost"] == made.report["tested"]["leaving"]["cost"]


@pytest.mark.slow
def test_check_knows_the_exits_and_the_edge_tpu_asks_for_a_file_a_stage(made, capsys):
    assert main(["check", str(made.file), "--target", "pi5"]) == 0
    assert "has 2 exits (exit_0, exit_1)" in capsys.readouterr().out
    assert main(["check", str(made.file), "--target", "coral"]) == 1
    assert 'a convert stage with target = "coral" writes a file a stage' in capsys.readouterr().out


@pytest.mark.slow
def test_for_coral_each_stage_is_a_file_whose_card_names_the_next(made, monkeypatch):
    monkeypatch.setenv("PATH", str(made.folder))
    toml = made.folder / "faint.toml"
    try:
        assert build(toml, "--set", "both.target=coral") == 0
        parts = sorted(made.file.parent.glob("faint_exit_*.tflite"))
        assert [part.name for part in parts] == ["faint_exit_0.tflite", "faint_exit_1.tflite"]
        cards = [card.read(part.read_bytes(), part)[0] for part in parts]
        assert [one.exits["stage"] for one in cards] == [0, 1]
        assert [one.exits["next"] for one in cards] == ["faint_exit_1.tflite", None]
        assert [len(facts(part.read_bytes(), part).subgraphs) for part in parts] == [1, 1]
        for part in parts:
            assert main(["check", str(part), "--target", "coral"]) == 0
    finally:
        assert build(toml) == 0
    assert not list(made.file.parent.glob("faint_exit_*.tflite"))


@pytest.mark.slow
def test_a_mean_cost_is_kept_on_tune(made, capsys):
    toml = made.folder / "faint.toml"
    toml.write_text(PIPELINE.replace("exit_max_drop = 0.03", "exit_mean_cost = 0.5"))
    try:
        assert build(toml) == 0
        assert stages(made.folder)["both"]["leaving"]["cost"]["mean"] <= 0.5
    finally:
        toml.write_text(PIPELINE)
        assert build(toml) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("exit_max_drop = 0.03", "exit_max_drop = 1.5", "exit_max_drop: must be from 0 to 1"),
        (
            "exit_max_drop = 0.03",
            "exit_max_drop = 0.03\nexit_mean_cost = 0.5",
            "exit_mean_cost: stands beside exit_max_drop",
        ),
        ('small = "small"', 'small = "large"', "[both] small: is 'large', as is of"),
        ('small = "small"', 'small = "narrow"', "'narrow' makes a float network, not a .tflite"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(tmp_path, capsys, old, new, message):
    assert old in PIPELINE
    assert build(write(tmp_path, PIPELINE.replace(old, new, 1))) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "build").exists()
