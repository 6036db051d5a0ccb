"""Students that begin with their teacher's weights, narrowed to their widths."""

import numpy as np
import pytest
from conftest import REPO
from narrowed import inputs_for
from random_weights import difference, randomise

from tfedge.errors import UserError
from tfedge.plan.refs import Ref

pytestmark = pytest.mark.slow

PICTURES, SMALL = (32, 32, 3), (8, 8, 1)


@pytest.fixture(scope="module")
def inherit():
    from tfedge.networks.narrowing.inheriting import inherit

    return inherit


def network(ref, shape, seed, classes=4, **options):
    """Return a network of models/ with random weights."""
    return randomise(Ref.parse(f"models/{ref}", REPO).load()(shape, classes, **options), seed)


def pair(ref, shape, teacher, student):
    return network(ref, shape, 1, **teacher), network(ref, shape, 2, **student)


NETWORKS = [
    ("resnet.py:resnet8", (16, 16, 3), {"width": 16}, {"width": 8}),
    ("mobilenet.py:mobilenet_v1", PICTURES, {"width": 0.5}, {"width": 0.25}),
    ("mobilenet.py:mobilenet_v2", PICTURES, {}, {"width": 0.5}),
    (
        "elastic.py:elastic_residual",
        (16, 16, 3),
        {"stem": 24, "width_1": 16, "depth_2": 2},
        {"stem": 12, "width_1": 10, "depth_2": 2, "width_3": 40},
    ),
    ("small.py:stack", SMALL, {"widths": (12, 16)}, {"widths": (5, 16)}),
]


@pytest.mark.parametrize(("ref", "shape", "wide", "narrow"), NETWORKS)
def test_a_student_as_wide_as_its_teacher_answers_the_same(ref, shape, wide, narrow, inherit):
    teacher, student = pair(ref, shape, wide, wide)
    x = inputs_for(teacher)
    assert difference(student(x), teacher(x)) > 0.1
    assert inherit(student, teacher) == {}
    assert difference(student(x), teacher(x)) < 1e-5


def stays(had, has):
    """Choose by chance which of a layer's channels count; the same for all layers so wide."""
    return np.sort(np.random.default_rng(had).permutation(had)[:has])


def silence(teacher, student):
    """Let only as many channels of each layer answer anything but 0 as the student has."""
    for layer, own in zip(teacher.layers, student.layers, strict=True):
        weights = layer.get_weights()
        for weight, other in zip(weights, own.get_weights(), strict=True):
            axis = -2 if type(layer).__name__ == "DepthwiseConv2D" else -1
            had, has = weight.shape[axis], other.shape[axis]
            gone = np.setdiff1d(np.arange(had), stays(had, has))
            np.moveaxis(weight, axis, 0)[gone] = 0
        layer.set_weights(weights)


@pytest.mark.parametrize(("ref", "shape", "wide", "narrow"), NETWORKS)
def test_of_a_teacher_whose_surplus_channels_are_zeros_the_student_gets_all_others(
    ref, shape, wide, narrow, inherit
):
    teacher, student = pair(ref, shape, wide, narrow)
    assert teacher.count_params() > student.count_params()
    silence(teacher, student)
    x, before = inputs_for(teacher), teacher.get_weights()
    fewer = inherit(student, teacher)
    assert difference(student(x), teacher(x)) < 1e-5
    assert all(map(np.array_equal, teacher.get_weights(), before))
    assert fewer
    assert all(had > has for had, has in fewer.values())


def test_the_channels_with_the_largest_weights_are_taken_in_the_teachers_order(inherit):
    teacher, student = pair("small.py:stack", SMALL, {"widths": (4, 4)}, {"widths": (2, 4)})
    first = teacher.layers[1]
    size = np.float32([3, -1, 2, -4])
    first.set_weights([np.ones((3, 3, 1, 4), np.float32) * size])
    norm = teacher.layers[2].get_weights()
    assert inherit(student, teacher) == {first.name: (4, 2)}
    assert student.layers[1].get_weights()[0][0, 0, 0].tolist() == [3, -4]
    for got, of_all in zip(student.layers[2].get_weights(), norm, strict=True):
        assert got.tolist() == of_all[[0, 3]].tolist()


def test_dropout_in_one_of_the_two_is_no_difference(inherit):
    teacher, student = pair("small.py:stack", SMALL, {"dropout": 0.5}, {})
    x = inputs_for(teacher)
    inherit(student, teacher)
    assert difference(student(x), teacher(x)) < 1e-5


RESIDUAL, INVERTED = "elastic.py:elastic_residual", "elastic.py:elastic_inverted"


@pytest.mark.parametrize(
    ("ref", "wide", "narrow", "message"),
    [
        (RESIDUAL, {"kernel_3": 5}, {}, "is (3, 3), and the teacher's (5, 5)"),
        (RESIDUAL, {"stride": 2}, {}, "is (1, 1), and the teacher's (2, 2)"),
        (RESIDUAL, {"depth_1": 2}, {}, "the student has 30 layers and the teacher 37"),
        (RESIDUAL, {}, {"depth_2": 2}, "the student has 37 layers and the teacher 30"),
        (RESIDUAL, {}, {"width_2": 40}, "makes 40 channels, and the teacher's 32"),
        (RESIDUAL, {"classes": 5}, {}, "(Dense) is 4, and the teacher's 5"),
        (INVERTED, {}, {"expansion_2": 1}, "the student has"),
        (INVERTED, {"last": 32}, {}, "the student has"),
    ],
)
def test_a_student_that_differs_in_more_than_widths_is_refused(ref, wide, narrow, message, inherit):
    teacher, student = pair(ref, PICTURES, wide, narrow)
    before = student.get_weights()
    with pytest.raises(UserError) as caught:
        inherit(student, teacher)
    assert message in str(caught.value)
    assert "start: " in str(caught.value)
    assert "layer '" in str(caught.value)
    assert all(map(np.array_equal, student.get_weights(), before))


def test_a_student_with_a_model_in_it_is_refused(inherit):
    from tfedge.networks.backend import keras

    teacher = network("small.py:stack", SMALL, 1)
    images = keras.Input(SMALL)
    student = keras.Model(images, network("small.py:stack", SMALL, 2)(images))
    with pytest.raises(UserError, match="part of another layer or model\n  write the student as"):
        inherit(student, teacher)


def test_a_distilled_student_begins_where_its_teacher_is(tmp_path, monkeypatch):
    from small_jobs import folders, trained

    from tfedge.networks.saving import load_model
    from tfedge.plan.job import MODEL
    from tfedge.plan.settings import read
    from tfedge.plan.stages.making import Distill
    from tfedge.training import fitting

    monkeypatch.setattr(fitting, "fit", lambda *_, **__: [])
    places = {"teacher": folders(tmp_path)["teacher"]}
    teacher = load_model(places["teacher"] / MODEL).get_weights()
    stack = {"teacher": "teacher", "model": "models/small.py:stack", "widths": [6, 8]}
    for start, same in (("nothing", False), ("teacher", True)):
        stage = read(Distill, stack | {"start": start}, "x", REPO)
        weights, figures = trained(stage, places, tmp_path / f"from_{start}")
        assert all(map(np.array_equal, weights, teacher)) == same
        said = "began with the teacher's weights: all of them"
        assert (said in figures["notes"]) == same
