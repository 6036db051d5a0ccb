import types

import numpy as np
import pytest

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def b():
    from tfedge.networks import backend

    return backend


def refusal(b, *layers, shape=(5,), classes=3):
    with pytest.raises(UserError) as caught:
        b.build(lambda *_: b.keras.Sequential(layers), shape, classes, {})
    return str(caught.value)


def test_a_softmax_at_the_end_is_refused_in_each_of_its_forms(b):
    layers = b.keras.layers
    given = layers.InputLayer((5,))
    for end in ([layers.Dense(3, activation="softmax")], [layers.Dense(3), layers.Softmax()],
                [layers.Dense(3), layers.Activation("softmax")]):  # fmt: skip
        assert "ends in a softmax, and has to answer with logits" in refusal(b, given, *end)


def test_a_network_without_an_input_is_refused(b):
    assert "give a Sequential a keras.Input first" in refusal(b, b.keras.layers.Dense(3))


def test_a_network_of_two_inputs_is_refused(b):
    def two(shape, classes):
        ends = [b.keras.Input(shape), b.keras.Input(shape)]
        return b.keras.Model(ends, b.keras.layers.Dense(classes)(ends[0] + ends[1]))

    with pytest.raises(UserError, match=r"two\(\): takes .* but the data is \(5,\)"):
        b.build(two, (5,), 3, {})


def test_the_same_build_names_its_layers_the_same(b):
    def net(shape, classes):
        layers = b.keras.layers
        return b.keras.Sequential([layers.InputLayer(shape), layers.ReLU(), layers.Dense(classes)])

    names = [[layer.name for layer in b.build(net, (5,), 3, {}).layers] for _ in "ab"]
    assert names[0] == names[1]


def test_a_network_of_a_users_own_layers_comes_back(b, tmp_path):
    @b.keras.saving.register_keras_serializable("mine")
    class Registered(b.keras.layers.Layer):
        def call(self, x):
            return x + 1

    class Plain(b.keras.layers.Layer):
        def call(self, x):
            return x * 2

    module = types.ModuleType("net")
    module.Registered, module.Plain, module.number = Registered, Plain, 3
    model = b.keras.Sequential([b.keras.layers.InputLayer((5,)), Registered(), Plain()])
    from tfedge.networks import saving

    saving.save_model(model, tmp_path / "m.h5")
    again = saving.load_model(tmp_path / "m.h5", b.layers_in(module))
    assert again(np.zeros((1, 5), np.float32)).numpy().tolist() == [[2.0] * 5]
    assert not hasattr(again, "optimizer") or again.optimizer is None


def test_dropout_draws_by_seed_epoch_and_layer_alone(b):
    layers = b.keras.layers
    given = b.keras.Input((400,))
    drops = [layers.Dropout(0.5)(given), layers.Dropout(0.5)(given)]
    model, x = b.keras.Model(given, drops), np.ones((1, 400), np.float32)

    def drawn(seed, epoch):
        b.reseed(model, seed, epoch)
        return [part.numpy() for part in model(x, training=True)]

    first = drawn(1, 0)
    other = [drawn(1, 1), drawn(2, 0)]
    again = drawn(1, 0)
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(*first)
    assert not any(np.array_equal(first[0], each[0]) for each in other)
