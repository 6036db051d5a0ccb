import numpy as np
import pytest

from tfedge.errors import UserError
from tfedge.tflite.facts import facts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def c():
    from tfedge.tflite import conversion

    return conversion


@pytest.fixture(scope="module")
def model():
    from tfedge.networks.backend import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = given = keras.Input((8, 8, 2))
    x = layers.Conv2D(16, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 3)(x))
    return keras.Model(given, layers.Dense(64)(x))


def inputs(count=32):
    return np.random.default_rng(0).uniform(0, 1, (count, 8, 8, 2)).astype(np.float32)


def snr_db(model, flatbuffer, x):
    from tfedge.tflite.running import answers

    truth = model(x, training=False).numpy()
    return 10 * np.log10((truth**2).sum() / ((answers(flatbuffer, x) - truth) ** 2).sum())


@pytest.mark.parametrize(
    # What 8 bits of 6 dB each, 11 bits of significand, or 24 bits, leave of a signal, less a few.
    ("form", "ends", "kernels", "least_db"),
    [
        ("int8", "int8", "int8", 25),
        ("int16x8", "int16", "int8", 30),
        ("dynamic", "float32", "int8", 25),
        ("float16", "float32", "float16", 60),
        ("float32", "float32", "float32", 110),
    ],
)
def test_a_form_has_its_types_and_its_precision(c, model, form, ends, kernels, least_db):
    blob = c.convert(model, form, inputs(), (0.0, 1.0))
    found = facts(blob, "x")
    assert (found.inputs[0].dtype, found.outputs[0].dtype) == (ends, ends)
    assert found.inputs[0].shape == (1, 8, 8, 2)
    weights = {t.dtype for t in found.subgraphs[0].tensors if t.stored and t.elements > 1000}
    assert weights == {kernels}
    assert snr_db(model, blob, inputs()) > least_db


def test_every_form_is_tested_here(c):
    (mark,) = test_a_form_has_its_types_and_its_precision.pytestmark
    assert tuple(row[0] for row in mark.args[1]) == c.FORMS


def test_an_int16x8_file_is_closer_to_float_than_an_int8_one(c, model):
    eight, sixteen = (c.convert(model, form, inputs(), (0, 1)) for form in ("int8", "int16x8"))
    assert snr_db(model, sixteen, inputs()) > snr_db(model, eight, inputs()) + 1


def test_256_pixels_from_minus_one_to_one_stay_255_values(c, model):
    from tfedge.tflite.running import quantised

    (given,) = facts(c.to_int8(model, 2 * inputs() - 1, (-1.0, 1.0)), "x").inputs
    detail = {"quantization": (given.scales[0], given.zero_points[0]), "dtype": np.int8}
    pixels = (np.arange(256, dtype=np.float32) - np.float32(127.5)) / np.float32(127.5)
    assert len(np.unique(quantised(pixels, detail))) == 255


def test_an_unknown_form_is_refused(c, model):
    with pytest.raises(ValueError, match=r"expected one of int8, .*, float32, got 'int4'"):
        c.convert(model, "int4", inputs(), (0, 1))


@pytest.mark.parametrize("form", ["int16x8", "dynamic", "float16", "float32"])
def test_a_quantization_aware_network_becomes_int8_only(c, model, form):
    from tfedge.training.quantization import quantization_aware

    aware = quantization_aware(model, inputs(), (0.0, 1.0))
    with pytest.raises(UserError, match=f"cannot become {form}\n  convert it to int8"):
        c.convert(aware, form, inputs(), (0.0, 1.0))
    assert facts(c.convert(aware, "int8", inputs(), (0.0, 1.0)), "x").float_tensors == ()
