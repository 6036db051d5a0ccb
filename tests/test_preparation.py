import numpy as np
import pytest
from prepared import answers, kinds, pixels, prepared
from random_weights import difference, randomise

from tfedge.errors import UserError

pytestmark = pytest.mark.slow

SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def k():
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    return keras


def network(k, function, classes=4, shape=SHAPE, end=None):
    """Return conv -> `function` -> pooling -> dense, and `end` behind, with random weights."""
    layers = k.layers
    x = given = k.Input(shape)
    x = layers.Conv2D(8, 3, padding="same", name="conv")(x)
    x = layers.Dense(classes)(layers.GlobalAveragePooling2D(name="pool")(function(x)))
    return randomise(k.Model(given, end(x) if end else x))


def unit(x):
    return x.astype(np.float32) / 255


def left_of(model):
    """Prepare a network and prove that it answers as before; count the layers of its middle."""
    made = prepared(model)
    x = pixels(SHAPE)
    assert difference(answers(made, x), model(unit(x), training=False)) < 1e-5
    left = kinds(made.model)
    for name in ("Conv2D", "GlobalAveragePooling2D", "Dense"):
        left[name] -= 1
    return {name: count for name, count in left.items() if count}


@pytest.mark.parametrize(
    "function",
    [
        lambda tf, x: x * tf.nn.relu6(x + 3) / 6,
        lambda tf, x: tf.nn.relu6(x + 3) * x * (1.0 / 6.0),
        lambda tf, x: x * (tf.nn.relu6(x + 3.0) * (1.0 / 6.0)),
        lambda tf, x: (tf.nn.relu6(x + 3.0) / 6.0) * x,
        lambda tf, x: tf.math.multiply(x, tf.clip_by_value(3.0 + x, 0.0, 6.0) / 6.0),
    ],
)
def test_hard_swish_is_recognised_however_it_is_written(k, function):
    import tensorflow as tf

    assert left_of(network(k, lambda x: function(tf, x))) == {"HardSwish": 1}


@pytest.mark.parametrize(
    "function",
    [
        lambda tf, x: tf.nn.relu6(x + 3) / 6,
        lambda tf, x: tf.nn.relu6(x + 3) * (1 / 6),
    ],
)
def test_hard_sigmoid_is_recognised(k, function):
    import tensorflow as tf

    assert left_of(network(k, lambda x: function(tf, x))) == {"HardSigmoid": 1}


def test_the_hard_sigmoid_of_keras_2_keeps_its_slope(k):
    # clip(0.2 x + 0.5) is relu6(1.2 x + 3) / 6; the 1.2 goes into the convolution before it.
    model = network(k, k.layers.Activation("hard_sigmoid"))
    assert left_of(model) == {"HardSigmoid": 1}
    kernel = prepared(model).model.get_layer("conv").get_weights()[0]
    assert difference(kernel, 1.2 * model.get_layer("conv").get_weights()[0]) < 1e-6


@pytest.mark.parametrize(
    "function",
    [
        lambda tf, x: x * tf.sigmoid(x),
        lambda tf, x: tf.nn.sigmoid(x) * x,
        lambda tf, x: tf.nn.silu(x),
    ],
)
def test_swish_is_recognised(k, function):
    import tensorflow as tf

    model = network(k, lambda x: function(tf, x))
    assert left_of(model) == {"Activation": 1}
    (made,) = [la for la in prepared(model).model.layers if isinstance(la, k.layers.Activation)]
    assert made.activation is k.activations.swish


def test_a_gate_that_others_read_is_no_swish(k):
    import tensorflow as tf

    def middle(x):
        gate = tf.sigmoid(x)
        return x * gate + gate

    assert left_of(network(k, middle)) == {"Activation": 1, "Multiply": 1, "Add": 1}


@pytest.mark.parametrize(
    "function",
    [
        lambda tf, x: x * tf.nn.relu6(x + 3) / 5,
        lambda tf, x: x * tf.nn.relu6(x + 2) / 6,
        lambda tf, x: x * tf.nn.relu(x + 3) / 6,
        lambda tf, x: (x + 1) * tf.nn.relu6(x + 3) / 6,
        lambda tf, x: x * tf.clip_by_value(x + 3, 0.0, 5.0) / 6,
    ],
)
def test_what_only_looks_like_hard_swish_is_not_made_one(k, function):
    import tensorflow as tf

    assert "HardSwish" not in left_of(network(k, lambda x: function(tf, x)))


@pytest.mark.parametrize("gate", ["sigmoid", "hard"])
def test_squeeze_and_excite_is_made_of_layers(k, gate):
    import tensorflow as tf

    layers = k.layers

    def middle(x):
        squeezed = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
        squeezed = tf.nn.relu(layers.Conv2D(4, 1)(squeezed))
        excited = layers.Conv2D(8, 1, activation="sigmoid" if gate == "sigmoid" else None)(squeezed)
        return x * (excited if gate == "sigmoid" else tf.nn.relu6(excited + 3.0) / 6.0)

    expected = {"GlobalAveragePooling2D": 1, "Conv2D": 2, "ReLU": 1, "Multiply": 1}
    expected["Activation" if gate == "sigmoid" else "HardSigmoid"] = 1
    assert left_of(network(k, middle)) == expected


def test_squeeze_and_excite_of_dense_layers_is_made_of_layers(k):
    layers = k.layers

    def middle(x):
        squeezed = layers.Dense(2, activation="relu")(layers.GlobalAveragePooling2D()(x))
        return x * layers.Reshape((1, 1, 8))(layers.Dense(8, "sigmoid")(squeezed))

    assert left_of(network(k, middle)) == {
        "GlobalAveragePooling2D": 1,
        "Dense": 2,
        "Activation": 1,
        "Reshape": 1,
        "Multiply": 1,
    }


def test_relu6_and_sums_become_layers(k):
    import tensorflow as tf

    def middle(x):
        y = tf.nn.relu6(k.layers.Conv2D(8, 1)(x)) + x
        return tf.concat([y, tf.maximum(x, y)], axis=-1)

    assert left_of(network(k, middle)) == {
        "Conv2D": 1,
        "ReLU": 1,
        "Add": 1,
        "Maximum": 1,
        "Concatenate": 1,
    }


@pytest.mark.parametrize("name", ["tanh", "swish", "elu", "gelu", "sigmoid", "hard_sigmoid"])
def test_an_activation_inside_of_a_layer_is_put_behind_it(k, name):
    model = network(k, k.layers.Conv2D(8, 1, activation=name))
    inside = prepared(model).model.layers
    assert {layer.activation.__name__ for layer in inside if "Conv" in type(layer).__name__} == {
        "linear"
    }
    left_of(model)


def test_relu_and_nothing_stay_inside_of_a_layer(k):
    model = network(k, k.layers.Conv2D(8, 1, activation="relu"))
    assert left_of(model) == {"Conv2D": 1}


def test_linear_activations_are_taken_out(k):
    import tensorflow as tf

    model = network(k, lambda x: tf.identity(k.layers.Activation("linear")(x)))
    assert left_of(model) == {}


@pytest.mark.parametrize(
    "end",
    [
        lambda layers: layers.Softmax(),
        lambda layers: layers.Activation("softmax"),
        lambda layers: layers.Softmax(axis=1),
        lambda layers: lambda x: layers.Reshape((4,))(layers.Softmax()(x)),
    ],
)
def test_a_softmax_at_the_end_is_taken_off(k, end):
    model = network(k, lambda x: x, end=end(k.layers))
    made = prepared(model)
    assert made.output == "softmax"
    logits = k.Model(model.input, model.layers[3].output)(unit(pixels(SHAPE))).numpy()
    assert difference(answers(made, pixels(SHAPE)), logits) < 1e-5


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_head_of_probabilities_in_a_dense_layer_gives_logits(k, activation):
    model = network(k, lambda x: x, end=k.layers.Dense(4, activation=activation))
    made = prepared(model)
    assert made.output == activation
    assert kinds(made.model)["Dense"] == 2
    hidden = k.Model(model.input, model.layers[-1].input)(unit(pixels(SHAPE))).numpy()
    kernel, bias = model.layers[-1].get_weights()
    assert difference(answers(made, pixels(SHAPE)), hidden @ kernel + bias) < 1e-5


def test_logits_stay_what_they_are(k):
    assert prepared(network(k, lambda x: x)).output == "softmax"


def test_a_softmax_inside_of_the_network_stays(k):
    layers = k.layers
    model = network(k, layers.Softmax())
    assert left_of(model) == {"Softmax": 1}


@pytest.mark.parametrize(
    "end",
    [
        lambda layers: None,
        lambda layers: layers.Activation("sigmoid"),
        lambda layers: layers.Dense(1, activation="sigmoid"),
        lambda layers: layers.LeakyReLU(),
    ],
)
def test_one_number_becomes_two_logits_that_say_the_same(k, end):
    end = end(k.layers)
    model = network(k, lambda x: x, classes=1, end=end)
    made = prepared(model, classes=2)
    got, x = answers(made, pixels(SHAPE)), pixels(SHAPE)
    before = model(unit(x)).numpy()
    probable = 1 / (1 + np.exp(-before)) if end is None or "LeakyReLU" in str(end) else before
    shares = np.exp(got) / np.exp(got).sum(axis=-1, keepdims=True)
    assert made.output == "softmax"
    assert shares[:, 1:] == pytest.approx(probable, rel=1e-5)
    assert shares[:, :1] == pytest.approx(1 - probable, abs=1e-5)
    assert any("-z/2 and z/2" in note for note in made.notes)


def test_one_number_for_four_classes_is_refused(k):
    with pytest.raises(UserError, match=r"answers with \(1,\), but the data has 4 classes"):
        prepared(network(k, lambda x: x, classes=1))


def test_each_rewrite_is_proved_and_noted(k):
    def middle(x):
        return k.layers.BatchNormalization()(k.layers.Conv2D(8, 1, activation="swish")(x))

    steps = prepared(network(k, middle, end=k.layers.Softmax())).steps
    assert list(steps) == [
        *("rebuilt flat", "activations as layers", "without softmax"),
        *("scales of their own", "scales as convolutions"),
    ]
    assert max(steps.values()) < 1e-5


def test_a_rewrite_that_changes_the_answers_is_refused(k, monkeypatch):
    from tfedge.networks.preparation import folding

    real = folding._scale_outputs
    monkeypatch.setattr(folding, "_scale_outputs", lambda layer, s, o: real(layer, s * 1.01, o))
    with pytest.raises(UserError, match="answers otherwise after 'scales folded': by"):
        prepared(network(k, k.layers.BatchNormalization()))


def test_a_network_that_answers_otherwise_than_it_did_is_refused(k):
    from tfedge.networks.files import made_by
    from tfedge.networks.preparation.preparing import Feed, prepare

    graph, told = made_by(network(k, lambda x: x), SHAPE)
    feed = Feed((0.0,) * 3, (255.0,) * 3)
    with pytest.raises(UserError, match="answers otherwise after 'rebuilt flat'"):
        prepare(graph, lambda x: told(x) + 0.1, pixels(SHAPE), feed, classes=4)


def test_networks_with_two_ends_are_refused(k):
    layers = k.layers
    one, two = k.Input((4,)), k.Input((4,))
    both = layers.Dense(4)(layers.Add()([one, two]))
    numbers = np.ones((4, 4), np.float32)
    from tfedge.networks.files import made_by
    from tfedge.networks.preparation.preparing import Feed, prepare

    for model, message in (
        (k.Model([one, two], both), "has 2 inputs"),
        (k.Model(one, [layers.Dense(4)(one), layers.Dense(2)(one)]), "has 2 outputs"),
    ):
        with pytest.raises(UserError, match=f"{message}\n  give a network with one input"):
            prepare(*made_by(model, (4,)), numbers, Feed((0.0,), (1.0,)), classes=4)


def flat(k, shape, answer=lambda x: x):
    x = given = k.Input(shape)
    x = k.layers.Dense(4)(k.layers.Flatten()(x))
    return randomise(k.Model(given, answer(x)))


@pytest.mark.parametrize(
    ("takes", "given", "wish"),
    [
        ((8, 8, 1), (8, 8, 3), "write channels = 1 in [data] of a folder; arrays"),
        ((6, 8, 3), (8, 8, 3), "write size = [6, 8] in [data] of a folder; arrays"),
        ((6, 6, 1), (8, 8, 3), "write size = [6, 6] and channels = 1 in [data]"),
        ((5,), (8, 8, 3), "give data of 1 axes, or begin the network with layers that take these"),
        ((5,), (3,), "give data of that shape"),
        ((5, 3), (8, 3), "give data of that shape"),
    ],
)
def test_data_of_another_shape_is_refused_with_what_would_fit(k, takes, given, wish):
    with pytest.raises(UserError, match=r"takes \(.*\), but the data is \(") as caught:
        prepared(flat(k, takes), pixels(given))
    assert wish in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_layer(k, value):
    model = network(k, lambda x: x)
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[0, 0, 0, 0] = value
    model.get_layer("conv").set_weights([kernel, bias])
    with pytest.raises(UserError, match=r"layer 'conv' \(Conv2D\): has weights that are not fin"):
        prepared(model)


def test_answers_that_are_not_finite_are_refused(k):
    import tensorflow as tf

    model = network(k, lambda x: tf.math.log(x))
    with pytest.raises(UserError, match="answers with what is no finite number") as caught:
        prepared(model)
    assert "takes" in str(caught.value)


def test_a_network_of_bytes_is_fed_with_pixels(k):
    import tensorflow as tf

    given = k.Input(SHAPE, dtype="uint8")
    x = tf.cast(given, tf.float32) / 255.0
    x = k.layers.Conv2D(4, 3)(x)
    model = randomise(k.Model(given, k.layers.Dense(4)(k.layers.GlobalAveragePooling2D()(x))))
    made = prepared(model, mean=127.5, std=127.5)
    assert made.feed.mean == (0.0, 0.0, 0.0)
    assert made.feed.std == pytest.approx((255.0,) * 3)
    assert difference(answers(made, pixels(SHAPE)), model(pixels(SHAPE))) < 1e-5


def test_what_answers_for_each_place_is_no_classifier(k):
    given = k.Input(SHAPE)
    with pytest.raises(UserError, match=r"answers with \(8, 8, 4\), and a classifier with") as at:
        prepared(k.Model(given, k.layers.Conv2D(4, 1)(given)))
    assert "end it in a pooling layer and Dense(4)" in str(at.value)
