"""A teacher in the stages that make a trained network smaller."""

import dataclasses

import numpy as np
import pytest
from small_data import stripes
from small_jobs import folders, trained

from tfedge.plan.job import MODEL
from tfedge.plan.stages.compressing import Prune, Qat
from tfedge.training.course import Course
from tfedge.training.teaching import Teaching

pytestmark = pytest.mark.slow

COURSE = Course(epochs=2, batch=64, rate=1e-2, keep="last")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return folders(tmp_path_factory.mktemp("networks"))


@pytest.mark.parametrize("kind", [Prune, Qat])
def test_a_teacher_changes_what_is_learned_unless_the_labels_have_it_all(kind, networks, tmp_path):
    def run(name, **teaching):
        stage = kind(of="of", course=COURSE, teaching=Teaching(**teaching))
        return trained(stage, networks, tmp_path / name)

    alone, _ = run("alone")
    labels, _ = run("labels", teacher="teacher", alpha=1.0)
    taught, figures = run("taught", teacher="teacher", alpha=0.1)
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(alone, labels, strict=True))
    assert not all(np.allclose(a, b, atol=1e-3) for a, b in zip(alone, taught, strict=True))
    if kind is Prune:
        assert figures["sparsity"] == pytest.approx(0.5, abs=0.02)


def test_a_network_that_was_its_own_teacher_answers_more_as_before(networks, tmp_path):
    from tfedge.networks.saving import load_model

    folders = {"of": networks["of"], "teacher": networks["of"]}
    before = load_model(networks["of"] / MODEL)
    x = stripes().normalise(stripes().test.inputs)

    def change(name, teaching):
        course = dataclasses.replace(COURSE, epochs=8)
        stage = Prune(of="of", sparsity=0.3, course=course, teaching=teaching)
        trained(stage, folders, tmp_path / name)
        return np.abs(load_model(tmp_path / name / MODEL)(x) - before(x)).mean()

    own = change("own", Teaching(teacher="of", alpha=0.0))
    assert own < change("alone", Teaching()) / 2


def test_stages_of_one_teacher_share_its_answers(networks, tmp_path):
    """Marked ones: what the second stage learns shows that it read them and did not ask again."""
    teaching = Teaching(teacher="teacher", alpha=0.0)
    lessons = tmp_path / "lessons"

    def run(name):
        stage = Qat(of="of", course=COURSE, teaching=teaching)
        return trained(stage, networks, tmp_path / name, lessons)[0]

    stage = Prune(of="of", course=COURSE, teaching=teaching)
    trained(stage, networks, tmp_path / "sparse", lessons)
    one = run("one")
    files = sorted(lessons.rglob("*.npy"))
    assert [file.name for file in files] == ["view-0000.npy", "view-0001.npy"]
    for file in files:
        kept = np.load(file)
        assert (kept[:, -1] == 1).all()
        kept[:, :-1] *= -1
        np.save(file, kept)
    two = run("two")
    assert sorted(lessons.rglob("*.npy")) == files
    assert not all(np.allclose(a, b, atol=1e-3) for a, b in zip(one, two, strict=True))


def test_hints_say_that_the_teacher_ran_in_every_epoch(networks, tmp_path):
    from tfedge.plan.refs import Ref
    from tfedge.plan.settings import Options
    from tfedge.plan.stages.making import Distill

    model = Ref.parse("models/small.py:stack", tmp_path, "model")
    options = Options({"widths": (4, 8)})
    course = dataclasses.replace(COURSE, epochs=1)
    teaching = Teaching(teacher="teacher")
    for hints, notes in ({"re_lu": "re_lu"}, 1), ({}, 0):
        stage = Distill(model, options, teaching=teaching, hints=hints, course=course)
        _, figures = trained(stage, networks, tmp_path / f"hints{notes}")
        assert len(figures["notes"]) == notes
