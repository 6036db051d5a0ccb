"""The stage that gives a network exits, and the stages that come behind it."""

import dataclasses
import functools

import numpy as np
import pytest
from small_jobs import folders, job

from tfedge.networks.narrowing.wishes import Wishes
from tfedge.plan.job import FLOAT, MODEL
from tfedge.plan.stages.clustering import Cluster
from tfedge.plan.stages.compressing import Prune, Qat
from tfedge.plan.stages.exiting import Exits
from tfedge.plan.stages.narrowing import FromItself, Narrow, Recovery
from tfedge.training.course import Course
from tfedge.training.teaching import Joint, Teaching

pytestmark = pytest.mark.slow

COURSE = Course(epochs=1, batch=64, rate=1e-2, keep="last")


def made(stage, inputs, place):
    """Run a stage; return its network and its figures."""
    from tfedge.networks.saving import load_model

    figures = stage.run(job(inputs, place))
    return load_model(place / MODEL), figures


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return folders(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def inputs(networks, tmp_path_factory):
    """Return the folders of a network with two early exits and of a teacher."""
    place = tmp_path_factory.mktemp("exits") / "exits"
    stage = Exits(of="of", head="pool", course=dataclasses.replace(COURSE, epochs=3))
    stage.run(job(networks, place))
    return {"of": place, "teacher": networks["teacher"]}


@pytest.fixture(scope="module")
def before(inputs):
    from tfedge.networks.saving import load_model

    return load_model(inputs["of"] / MODEL)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_figures_say_where_exits_are_and_what_each_costs(precision, networks, tmp_path):
    teaching = Teaching(teacher="teacher")
    stage = Exits(of="of", count=1, teaching=teaching, course=COURSE, precision=precision)
    model, figures = made(stage, networks, tmp_path / "x")
    assert len(model.outputs) == stage.exits == 2
    first, last = figures["exits"]["exit_0"], figures["exits"]["exit_1"]
    assert first["after"] == "max_pooling2d"
    # 8 x 8 places of 3 x 3 of one channel; of what is left, 4 x 4, a depthwise convolution makes
    # 2 x 2, of whose 4 channels as many as the classifier reads, 8; and 4 classes.
    early = 64 * 9 * 4 + 4 * 9 * 4 + 4 * 4 * 8 + 8 * 4
    assert first["macs"] == early
    assert last["macs"] == figures["macs"] == early + 16 * 9 * 4 * 8 + 8 * 4
    assert first["cost"] == pytest.approx(early / figures["macs"])
    assert last["accuracy"] == figures["accuracy"]
    assert figures["notes"][0].startswith("exit_0 is behind max_pooling2d, for 3")
    assert (tmp_path / "x" / FLOAT).is_file()


def test_zeros_that_pruning_made_are_kept(networks, tmp_path):
    pruned, _ = made(Prune(of="of", sparsity=0.6, course=COURSE), networks, tmp_path / "pruned")
    stage = Exits(of="of", count=1, course=COURSE)
    model, figures = made(stage, {"of": tmp_path / "pruned"}, tmp_path / "exits")
    for name in ("conv2d", "conv2d_1", "dense"):
        one, other = (m.get_layer(name).get_weights()[0] for m in (pruned, model))
        assert np.array_equal(one == 0, other == 0)
        assert not np.array_equal(one, other)
    assert figures["sparsity"] > 0.3


STAGES = {
    "prune": Prune(of="of", course=COURSE),
    "cluster": Cluster(of="of", clusters=4, course=COURSE),
    "qat": Qat(of="of", calibrate=32, course=COURSE),
    "narrow": Narrow(
        of="of",
        wishes=Wishes(remove=0.4, multiple=1, least=1, samples=32),
        course=Recovery(epochs=1, batch=64, rate=1e-2, keep="last"),
    ),
}


@pytest.fixture(scope="module")
def behind(inputs, tmp_path_factory):
    """Return what each stage makes of the network with exits, run when it is first asked for."""

    @functools.cache
    def made_by(name):
        return made(STAGES[name], inputs, tmp_path_factory.mktemp(name) / "x")

    return made_by


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_behind_trains_all_exits_and_measures_each(name, behind, before):
    model, figures = behind(name)
    assert len(model.outputs) == 3
    assert list(figures["exits"]) == ["exit_0", "exit_1", "exit_2"]
    assert figures["exits"]["exit_2"]["accuracy"] == figures["accuracy"]
    (row,) = figures["history"]
    assert {"val_exit_0_accuracy", "val_exit_1_accuracy", "val_accuracy"} <= set(row)
    for head in ("exit_0_logits", "exit_1_logits", "dense"):
        found = next(layer for layer in model.layers if layer.name.endswith(head))
        weights = {tuple(w.shape): w for w in found.get_weights()}
        was = before.get_layer(head).get_weights()[0]
        assert was.shape not in weights or not np.array_equal(weights[was.shape], was)


@pytest.mark.parametrize(
    "change", [{"joint": Joint((4.0, 1.0, 1.0))}, {"teaching": Teaching(teacher="teacher")}]
)
def test_a_stage_behind_heeds_weights_and_a_teacher(change, behind, inputs, tmp_path):
    model, _ = made(dataclasses.replace(STAGES["prune"], **change), inputs, tmp_path / "x")
    plain, _ = behind("prune")
    assert not all(map(np.array_equal, model.get_weights(), plain.get_weights()))


def test_narrowing_has_the_network_before_teach_or_another_or_the_labels_alone(
    inputs, before, tmp_path
):
    from tfedge.networks.saving import load_model

    def taught(name, **teaching):
        stage = dataclasses.replace(
            STAGES["narrow"], teaching=FromItself(**teaching), joint=Joint((1.0, 2.0, 1.0))
        )
        training = stage._taught(job(inputs, tmp_path / name), before)
        assert training.exit_weights == [0.75, 1.5, 0.75]
        return training

    teacher = load_model(inputs["teacher"] / MODEL)
    x = np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 1)).astype(np.float32)
    for name, expected in (("", before(x)[-1]), ("teacher", teacher(x))):
        (answer,) = taught(f"by_{name}", teacher=name).teach(x)
        assert np.array_equal(answer, expected)
    assert taught("labels", alpha=1.0).teach is None


def test_narrowing_takes_channels_that_heads_read_and_lets_exits_answer_from_the_rest(
    inputs, before, tmp_path
):
    wishes = Wishes(remove=0.4, multiple=1, least=1, samples=32)
    stage = Narrow(of="of", wishes=wishes, course=Recovery(epochs=0))
    model, figures = made(stage, inputs, tmp_path / "x")
    assert figures["macs"] < before_macs(before) * 0.62
    had, has = figures["widths"]["conv2d"]
    assert model.get_layer("exit_0_logits").get_weights()[0].shape == (has, 4)
    assert had == 4 > has


def before_macs(model):
    from tfedge.tflite.conversion import to_float
    from tfedge.tflite.facts import facts

    return facts(to_float(model), "x").macs


def test_training_in_8_bits_has_one_scale_at_a_seam_for_all_that_read_it(behind):
    """What the first head reads is what the rest of the network reads: one quantised tensor."""
    from tfedge.networks.backend import keras

    model, _ = behind("qat")
    assert len([layer for layer in model.layers if type(layer).__name__ == "QuantizeLayer"]) == 1
    readers = [
        node.layer.name
        for layer in model.layers
        if layer.name.endswith("max_pooling2d") and not isinstance(layer, keras.layers.InputLayer)
        for node in layer.outbound_nodes
    ]
    assert len(readers) == 2
