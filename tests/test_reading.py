import numpy as np
import pytest
from random_weights import difference, randomise

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def b():
    from tfedge.networks import backend

    backend.keras.backend.clear_session()
    return backend


def read(model, shape=None):
    from tfedge.networks.keras2 import Keras2
    from tfedge.networks.reading import read

    return read(model, Keras2(), shape)


def same(model, shape=None):
    """Read a model, prove that its graph answers as it does, and return the graph."""
    from tfedge.networks.graph import build

    graph = read(model, shape)
    shape = tuple(size or 6 for size in (shape or model.input_shape[1:]))
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    expected = model(x, training=False)
    assert difference(build(graph)(x, training=False), expected) < 1e-5
    return graph


def kinds(graph):
    return [call.layer.kind.__name__ for call in graph.calls]


def base(b, name="base", channels=3):
    """Return a functional model of a convolution, a BatchNormalization and a ReLU."""
    layers = b.keras.layers
    x = given = b.keras.Input((8, 8, channels))
    x = layers.Conv2D(channels, 3, padding="same", name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    return b.keras.Model(given, x, name=name)


def head(b, given, x, classes=4):
    x = b.keras.layers.GlobalAveragePooling2D()(x)
    return randomise(b.keras.Model(given, b.keras.layers.Dense(classes)(x)))


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


def test_a_subclassed_model_is_traced(b):
    layers = b.keras.layers

    class Net(b.keras.Model):
        def __init__(self):
            super().__init__()
            self.convs = [layers.Conv2D(4, 3, padding="same") for _ in range(3)]
            self.dropout, self.dense = layers.Dropout(0.5), layers.Dense(4)

        def call(self, x, training=False):
            for number, conv in enumerate(self.convs):
                x = conv(x) + x if number else conv(x)
            return self.dense(self.dropout(tf_mean(x), training=training))

    def tf_mean(x):
        import tensorflow as tf

        return tf.reduce_mean(x, axis=(1, 2))

    model = Net()
    model.build((None, 8, 8, 3))
    graph = same(randomise(model), (8, 8, 3))
    assert kinds(graph) == [
        *("Conv2D", "Conv2D", "Add", "Conv2D", "Add"),
        *("GlobalAveragePooling2D", "Dropout", "Dense"),
    ]


def test_a_layer_made_of_layers_is_taken_apart(b):
    layers = b.keras.layers

    class Block(layers.Layer):
        def __init__(self, filters, **named):
            super().__init__(**named)
            self.conv = layers.Conv2D(filters, 3, padding="same", use_bias=False)
            self.norm = layers.BatchNormalization()

        def call(self, x, training=None):
            import tensorflow as tf

            return x + tf.nn.relu6(self.norm(self.conv(x), training=training))

    given = b.keras.Input((8, 8, 3))
    shared = Block(3, name="shared")
    graph = same(head(b, given, shared(shared(Block(3)(given)))))
    assert kinds(graph)[:4] == ["Conv2D", "BatchNormalization", "ReLU", "Add"]
    assert kinds(graph).count("Conv2D") == 3
    assert len({call.layer for call in graph.calls if call.layer.kind is layers.Conv2D}) == 2


def test_a_layer_with_weights_that_arithmetic_uses_is_taken_apart(b):
    layers = b.keras.layers

    class LayerScale(layers.Layer):
        def build(self, shape):
            self.gamma = self.add_weight(name="gamma", shape=(shape[-1],))

        def call(self, x):
            return x * self.gamma

    given = b.keras.Input((8, 8, 3))
    graph = same(head(b, given, LayerScale()(given)))
    assert kinds(graph)[0] == "Affine"


def test_a_layer_with_weights_that_only_it_can_use_is_kept(b):
    layers = b.keras.layers

    class Mixed(layers.Layer):
        def build(self, shape):
            self.mix = self.add_weight(name="mix", shape=(shape[-1], shape[-1]))

        def call(self, x):
            import tensorflow as tf

            return tf.einsum("bhwc,cd->bhwd", x, self.mix)

    given = b.keras.Input((8, 8, 3))
    graph = same(head(b, given, Mixed(name="mixed")(given)))
    assert graph.calls[0].layer.kind is Mixed
    assert [weight.shape for weight in graph.calls[0].layer.weights] == [(3, 3)]


def test_a_layer_that_asks_for_values_is_kept(b):
    # Keras makes a tf.cond of it when the layer is called, which no graph of layers can say.
    class Flipped(b.keras.layers.Layer):
        def call(self, x):
            import tensorflow as tf

            if tf.reduce_sum(x) > 0:
                return x
            return -x

    given = b.keras.Input((8, 8, 3))
    assert same(head(b, given, Flipped()(given))).calls[0].layer.kind is Flipped


def test_a_layer_for_training_only_is_dropped(b):
    class StochasticDepth(b.keras.layers.Layer):
        def call(self, x, training=None):
            import tensorflow as tf

            if training:
                return x * tf.cast(tf.random.uniform(()) > 0.5, x.dtype)
            return x

    given = b.keras.Input((8, 8, 3))
    x = b.keras.layers.Conv2D(3, 3, padding="same")(given)
    graph = same(head(b, given, b.keras.layers.Add()([given, StochasticDepth()(x)])))
    assert kinds(graph) == ["Conv2D", "Add", "GlobalAveragePooling2D", "Dense"]


def test_a_subclassed_model_that_asks_for_values_is_refused_by_name(b):
    class Doubtful(b.keras.Model):
        def __init__(self):
            super().__init__(name="doubtful")
            self.dense = b.keras.layers.Dense(4)

        def call(self, x):
            import tensorflow as tf

            y = self.dense(x)
            return y if float(tf.reduce_sum(y)) > 0 else -y

    with pytest.raises(UserError) as caught:
        read(Doubtful(), (5,))
    assert str(caught.value).startswith(
        "network 'doubtful' (Doubtful): its call cannot be followed: TypeError"
    )
    assert "write it as a functional model" in str(caught.value)


def test_a_subclassed_model_of_unknown_input_is_refused_by_name(b):
    class Any(b.keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UserError, match=r"\(Any\): does not say what it takes"):
        read(Any())


def test_a_subclassed_model_in_a_model_that_asks_for_values_is_refused_by_name(b):
    class Doubtful(b.keras.Model):
        def call(self, x):
            import tensorflow as tf

            return x if tf.reduce_sum(x) > 0 else -x

    given = b.keras.Input((8, 8, 3))
    model = head(b, given, Doubtful(name="doubtful")(given))
    with pytest.raises(UserError, match=r"layer 'doubtful' \(Doubtful\): its call cannot be"):
        read(model)


def test_a_lambda_is_followed(b):
    layers = b.keras.layers
    given = b.keras.Input((8, 8, 3))
    x = layers.Lambda(lambda x: x * 2.0 - 1.0)(given)
    x = layers.Lambda(lambda x, by: x[:, ::by], arguments={"by": 2})(x)
    graph = same(head(b, given, x))
    assert kinds(graph)[:3] == ["Affine", "Affine", "Operation"]


def test_a_lambda_that_gives_what_it_gets_is_dropped(b):
    given = b.keras.Input((8, 8, 3))
    graph = same(head(b, given, b.keras.layers.Lambda(lambda x: x)(given)))
    assert kinds(graph) == ["GlobalAveragePooling2D", "Dense"]


def test_a_lambda_that_cannot_be_followed_is_refused_by_name(b):
    def by_numpy(x):
        import tensorflow as tf

        return x if float(tf.reduce_sum(x)) > 0 else -x

    x = given = b.keras.Input((8, 8, 3))
    layer = b.keras.layers.Lambda(lambda x: x, name="sly")
    model = head(b, given, layer(x))
    layer.function = by_numpy
    with pytest.raises(UserError, match=r"layer 'sly' \(Lambda\): its call cannot be followed"):
        read(model)


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


def test_a_layer_without_get_config_is_refused_by_name(b):
    import tensorflow as tf

    class Turned(b.keras.layers.Layer):
        def __init__(self, angle, **named):
            super().__init__(**named)
            self.kernel = self.add_weight(name="kernel", shape=(3, 3))

        def call(self, x):
            return tf.linalg.matmul(x, self.kernel)

    given = b.keras.Input((8, 8, 3))
    model = head(b, given, Turned(object(), name="turned")(given))
    with pytest.raises(UserError, match=r"'turned' \(Turned\): cannot say how it was made"):
        read(model)


def test_a_layer_whose_arguments_keras_remembers_needs_no_get_config(b):
    import tensorflow as tf

    class Powers(b.keras.layers.Layer):
        def __init__(self, power, **named):
            super().__init__(**named)
            self.power = power
            self.kernel = self.add_weight(name="kernel", shape=(3, 3))

        def call(self, x):
            return tf.linalg.matmul(x, self.kernel) ** self.power

    given = b.keras.Input((8, 8, 3))
    graph = same(head(b, given, Powers(2)(given)))
    assert graph.calls[0].layer.kind is Powers


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
