"""A network with exits through the command line, trained in 8 bits, to a file of stages."""

import io

import numpy as np
import pytest
from faint import build, finished, opened, write

from tfedge.tflite import card, exits, leaving, staging
from tfedge.tflite.facts import facts

PIPELINE = """
[data]
use = "faint.py:stripes"
count = 1600

[settings]
seed = 7

[plain]
use = "train"
model = "models/small.py:stack"
widths = [16, 24]
epochs = 2
batch = 64
rate = 6e-3

[early]
use = "exits"
of = "plain"
count = 1
epochs = 3
batch = 64
rate = 3e-3

[aware]
use = "qat"
of = "early"
epochs = 1
batch = 64

[int8]
use = "convert"
of = "aware"
calibrate = 100
exit_mean_cost = 0.9

[other]
use = "convert"
of = "plain"
calibrate = 100

[tested]
use = "evaluate"
of = "int8"
cost = []
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("faint"), PIPELINE)


@pytest.fixture(scope="module")
def data(made):
    return opened(made.folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("new", "message"),
    [
        ('points = ["re_lu_9"]', "[early] points: network 'model' has no layer 're_lu_9'"),
        ('points = ["re_lu", "conv2d_1"]', "[early] points: 'conv2d_1' is no place for an exit"),
        ("count = 9", "[early] network 'model': has 2 places for early exits"),
    ],
)
def test_a_place_that_is_none_is_told_before_the_network_is_trained(tmp_path, capsys, new, message):
    assert build(write(tmp_path, PIPELINE.replace("count = 1\n", f"{new}\n"))) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "epoch" not in said


@pytest.mark.slow
def test_each_exit_of_the_file_answers_as_the_networks_own(made, data):
    from tfedge.networks.saving import load_model
    from tfedge.training.fitting import answers_of

    (network,) = made.folder.rglob("aware-*/model.h5")
    expected = answers_of(load_model(network), data, data.test)
    found = leaving.stage_outputs(made.file.read_bytes(), map(data.normalise, data.test.inputs))
    assert len(found.logits) == len(expected) == 2
    for ours, theirs in zip(found.logits, expected, strict=True):
        assert np.mean(ours.argmax(axis=-1) == theirs.argmax(axis=-1)) > 0.96


@pytest.mark.slow
def test_what_each_exit_answers_is_recorded_for_the_selftest(made, data):
    _, files = card.read(made.file.read_bytes(), made.file)
    with np.load(io.BytesIO(files[card.GOLDEN])) as golden:
        inputs, outputs, each = (golden[name] for name in ("inputs", "outputs", "exits"))
    assert each.shape == (2, len(inputs), len(data.labels))
    assert np.array_equal(each[-1], outputs)
    found = leaving.stage_outputs(made.file.read_bytes(), map(data.normalise, inputs))
    assert np.array_equal(each, found.logits)


@pytest.mark.slow
def test_costs_are_those_that_the_float_networks_of_each_exit_have(made):
    early = made.report["early"]["exits"]
    said = card.read(made.file.read_bytes(), made.file)[0].exits
    whole = made.report["int8"]["macs"]
    # Keras counts the heads on the way into the last exit as well, the card's whole is without.
    assert said["costs"] == pytest.approx([one["macs"] / whole for one in early.values()], abs=1e-4)
    assert (
        early["exit_1"]["macs"]
        == made.report["early"]["macs"]
        > whole
        == made.report["plain"]["macs"]
    )


@pytest.mark.slow
def test_figures_of_leaving_are_those_of_the_answers_given(made, data):
    content = made.file.read_bytes()
    said, found = card.read(content, made.file)[0].exits, made.report["tested"]["leaving"]
    answers = leaving.stage_outputs(content, map(data.normalise, data.test.inputs))
    point = said["points"][said["chosen"]]
    left = exits.taken(said, answers, point["thresholds"])
    given = np.where(left == 0, *(logits.argmax(axis=-1) for logits in answers.logits))
    assert found["accuracy"] == np.mean(given == data.test.classes)
    assert found["count"] == len(given)
    costs = [said["costs"][number] for number in left]
    assert found["cost"]["mean"] == pytest.approx(np.mean(costs))
    for number, row in enumerate(found["examples"]):
        assert all(left[index] == number for index in row)


@pytest.mark.slow
def test_the_mean_cost_asked_for_is_kept(made):
    assert made.report["int8"]["leaving"]["cost"]["mean"] <= 0.9
    assert made.report["tested"]["leaving"]["exits"][0]["share"] > 0


@pytest.mark.slow
def test_for_coral_the_stages_hand_on_by_one_name(made, monkeypatch):
    monkeypatch.setenv("PATH", str(made.folder))
    assert build(made.folder / "faint.toml", "--set", "int8.target=coral") == 0
    first, last = (
        facts((made.folder / f"build/faint/faint_exit_{number}.tflite").read_bytes(), "it")
        for number in (0, 1)
    )
    out, given = first.signatures[0].outputs["features_0"], last.signatures[0].inputs["features_0"]
    assert (out.shape, out.scales, out.zero_points) == (
        given.shape,
        given.scales,
        given.zero_points,
    )
    assert [one.name for one in staging.exits(first)] == ["exit_0"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("exit_mean_cost = 0.9", 'form = "float16"', "[int8] form: a network with exits becomes"),
        ("exit_mean_cost = 0.9", 'repair = "auto"', "[int8] repair: is for networks without exits"),
        (
            "[tested]",
            '[both]\nuse = "cascade"\nof = "int8"\nsmall = "other"\n[tested]',
            "[both] of: 'int8' has 2 exits of its own",
        ),
        ('of = "aware"', 'of = "plain"', "exit_mean_cost: is for networks with exits, and 'plain'"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(tmp_path, capsys, old, new, message):
    assert old in PIPELINE
    assert build(write(tmp_path, PIPELINE.replace(old, new, 1))) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "build").exists()
