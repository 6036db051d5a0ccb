import numpy as np
import pytest
from prepared import answers, kinds, pixels, prepared
from random_weights import difference, randomise

from tfedge.errors import UserError

pytestmark = pytest.mark.slow

SHAPE = (8, 8, 3)
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.fixture(scope="module")
def k():
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    return keras


def network(k, *start, shape=SHAPE, padding="same"):
    """Return `start` -> conv -> ReLU -> pooling -> dense, with random weights."""
    layers = k.layers
    x = given = k.Input(shape)
    for layer in start:
        x = layer(x)
    x = layers.Conv2D(6, 3, padding=padding, activation="relu", name="conv")(x)
    x = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    model = k.Model(given, x)
    kept = [layer.get_weights() for layer in start]
    randomise(model)
    for layer, weights in zip(start, kept, strict=True):
        layer.set_weights(weights)
    return model


PLAIN = {"Conv2D": 1, "GlobalAveragePooling2D": 1, "Dense": 1}


@pytest.mark.parametrize(
    ("start", "mean", "std"),
    [
        (lambda la: [la.Rescaling(1 / 255)], 0, 255),
        (lambda la: [la.Rescaling(1 / 127.5, offset=-1)], 127.5, 127.5),
        (lambda la: [la.Normalization(mean=MEAN, variance=np.square(STD))], MEAN, STD),
        # EfficientNet's three in a row: (x / 255 - m) / s with m and s of numbers from 0 to 1.
        (
            lambda la: [
                la.Rescaling(1 / 255),
                la.Normalization(mean=np.divide(MEAN, 255), variance=np.square(STD) / 255**2),
                la.Rescaling([2.0, 2.0, 2.0]),
            ],
            MEAN,
            np.divide(STD, 2),
        ),
        (lambda la: [la.Rescaling(0.5), la.Rescaling(0.01, offset=-1)], 200, 200),
    ],
)
def test_normalisation_at_the_start_goes_into_mean_and_std(k, start, mean, std):
    model = network(k, *start(k.layers))
    made, x = prepared(model), pixels(SHAPE)
    assert kinds(made.model) == PLAIN
    assert made.feed.mean == pytest.approx(np.broadcast_to(mean, 3), rel=1e-6, abs=1e-6)
    assert made.feed.std == pytest.approx(np.broadcast_to(std, 3), rel=1e-6)
    assert difference(answers(made, x), model(x.astype(np.float32))) < 1e-5


def test_a_normalisation_adapted_to_data_goes_into_mean_and_std(k):
    x = pixels(SHAPE, 32)
    layer = k.layers.Normalization()
    layer.adapt(x.astype(np.float32))
    made = prepared(network(k, layer), x)
    assert kinds(made.model) == PLAIN
    assert made.feed.mean == pytest.approx(x.mean((0, 1, 2)), rel=1e-5)
    assert made.feed.std == pytest.approx(x.std((0, 1, 2)), rel=1e-5)


def test_arithmetic_at_the_start_is_normalisation_of_what_the_network_was_fed(k):
    import tensorflow as tf

    class Halved(k.layers.Layer):
        def call(self, x):
            return (x - 0.5) / tf.constant(0.5)

    model, x = network(k, Halved()), pixels(SHAPE)
    made = prepared(model)
    assert kinds(made.model) == PLAIN
    assert (made.feed.mean, made.feed.std) == ((127.5,) * 3, (127.5,) * 3)
    assert difference(answers(made, x), model(x / np.float32(255))) < 1e-5


def test_batchnorm_at_the_start_is_normalisation_too(k):
    layers = k.layers
    model = randomise(network(k, layers.BatchNormalization()))
    made, x = prepared(model), pixels(SHAPE)
    assert kinds(made.model) == PLAIN
    assert difference(answers(made, x), model(x / np.float32(255))) < 1e-5
    gamma, beta, mean, variance = model.layers[1].get_weights()
    scale = gamma / np.sqrt(variance + 1e-3)
    assert made.feed.std == pytest.approx(255 / scale, rel=1e-5)
    assert made.feed.mean == pytest.approx(255 * (mean - beta / scale), rel=1e-5)


def test_a_negative_scale_at_the_start_stays_in_the_network(k):
    model = network(k, k.layers.Rescaling(-1 / 255, offset=1), padding="valid")
    made, x = prepared(model), pixels(SHAPE)
    assert difference(answers(made, x), model(x.astype(np.float32))) < 1e-5
    assert min(made.feed.std) > 0


def test_normalisation_that_not_all_of_the_network_reads_stays_in_it(k):
    layers = k.layers
    given = k.Input(SHAPE)
    x = layers.Concatenate()([given, layers.Rescaling(1 / 255)(given)])
    x = layers.Dense(4)(layers.Flatten()(x))
    model = randomise(k.Model(given, x))
    made, x = prepared(model, mean=0.0, std=1.0), pixels(SHAPE)
    assert (made.feed.mean, made.feed.std) == ((0.0,) * 3, (1.0,) * 3)
    assert difference(answers(made, x), model(x.astype(np.float32))) < 1e-5


def test_augmentation_is_taken_out_and_named(k):
    layers = k.layers
    start = [layers.RandomFlip(name="flip"), layers.RandomRotation(0.1), layers.RandomZoom(0.1)]
    model = network(k, *start, layers.Rescaling(1 / 255), layers.RandomContrast(0.2))
    made, x = prepared(model), pixels(SHAPE)
    assert kinds(made.model) == PLAIN
    assert made.feed.std == (255.0,) * 3
    assert difference(answers(made, x), model(x.astype(np.float32), training=False)) < 1e-5
    (note,) = made.notes
    assert note.startswith("for training only, taken out: 'flip' (RandomFlip), ")


@pytest.mark.parametrize("name", ["RandomFlip", "RandomZoom"])
def test_augmentation_alone_is_no_normalisation(k, name):
    kind = getattr(k.layers, name)
    model = network(k, kind(0.1) if name == "RandomZoom" else kind())
    made, x = prepared(model), pixels(SHAPE)
    assert made.feed.std == (255.0,) * 3
    assert difference(answers(made, x), model(x / np.float32(255), training=False)) < 1e-5


@pytest.mark.parametrize("shape", [(20, 30, 3), (None, None, 3)])
@pytest.mark.parametrize(
    ("method", "crop", "resize", "fit"),
    [
        ("bilinear", False, "bilinear", "stretch"),
        ("nearest", True, "nearest", "crop"),
        ("lanczos3", False, "lanczos", "stretch"),
    ],
)
def test_resizing_at_the_start_is_the_boards_work(k, shape, method, crop, resize, fit):
    resizing = k.layers.Resizing(8, 8, interpolation=method, crop_to_aspect_ratio=crop)
    model = network(k, resizing, k.layers.Rescaling(1 / 255), shape=shape)
    made, x = prepared(model, pixels(SHAPE)), pixels(SHAPE)
    assert kinds(made.model) == PLAIN
    assert made.model.input_shape == (None, 8, 8, 3)
    (sizing,) = made.sizings
    assert (sizing.makes, sizing.resize, sizing.fit) == ((8, 8), resize, fit)
    rest = k.Model(model.layers[1].output, model.output)
    assert difference(answers(made, x), rest(x.astype(np.float32))) < 1e-5


def test_a_crop_at_the_start_is_the_boards_work(k):
    crop = k.layers.CenterCrop(8, 8)
    model = network(k, k.layers.Resizing(16, 16), crop, shape=(32, 32, 3))
    made, x = prepared(model, pixels(SHAPE)), pixels(SHAPE)
    assert kinds(made.model) == PLAIN
    assert [sizing.share for sizing in made.sizings] == [1.0, 0.5]
    rest = k.Model(crop.output, model.output)
    assert difference(answers(made, x), rest(x / np.float32(255))) < 1e-5


def test_resizing_behind_the_normalisation_is_the_boards_work(k):
    resizing = k.layers.Resizing(8, 8)
    model = network(k, k.layers.Rescaling(1 / 255), resizing, shape=(32, 32, 3))
    made, x = prepared(model, pixels(SHAPE)), pixels(SHAPE)
    assert kinds(made.model) == PLAIN
    assert made.feed.std == (255.0,) * 3
    rest = k.Model(resizing.output, model.output)
    assert difference(answers(made, x), rest(x / np.float32(255))) < 1e-5


def test_resizing_inside_of_the_network_stays(k):
    model = network(k, k.layers.MaxPooling2D(), k.layers.Resizing(8, 8))
    made, x = prepared(model), pixels(SHAPE)
    assert kinds(made.model)["Resizing"] == 1
    assert difference(answers(made, x), model(x / np.float32(255))) < 1e-5


def test_data_of_another_size_is_refused_with_the_size_to_write(k):
    model = network(k, k.layers.Resizing(16, 12), shape=(32, 32, 3))
    with pytest.raises(UserError) as caught:
        prepared(model, pixels(SHAPE))
    assert "takes (16, 12, 3), but the data is (8, 8, 3)" in str(caught.value)
    assert "write size = [16, 12] in [data]" in str(caught.value)


def test_a_network_of_any_size_takes_the_datas(k):
    made = prepared(network(k, shape=(None, None, 3)), pixels((10, 6, 3)))
    assert made.model.input_shape == (None, 10, 6, 3)


def test_a_network_that_takes_blue_first_is_turned_round(k):
    from tfedge.networks.graph import build
    from tfedge.networks.keras2 import Keras2
    from tfedge.networks.preparation.inputs import with_channels_reversed
    from tfedge.networks.reading import read

    layers = k.layers
    given = k.Input(SHAPE)
    x = layers.ZeroPadding2D()(given * np.float32([1, 2, 3]) - np.float32([0.1, 0.2, 0.3]))
    x = layers.Conv2D(6, 3)(x)
    model = randomise(k.Model(given, x))
    graph = read(model, Keras2())
    with_channels_reversed(graph)
    x = pixels(SHAPE).astype(np.float32)
    assert difference(build(graph)(x), model(x[..., ::-1])) < 1e-6


def test_what_no_channels_can_be_swapped_in_is_refused(k):
    from tfedge.networks.keras2 import Keras2
    from tfedge.networks.preparation.inputs import with_channels_reversed
    from tfedge.networks.reading import read

    graph = read(network(k, k.layers.DepthwiseConv2D(3, name="first")), Keras2())
    with pytest.raises(UserError, match=r"layer 'first' \(DepthwiseConv2D\): is no place to swap"):
        with_channels_reversed(graph)


def test_a_network_fed_otherwise_than_it_takes_makes_up_for_it(k):
    from tfedge.networks.preparation.inputs import refed

    model, x = network(k), pixels(SHAPE).astype(np.float32)
    other = refed(model, (MEAN, STD), ((127.5,) * 3, (64.0,) * 3))
    expected = model((x - np.float32(MEAN)) / np.float32(STD))
    assert difference(other((x - 127.5) / 64), expected) < 1e-5
