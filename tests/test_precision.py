import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def p():
    from tfedge.networks import precision

    return precision


@pytest.fixture
def model(p):
    layers = p.keras.layers
    x = given = p.keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, name="c")(x * 2.0 + 1.0)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return p.keras.Model(given, layers.Dense(3)(layers.Flatten()(x)), name="net")


def test_a_float32_twin_answers_bit_for_bit(p, model):
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype(np.float32)
    twin = p.in_precision(model, "float32")
    assert np.array_equal(twin(x), model(x))
    assert not {id(w) for w in twin.weights} & {id(w) for w in model.weights}


def test_operators_between_layers_are_computed_in_bfloat16_as_well(p, model):
    twin = p.in_precision(model, "bfloat16")
    assert twin.get_layer("c").output.dtype.name == "bfloat16"
    assert twin.name == "net"
    assert [w.shape for w in twin.weights] == [w.shape for w in model.weights]
    assert {w.dtype.name for w in model.weights} == {"float32"}


def test_what_a_twin_learns_fits_into_the_network_it_was_made_of(p, model):
    twin = p.in_precision(model, "bfloat16")
    twin.compile("sgd", p.keras.losses.CategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 2)).astype(np.float32)
    twin.fit(x, np.eye(3, dtype=np.float32)[np.arange(8) % 3], verbose=0)
    model.set_weights(twin.get_weights())
    assert model(x).numpy() == pytest.approx(twin(x).numpy(), abs=0.1)
