"""The stage that takes channels out, by itself on a small network of stripes."""

import dataclasses

import numpy as np
import pytest
from small_jobs import folders, job, trained

from tfedge.errors import UserError
from tfedge.networks.narrowing.wishes import Wishes
from tfedge.plan.job import MODEL
from tfedge.plan.stages.narrowing import FromItself, Narrow, Recovery

pytestmark = pytest.mark.slow

SMALL = {"remove": 0.4, "multiple": 1, "least": 1, "samples": 32}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return folders(tmp_path_factory.mktemp("networks"))


def narrow(epochs, wishes=(), **other):
    course = Recovery(epochs=epochs, batch=32, rate=1e-2, keep="last")
    return Narrow(of="of", wishes=Wishes(**SMALL | dict(wishes)), course=course, **other)


def same(one, other):
    return all(map(np.array_equal, one, other))


@pytest.mark.parametrize(("share_of", "column"), [("macs", "macs"), ("channels", "")])
def test_the_cost_falls_by_the_share_and_of_no_epochs_nothing_is_trained(
    share_of, column, networks, tmp_path
):
    from tfedge.networks.saving import load_model

    before = load_model(networks["of"] / MODEL)
    weights, figures = trained(narrow(0, {"share_of": share_of}), networks, tmp_path / "x")
    assert figures["epochs"] == 0
    assert figures["accuracy"] == figures["untrained"]
    kernel = np.asarray(before.layers[1].kernel)
    left = [channel for channel in weights[0].T.reshape(-1, 9) if channel.any()]
    originals = kernel.T.reshape(-1, 9)
    assert all(any(np.array_equal(one, other) for other in originals) for one in left)
    widths = {"conv2d": 4, "conv2d_1": 8} | {
        name: has for name, (_, has) in figures["widths"].items()
    }
    if column:
        # 8 x 8 places of 3 x 3 kernels of one channel, 4 x 4 of the second, and a dense layer.
        first, second = widths["conv2d"], widths["conv2d_1"]
        macs = 64 * 9 * first + 16 * 9 * first * second + 4 * second
        assert figures["macs"] == macs <= 0.6 * (64 * 9 * 4 + 16 * 9 * 4 * 8 + 4 * 8)
    else:
        assert sum(widths.values()) == int(0.6 * 12)


def test_it_learns_from_what_it_was_unless_another_teaches_or_the_labels_alone(networks, tmp_path):
    itself, figures = trained(narrow(2), networks, tmp_path / "itself")
    named = narrow(2, teaching=FromItself(teacher="teacher"))
    again, _ = trained(named, networks | {"teacher": networks["of"]}, tmp_path / "again")
    others, _ = trained(named, networks, tmp_path / "others")
    labels, _ = trained(narrow(2, teaching=FromItself(alpha=1.0)), networks, tmp_path / "labels")
    assert same(itself, again)
    assert not same(itself, others)
    assert not same(itself, labels)
    assert figures["epochs"] == 2


def test_rounds_take_the_same_share_each_and_train_between(networks, tmp_path):
    stage = narrow(3, rounds=2)
    shares = [(left, course.epochs) for _, left, course in stage._rounds()]
    assert shares == [(pytest.approx(0.6**0.5), 1), (pytest.approx(0.6), 2)]
    _, figures = trained(stage, networks, tmp_path / "x")
    assert len(figures["history"]) == 3
    assert figures["widths"]["conv2d_1"][0] == 8


def test_in_bfloat16_it_learns_about_the_same_and_stays_a_float32_network(networks, tmp_path):
    cut, _ = trained(narrow(0), networks, tmp_path / "cut")
    exact, _ = trained(narrow(1), networks, tmp_path / "exact")
    coarse, figures = trained(narrow(1, precision="bfloat16"), networks, tmp_path / "coarse")
    assert {weight.dtype for weight in coarse} == {np.dtype(np.float32)}
    moved = np.concatenate([(one - was).ravel() for one, was in zip(exact, cut, strict=True)])
    other = np.concatenate([(one - was).ravel() for one, was in zip(coarse, cut, strict=True)])
    assert 0 < np.linalg.norm(other - moved) < 0.3 * np.linalg.norm(moved)
    assert len(figures["history"]) == 1


class PowerError(Exception):
    """Stands in for the power going."""


@pytest.mark.parametrize("after", [1, 2])
def test_one_killed_after_a_cut_goes_on_there_and_ends_as_one_that_was_not(
    after, networks, tmp_path, monkeypatch
):
    from tfedge.networks.narrowing import cutting
    from tfedge.training import fitting

    stage = narrow(2, rounds=2)
    whole, figures = trained(stage, networks, tmp_path / "whole")
    once, cut, fits = job(networks, tmp_path / "killed"), cutting.cut, []

    def dying(model, *rest, fit=fitting.fit):
        if len(fits) + 1 == after:
            raise PowerError
        fits.append(model)
        return fit(model, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit", dying)
        with pytest.raises(PowerError):
            stage.run(once)
    cuts = []
    monkeypatch.setattr(cutting, "cut", lambda *given: cuts.append(1) or cut(*given))
    again = stage.run(once)
    from tfedge.networks.saving import load_model

    assert same(load_model(once.out / MODEL).get_weights(), whole)
    assert len(cuts) == 2 - after
    assert {**again, "history": 0} == {**figures, "history": 0}


def changed(networks, place, change):
    """Save the network with another first kernel; return the inputs of a stage that narrows it."""
    from tfedge.networks.saving import load_model, save_model

    model = load_model(networks["of"] / MODEL)
    kernel, *others = model.get_weights()
    model.set_weights([change(kernel), *others])
    place.mkdir()
    save_model(model, place / MODEL)
    return networks | {"of": place}


def test_zeros_that_training_would_fill_are_refused_and_kept_without_it(networks, tmp_path):
    top = np.arange(3)[:, None, None, None] < 2
    inputs = changed(networks, tmp_path / "pruned", lambda kernel: np.where(top, 0, kernel))
    with pytest.raises(UserError, match="narrow first and prune what is left"):
        trained(narrow(1), inputs, tmp_path / "trained")
    left, _ = trained(narrow(0), inputs, tmp_path / "untrained")
    assert not left[0][:2].any()


def test_shared_values_that_training_would_part_are_refused_too(networks, tmp_path):
    inputs = changed(networks, tmp_path / "shared", lambda kernel: np.copysign(0.5, kernel))
    with pytest.raises(UserError, match=r"the shared values there .*\n  narrow first and cluster"):
        trained(narrow(1), inputs, tmp_path / "trained")
    left, _ = trained(narrow(0), inputs, tmp_path / "untrained")
    assert set(np.unique(left[0])) == {-0.5, 0.5}


def test_a_pattern_that_protects_nothing_is_refused_and_one_that_does_keeps_channels(
    networks, tmp_path
):
    with pytest.raises(UserError, match="no layer matches 'conv_2d'"):
        trained(narrow(0, {"protect": ("conv_2d",)}), networks, tmp_path / "none")
    _, figures = trained(narrow(0, {"protect": ("conv2d",)}), networks, tmp_path / "first")
    assert list(figures["widths"]) == ["conv2d_1"]
    assert figures["whole"]["conv2d"] == "protect names 'conv2d'"
    assert any("conv2d kept all: protect names" in note for note in figures["notes"])
    assert not any("answer" in note for note in figures["notes"])


@pytest.mark.parametrize("remove", [0.0, 1.0, -0.5])
def test_a_share_of_nothing_or_all_is_refused(remove):
    with pytest.raises(UserError, match="between 0 and 1"):
        Wishes(remove=remove).check("[x]")


def test_rounds_that_leave_the_last_no_epoch_are_refused():
    stage = narrow(3, rounds=4)
    with pytest.raises(UserError, match="3 rounds of 1 leave no epoch for the last"):
        stage.check("[x]")
    dataclasses.replace(stage, rounds=3).check("[x]")


def test_a_board_that_cannot_be_counted_for_is_told_before_anything_runs(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"\[x\] share_of"):
        narrow(1, {"share_of": "pi4"}).check("[x]")
