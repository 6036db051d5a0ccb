import numpy as np
import pytest
from random_weights import randomise
from read import head, kinds, read, same

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def b():
    from tfedge.networks import backend

    backend.keras.backend.clear_session()
    return backend


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


@pytest.mark.parametrize(
    "function",
    [
        lambda tf, x, w: tf.nn.conv2d(x, tf.reshape(w, (1, 1, 3, 3)), 1, "SAME"),
        lambda tf, x, w: tf.tensordot(x, w, 1),
        lambda tf, x, w: tf.nn.depthwise_conv2d(x, tf.reshape(w, (3, 1, 3, 1)), [1] * 4, "SAME"),
        lambda tf, x, w: tf.ensure_shape(x, (None, 8, 8, 3)) * tf.linalg.diag_part(w),
    ],
)
@pytest.mark.parametrize("weights", [True, False])
def test_a_layer_of_functions_that_are_not_known_is_kept(b, function, weights):
    import tensorflow as tf

    class Own(b.keras.layers.Layer):
        def build(self, shape):
            self.kernel = tf.constant(np.arange(9, dtype=np.float32).reshape(3, 3))
            if weights:
                self.kernel = self.add_weight(name="kernel", shape=(3, 3))

        def call(self, x):
            return function(tf, x, self.kernel)

    given = b.keras.Input((8, 8, 3))
    graph = same(head(b, given, Own()(given)))
    assert Own in [call.layer.kind for call in graph.calls] or not weights


def test_a_tf_function_is_followed(b):
    import tensorflow as tf

    layers = b.keras.layers

    class Net(b.keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.dense = layers.Conv2D(4, 3), layers.Dense(4)

        @tf.function
        def call(self, x, training=False):
            return self.dense(tf.reduce_mean(tf.nn.relu(self.conv(x)), axis=[1, 2]))

    model = Net()
    model.build((None, 8, 8, 3))
    graph = same(randomise(model), (8, 8, 3))
    assert kinds(graph) == ["Conv2D", "ReLU", "GlobalAveragePooling2D", "Dense"]


def test_a_long_reason_is_cut_between_words(b):
    class Talking(b.keras.Model):
        def call(self, x):
            raise TypeError("never " * 100)

    with pytest.raises(UserError) as caught:
        read(Talking(name="talking"), (8, 8, 3))
    line, _ = str(caught.value).splitlines()
    assert line.endswith("never ...")


def test_a_function_in_a_lambda_that_leaves_tensorflow_is_refused_by_name(b):
    import tensorflow as tf

    def by_numpy(x):
        return tf.ensure_shape(tf.numpy_function(np.abs, [x], tf.float32), x.shape)

    given = b.keras.Input((8, 8, 3))
    model = head(b, given, b.keras.layers.Lambda(by_numpy, name="sly")(given))
    with pytest.raises(UserError) as caught:
        read(model)
    assert str(caught.value).startswith("layer 'sly' (Lambda), in it layer 'tf.numpy_function")
    assert "is a call of tf.numpy_function, which is not known here" in str(caught.value)


def test_a_layer_that_makes_no_known_shape_is_refused_by_name(b):
    import tensorflow as tf

    class Shapeless(b.keras.layers.Layer):
        def call(self, x):
            return tf.numpy_function(np.abs, [x], tf.float32)

        def compute_output_shape(self, shape):
            return tf.TensorShape(None)

    given = b.keras.Input((8, 8, 3))
    model = b.keras.Model(given, Shapeless(name="shapeless")(given))
    with pytest.raises(UserError, match=r"'shapeless' \(Shapeless\): makes a tensor of unknown"):
        read(model)


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


def test_a_layer_of_a_function_called_twice_is_one_layer(b):
    layers = b.keras.layers
    given = b.keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 3, padding="same", activation=lambda x: x * 2)
    graph = same(head(b, given, shared(shared(given))))
    assert kinds(graph)[:4] == ["Conv2D", "Affine"] * 2
    assert graph.calls[0].layer is graph.calls[2].layer


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
