import numpy as np
import pytest
from random_weights import randomise
from read import base, head, kinds, read, same

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def b():
    from tfedge.networks import backend

    backend.keras.backend.clear_session()
    return backend


def test_a_model_in_a_model_is_read_through(b):
    given = b.keras.Input((8, 8, 3))
    inner = base(b)
    graph = same(head(b, given, inner(given, training=False)))
    assert kinds(graph) == [
        *("Conv2D", "BatchNormalization", "ReLU", "GlobalAveragePooling2D", "Dense"),
    ]
    assert [call.layer.name for call in graph.calls[:2]] == ["conv", "norm"]


def test_models_three_deep_are_read_through(b):
    middle_input = b.keras.Input((8, 8, 3))
    middle = b.keras.Model(middle_input, base(b)(base(b, "other")(middle_input)))
    given = b.keras.Input((8, 8, 3))
    graph = same(head(b, given, middle(middle(given))))
    assert kinds(graph).count("Conv2D") == 4
    assert len({call.layer for call in graph.calls if "conv" in call.layer.name}) == 2


def test_the_same_name_in_two_models_becomes_two_names(b):
    given = b.keras.Input((8, 8, 3))
    graph = same(head(b, given, base(b, "other")(base(b)(given))))
    names = [call.layer.name for call in graph.calls]
    assert len(set(names)) == len(names)
    assert {"conv", "other_conv"} <= set(names)


def test_a_layer_called_twice_stays_one_layer(b):
    layers = b.keras.layers
    given = b.keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 3, padding="same")
    graph = same(head(b, given, shared(layers.ReLU()(shared(given)))))
    first, second = (call.layer for call in graph.calls if call.layer.kind is layers.Conv2D)
    assert first is second


def test_a_siamese_network_has_its_halves_weights_once(b):
    from tfedge.networks.graph import build

    half = base(b)
    given = b.keras.Input((8, 8, 6))
    apart = b.keras.layers.Subtract()([half(given[..., :3]), half(given[..., 3:])])
    model = head(b, given, apart)
    graph = same(model)
    assert kinds(graph).count("Conv2D") == 2
    (conv,) = {call.layer for call in graph.calls if call.layer.name == "conv"}
    assert graph.shared(conv)
    assert build(graph).count_params() == model.count_params()


def sequential(b):
    layers = b.keras.layers
    return [layers.Conv2D(3, 3), layers.BatchNormalization(), layers.Activation("tanh")]


def test_a_sequential_with_an_input_is_read(b):
    layers = b.keras.layers
    model = b.keras.Sequential([b.keras.Input((8, 8, 3)), *sequential(b), layers.Flatten()])
    graph = same(randomise(model))
    assert kinds(graph) == ["Conv2D", "BatchNormalization", "Activation", "Flatten"]


def test_a_sequential_that_has_only_been_called_is_read(b):
    model = b.keras.Sequential(sequential(b))
    model(np.zeros((1, 8, 8, 3), np.float32))
    assert kinds(same(randomise(model), (8, 8, 3))) == [
        "Conv2D",
        "BatchNormalization",
        "Activation",
    ]


def test_a_sequential_in_a_model_in_a_sequential_is_read_through(b):
    given = b.keras.Input((8, 8, 3))
    middle = b.keras.Model(given, b.keras.Sequential(sequential(b))(given))
    layers = b.keras.layers
    model = b.keras.Sequential(
        [b.keras.Input((8, 8, 3)), middle, layers.Flatten(), layers.Dense(4)]
    )
    graph = same(randomise(model))
    assert kinds(graph) == ["Conv2D", "BatchNormalization", "Activation", "Flatten", "Dense"]


def test_activations_that_are_functions_or_layers_are_taken_out(b):
    import tensorflow as tf

    layers = b.keras.layers
    given = b.keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, activation=lambda x: x * tf.nn.relu6(x + 3) / 6)(given)
    x = layers.Activation(tf.nn.relu6)(layers.Conv2D(3, 3, activation=tf.nn.leaky_relu)(x))
    x = layers.Conv2D(3, 1, activation=layers.PReLU(shared_axes=[1, 2]))(x)
    x = layers.Conv2D(3, 1, activation="tanh")(layers.Activation(layers.LeakyReLU(0.1))(x))
    assert kinds(same(head(b, given, x)))[:-2] == [
        *("Conv2D", "Affine", "ReLU", "Multiply", "Affine", "Conv2D", "LeakyReLU", "ReLU"),
        *("Conv2D", "PReLU", "LeakyReLU", "Conv2D"),
    ]


def test_layers_of_several_inputs_and_outputs_are_read(b):
    import tensorflow as tf

    layers = b.keras.layers
    given = b.keras.Input((6, 8))
    left, right = tf.split(given, 2, axis=-1)
    x = layers.MultiHeadAttention(2, 4)(left, value=right, key=left, use_causal_mask=True)
    sequence, state, _ = layers.LSTM(5, return_sequences=True, return_state=True)(x)
    x = tf.concat([sequence, layers.RepeatVector(6)(state)], axis=-1)
    x = layers.Flatten()(layers.LayerNormalization()(x))
    graph = same(randomise(b.keras.Model(given, layers.Dense(4)(x))))
    assert kinds(graph) == [
        *("Operation", "MultiHeadAttention", "LSTM", "RepeatVector", "Concatenate"),
        *("LayerNormalization", "Flatten", "Dense"),
    ]


def test_what_training_of_a_call_was_set_to_is_forgotten(b):
    layers = b.keras.layers
    given = b.keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(given, training=False)
    graph = read(head(b, given, layers.Dropout(0.5)(x, training=True)))
    assert all("training" not in call.arguments[1] for call in graph.calls)


def test_a_network_trained_in_half_precision_becomes_float32(b):
    from tfedge.networks.graph import build

    b.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        given = b.keras.Input((8, 8, 3))
        model = head(b, given, base(b)(given))
    finally:
        b.keras.mixed_precision.set_global_policy("float32")
    assert {layer.compute_dtype for layer in build(read(model)).layers} == {"float32"}


def test_channels_first_is_refused_by_name(b):
    given = b.keras.Input((3, 8, 8))
    x = b.keras.layers.ZeroPadding2D(data_format="channels_first", name="pad")(given)
    with pytest.raises(UserError, match=r"'pad' \(ZeroPadding2D\): has its channels first"):
        read(b.keras.Model(given, x))


def test_names_that_a_tflite_file_could_not_tell_apart_are_mended(b):
    given = b.keras.Input((8, 8, 3))
    model = head(b, given, b.keras.layers.ReLU(name="stage/relu.1")(given))
    assert same(model).calls[0].layer.name == "stage_relu_1"


def test_reading_leaves_the_model_as_it_was(b):
    given = b.keras.Input((8, 8, 3))
    model = head(b, given, base(b)(given))
    before = model.get_weights()
    graph = read(model)
    for call in graph.calls:
        for weight in call.layer.weights:
            weight *= 0
    assert all(map(np.array_equal, model.get_weights(), before))
    assert [layer.name for layer in model.layers][1] == "base"


@pytest.mark.parametrize(
    ("name", "becomes"),
    [("my dense", "my_dense"), ("ünï", "n"), ("a.b:c;d/e f", "a_b_c_d_e_f"), ("é", "layer")],
)
def test_a_name_that_tensorflow_does_not_take_is_changed(b, name, becomes):
    given = b.keras.Input((8, 8, 3))
    conv = b.keras.layers.Conv2D(3, 3)
    model = head(b, given, conv(given))
    conv._name = name  # as Keras 3 allows
    assert same(model).calls[0].layer.name == becomes


def test_spectral_normalization_is_the_layer_in_it(b):
    given = b.keras.Input((8, 8, 3))
    conv = b.keras.layers.Conv2D(3, 3, activation="relu")
    x = b.keras.layers.SpectralNormalization(conv, name="spectral")(given)
    graph = same(head(b, given, x))
    assert kinds(graph)[0] == "Conv2D"
    assert graph.calls[0].layer.name == "spectral"
