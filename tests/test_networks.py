import numpy as np
import pytest

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def b():
    from tfedge.networks import backend

    return backend


def dense(b, classes=3):
    layers = b.keras.layers
    x = inputs = b.keras.Input((5,))
    x = layers.Dense(8, "relu")(x)
    return b.keras.Model(inputs, layers.Dense(classes)(layers.BatchNormalization()(x)))


def test_a_builder_is_called_with_shape_classes_and_its_options(b):
    def net(shape, classes, width=1):
        assert (shape, classes, width) == ((5,), 3, 7)
        return dense(b)

    assert b.build(net, (5,), 3, {"width": 7}).output_shape == (None, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: None, "must return a tf_keras.Model, got builtins.NoneType"),
        (
            lambda b: keras3(),
            "got keras.src.models.sequential.Sequential\n  tfmot knows Keras 2 only",
        ),
        (lambda b: dense(b, 4), "answers with (4,), but the data has 3 classes"),
        (lambda b: two(b), "answers with 2 outputs\n  build it with one, and give it exits after"),
    ],
)
def test_a_builder_that_gives_something_else_is_told_what_is_wanted(b, make, message):
    with pytest.raises(UserError) as caught:
        b.build(lambda shape, classes: make(b), (5,), 3, {})
    assert message in str(caught.value)


def two(b):
    x = b.keras.Input((5,))
    return b.keras.Model(x, [b.keras.layers.Dense(3)(x), b.keras.layers.Dense(3)(x)])


def keras3():
    import keras

    return keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(3)])


def test_a_builder_for_another_input_is_refused(b):
    with pytest.raises(UserError, match=r"takes \(5,\), but the data is \(6,\)"):
        b.build(lambda shape, classes: dense(b), (6,), 3, {})


def test_a_bfloat16_twin_keeps_float32_weights_and_answers_in_float32(b):
    from tfedge.networks.precision import in_precision

    model = dense(b)
    twin = in_precision(model, "bfloat16")
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    assert {weight.dtype.name for weight in twin.weights} == {"float32"}
    assert twin.layers[1].compute_dtype == "bfloat16"
    assert twin(x).dtype.name == "float32"
    assert twin(x).numpy() == pytest.approx(model(x).numpy(), abs=0.1)
    before = model.get_weights()
    twin.set_weights([weight + 1 for weight in before])
    assert all(map(np.array_equal, model.get_weights(), before))


def test_a_network_in_a_network_has_no_twin(b):
    from tfedge.networks.precision import in_precision

    outer = b.keras.Sequential([b.keras.layers.InputLayer((5,)), dense(b)])
    with pytest.raises(UserError, match="is a network in a network"):
        in_precision(outer, "bfloat16")
