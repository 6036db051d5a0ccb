import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s():
    from tfedge.networks import separable

    return separable


def network(s):
    layers = s.keras.layers
    x = inputs = s.keras.Input((8, 8, 2))
    x = layers.SeparableConv2D(4, 3, strides=2, depth_multiplier=2, name="one")(x)
    again = layers.SeparableConv2D(4, 3, padding="same", activation="relu", name="two")
    x = again(again(layers.BatchNormalization()(x)))
    x = layers.SeparableConv2D(3, 3, use_bias=False, name="three")(layers.Add()([x, x]))
    return s.keras.Model(inputs, layers.Flatten()(x))


def test_the_halves_answer_as_the_whole_even_where_a_layer_is_used_twice(s):
    model = network(s)
    weights = [np.random.default_rng(0).normal(size=w.shape) ** 2 for w in model.get_weights()]
    model.set_weights(weights)
    twin = s.split_separable(model)
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 2)).astype(np.float32)
    assert twin(x).numpy() == pytest.approx(model(x).numpy(), rel=1e-4, abs=1e-3)
    assert twin.count_params() == model.count_params()
    assert not any("Separable" in type(layer).__name__ for layer in twin.layers)
    assert {"one", "one_depthwise", "two", "two_depthwise"} <= {layer.name for layer in twin.layers}


def test_a_layer_that_is_to_be_kept_is_kept(s):
    twin = s.split_separable(network(s), keep=["two"])
    assert type(twin.get_layer("two")).__name__ == "SeparableConv2D"
    assert type(twin.get_layer("one")).__name__ == "Conv2D"


def test_a_network_of_a_users_own_layers_keeps_them(s):
    class Twice(s.keras.layers.Layer):
        def call(self, x):
            return 2 * x

    inputs = s.keras.Input((8, 8, 2))
    model = s.keras.Model(inputs, s.keras.layers.SeparableConv2D(3, 3)(Twice()(inputs)))
    x = np.ones((1, 8, 8, 2), np.float32)
    assert s.split_separable(model)(x).numpy() == pytest.approx(model(x).numpy(), rel=1e-5)
