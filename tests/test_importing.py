"""A network from elsewhere on the data of a pipeline: how it is fed, and whether that is right."""

import dataclasses

import numpy as np
import pytest
from small_data import stripes

from tfedge.data.dataset import Data, Split
from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def keras():
    from tfedge.networks.backend import keras

    return keras


@pytest.fixture(scope="module")
def importing():
    from tfedge.networks import importing

    return importing


def coloured(count=60, seed=0):
    """Pictures of three classes that differ in colour alone."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    x = rng.integers(0, 90, (count, 8, 8, 3)) + 120 * np.eye(3, dtype=int)[y][:, None, None]
    split = Split(x.astype(np.uint8), y.astype(np.int64))
    ends = ((0.0,) * 3, (255.0,) * 3)
    return Data(split, split, split, ("r", "g", "b"), "image", *ends, "bilinear", "stretch")


def taken(importing, model, data, takes="data"):
    from tfedge.networks.files import made_by

    return importing.taken_in(*made_by(model, data.shape), data, takes, fold=True)


def linear(keras, *before, shape=(8, 8, 3), classes=3, seed=0):
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    parts = [*before, layers.Conv2D(6, 3, padding="same"), layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input(shape), *parts, layers.Dense(classes)])


@pytest.mark.parametrize(
    ("takes", "mode"), [("caffe", "caffe"), ("imagenet", "torch"), ("symmetric", "tf")]
)
def test_takes_is_what_keras_preprocess_input_does(keras, importing, takes, mode):
    from tf_keras.src.applications.imagenet_utils import preprocess_input

    data, model = coloured(), linear(keras)
    prepared = taken(importing, model, data, takes)
    x = data.test.inputs
    expected = model(preprocess_input(x.astype(np.float32), mode=mode)).numpy()
    found = prepared.model(prepared.feed(x)).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_pixels_and_unit_are_what_they_say(keras, importing):
    data, model = coloured(), linear(keras)
    for takes, divisor in (("pixels", 1), ("unit", 255)):
        prepared = taken(importing, model, data, takes)
        expected = model(data.test.inputs.astype(np.float32) / divisor).numpy()
        found = prepared.model(prepared.feed(data.test.inputs)).numpy()
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_network_that_normalises_itself_is_fed_by_that(keras, importing):
    scaling = keras.layers.Rescaling(1 / 127.5, offset=-1)
    prepared = taken(importing, linear(keras, scaling), coloured())
    assert prepared.feed.mean == pytest.approx((127.5,) * 3)
    assert prepared.feed.std == pytest.approx((127.5,) * 3)
    assert "Rescaling" not in {type(layer).__name__ for layer in prepared.model.layers}


def test_takes_beside_a_layer_that_normalises_is_refused(keras, importing):
    scaling = keras.layers.Rescaling(1 / 255)
    with pytest.raises(UserError, match="begins with a layer that normalises pixels"):
        taken(importing, linear(keras, scaling), coloured(), "symmetric")


def test_takes_of_numbers_that_are_no_pixels_is_refused(keras, importing):
    data = dataclasses.replace(coloured(), kind="array")
    with pytest.raises(UserError, match="the data is not images"):
        taken(importing, linear(keras), data, "unit")


def test_resizing_at_the_start_is_said_with_what_data_ought_to_do(keras, importing):
    layers = keras.layers
    parts = [layers.Rescaling(1 / 255), layers.Resizing(8, 8, interpolation="bicubic")]
    prepared = taken(importing, linear(keras, *parts, shape=(20, 20, 3)), coloured())
    assert 'resize = "bicubic" in [data]' in " ".join(prepared.notes)
    assert prepared.model.input_shape == (None, 8, 8, 3)


def test_a_crop_at_the_start_is_said_with_its_share(keras, importing):
    crop = keras.layers.CenterCrop(8, 8)
    prepared = taken(importing, linear(keras, crop, shape=(10, 10, 3)), coloured())
    notes = " ".join(prepared.notes)
    assert 'fit = "crop" in [data]' in notes
    assert "the middle 80%" in notes


def by_colour(keras):
    """Return a network that is right on `coloured` where red comes first, fed from -1 to 1."""
    model = linear(keras)
    kernel = np.zeros((3, 3, 3, 6), np.float32)
    kernel[1, 1, range(3), range(3)] = 1
    model.layers[0].set_weights([kernel, np.zeros(6, np.float32)])
    model.layers[-1].set_weights([np.eye(6, 3, dtype=np.float32), np.zeros(3, np.float32)])
    return model


def test_red_and_blue_swapped_is_doubted(keras, importing):
    data = coloured(200)
    swapped = Split(np.ascontiguousarray(data.train.inputs[..., ::-1]), data.train.classes)
    prepared = taken(importing, by_colour(keras), data)
    assert importing.doubt(prepared.model, prepared.feed, data) is None
    wrong = dataclasses.replace(data, tune=swapped)
    found = importing.doubt(prepared.model, prepared.feed, wrong)
    assert found.swapped
    assert (found.now, found.accuracy) == (pytest.approx(1 / 3, abs=0.1), 1.0)


def test_blue_first_swaps_them_back(keras, importing):
    from tfedge.networks.files import made_by

    data, model = coloured(), linear(keras, keras.layers.Rescaling(1 / 255))
    found = importing.taken_in(
        *made_by(model, data.shape), data, "data", fold=True, blue_first=True
    )
    x = data.test.inputs
    expected = model(x[..., ::-1].astype(np.float32)).numpy()
    answers = found.model(found.feed(x)).numpy()
    assert np.abs(answers - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_network_fed_from_0_instead_of_minus_1_is_doubted(keras, importing):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    x = (rng.integers(0, 100, (200, 8, 8, 1)) + 150 * y[:, None, None, None]).astype(np.uint8)
    split = Split(x, y.astype(np.int64))
    data = Data(split, split, split, ("dark", "bright"), "image", (0.0,), (255.0,))
    # The mean of the pixels decides by its sign, which from 0 to 1 is always the same.
    given = keras.Input((8, 8, 1))
    answer = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(given))
    model = keras.Model(given, answer)
    model.layers[-1].set_weights([np.float32([[-1, 1]]), np.float32([0, 0])])
    prepared = taken(importing, model, data)
    found = importing.doubt(prepared.model, prepared.feed, data)
    assert (found.takes, found.accuracy) == ("symmetric", 1.0)
    assert found.now == pytest.approx(0.5, abs=0.1)
    prepared = taken(importing, model, data, "symmetric")
    assert importing.doubt(prepared.model, prepared.feed, data) is None


def test_refed_answers_as_it_did_to_its_own_normalisation(keras):
    from tfedge.networks.preparation.inputs import refed

    data, model = coloured(), linear(keras)
    own = ((100.0, 120.0, 90.0), (50.0, 60.0, 70.0))
    given = (data.mean, data.std)
    wrapped = refed(model, own, given)
    x = data.test.inputs.astype(np.float32)
    expected = model((x - np.float32(own[0])) / np.float32(own[1])).numpy()
    found = wrapped(data.normalise(data.test.inputs)).numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert {layer.name for layer in model.layers} <= {layer.name for layer in wrapped.layers}


def test_grey_pictures_are_never_tried_in_colours(keras, importing):
    data = stripes()
    model = linear(keras, shape=(8, 8, 1), classes=4)
    prepared = taken(importing, model, data)
    importing.doubt(prepared.model, prepared.feed, data)
    with pytest.raises(UserError, match="about colours"):
        taken(importing, model, data, "imagenet")


@pytest.mark.parametrize(("largest", "noted"), [(1.0, True), (255.0, False)])
def test_numbers_that_were_divided_already_are_noted(keras, importing, largest, noted):
    split = coloured().train
    inputs = (split.inputs.astype(np.float32) / 255 * largest).astype(np.float32)
    split = Split(inputs, split.classes)
    data = Data(split, split, split, ("r", "g", "b"), "array", (0.0,) * 3, (1.0,) * 3)
    model = linear(keras, keras.layers.Rescaling(1 / 255))
    notes = " ".join(taken(importing, model, data).notes)
    assert ("a layer that divides by 255, and no number of the data" in notes) == noted
