import numpy as np
import pytest
from random_weights import difference, randomise

from tfedge.errors import UserError

pytestmark = pytest.mark.slow

SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def k():
    import keras

    return keras


def images(shape=SHAPE):
    return np.random.default_rng(0).normal(0, 2, (3, *shape)).astype(np.float32)


def same(k, model, folder, *, custom=None, trust=False):
    """Save a model, open the file and prove that its graph answers alike; return the graph."""
    from tfedge.networks.files import opened
    from tfedge.networks.graph import build

    file = folder / "n.keras"
    model.save(file)
    shape = tuple(model.input_shape[1:])
    graph, _ = opened(file, shape, custom=custom, trust=trust)
    x = images(shape)
    expected = np.asarray(model(x, training=False))
    assert difference(build(graph)(x, training=False), expected) < 1e-5
    return graph


def kinds(graph):
    return [call.layer.kind.__name__ for call in graph.calls]


def functional(k, function, shape=SHAPE):
    given = k.Input(shape)
    return randomise(k.Model(given, function(given)))


def test_a_functional_model_with_a_nested_and_a_shared_part_is_rebuilt(k, tmp_path):
    layers = k.layers
    inner = k.Sequential([layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()])

    def net(x):
        x = layers.Concatenate()([inner(x), inner(layers.ReLU(6.0, negative_slope=0.1)(x))])
        x = layers.SeparableConv2D(4, 3)(layers.Dropout(0.5)(x))
        x = layers.Conv2DTranspose(4, 3, strides=2)(layers.DepthwiseConv2D(3)(x))
        return layers.Dense(4)(layers.Flatten()(layers.MaxPooling2D()(x)))

    graph = same(k, functional(k, net), tmp_path)
    assert kinds(graph).count("Conv2D") == 2
    (conv,) = {call.layer for call in graph.calls if call.layer.kind.__name__ == "Conv2D"}
    assert graph.shared(conv)


def test_a_sequential_model_is_rebuilt(k, tmp_path):
    layers = k.layers
    parts = [k.Input(SHAPE), layers.ZeroPadding2D(), layers.Conv2D(4, 3, groups=1)]
    parts += [layers.Activation("relu"), layers.GlobalMaxPooling2D(), layers.Dense(4)]
    model = randomise(k.Sequential(parts))
    assert kinds(same(k, model, tmp_path)) == [
        *("ZeroPadding2D", "Conv2D", "Activation", "GlobalMaxPooling2D", "Dense"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("relu", "relu6", "sigmoid", "tanh", "silu", "swish", "elu", "selu", "gelu", "softplus"),
        *("softsign", "softmax", "exponential", "linear", "leaky_relu", "hard_sigmoid"),
        *("hard_silu", "hard_swish", "mish"),
    ],
)
def test_an_activation_means_what_keras_3_means_by_it(k, tmp_path, name):
    layers = k.layers
    same(k, functional(k, layers.Activation(name)), tmp_path)
    same(k, functional(k, layers.Dense(5, activation=name)), tmp_path)


@pytest.mark.parametrize("name", ["celu", "glu", "hard_tanh", "sparse_plus"])
def test_an_activation_that_tf_keras_lacks_is_refused_by_layer(k, tmp_path, name):
    with pytest.raises(UserError) as caught:
        same(k, functional(k, k.layers.Conv2D(4, 3, activation=name, name="new")), tmp_path)
    assert f"layer 'new' (Conv2D): has the activation {name!r}" in str(caught.value)
    assert "tf_keras does not know" in str(caught.value)


def test_activation_layers_are_rebuilt(k, tmp_path):
    layers = k.layers

    def net(x):
        x = layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.5)(x)
        x = layers.PReLU(shared_axes=[1, 2])(layers.LeakyReLU(negative_slope=0.3)(x))
        return layers.Softmax(axis=-1)(layers.ELU(alpha=0.5)(x))

    assert kinds(same(k, functional(k, net), tmp_path)) == [
        *("ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"),
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda o, x: o.relu6(x) + o.sigmoid(x) * o.tanh(x),
        lambda o, x: o.mean(x, axis=[1, 2]),
        lambda o, x: o.mean(x, axis=-1, keepdims=True),
        lambda o, x: o.max(x, axis=(1, 2), keepdims=True),
        lambda o, x: o.sum(x, axis=1),
        lambda o, x: o.reshape(x, (-1, 64, 3)),
        lambda o, x: o.transpose(x, (0, 3, 1, 2)),
        lambda o, x: o.concatenate([x, x * 2], axis=-1),
        lambda o, x: o.concatenate([x, x], axis=1),
        lambda o, x: o.stack([x, -x], axis=1),
        lambda o, x: x[:, ::2, 1:-1],
        lambda o, x: x[..., 0],
        lambda o, x: o.matmul(x, np.float32(np.arange(12)).reshape(3, 4)),
        lambda o, x: x @ np.ones((3, 2), np.float32),
        lambda o, x: o.einsum("bhwc,bhwd->bcd", x, x),
        lambda o, x: o.clip(x, 0, 3),
        lambda o, x: o.clip(x, -1, 1),
        lambda o, x: o.split(x, 3, axis=-1)[1],
        lambda o, x: o.split(x, [2], axis=-1)[1],
        lambda o, x: o.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0))),
        lambda o, x: o.expand_dims(x, 1),
        lambda o, x: o.squeeze(x[:, :1], 1),
        lambda o, x: o.flip(x, axis=2),
        lambda o, x: o.softmax(x, axis=1),
        lambda o, x: o.gelu(x),
        lambda o, x: o.gelu(x, approximate=False),
        lambda o, x: o.leaky_relu(x, 0.3),
        lambda o, x: o.hard_sigmoid(x),
        lambda o, x: o.hard_silu(x),
        lambda o, x: o.silu(x) + o.elu(x) + o.selu(x) + o.softplus(x) + o.softsign(x),
        lambda o, x: o.sqrt(o.abs(x)) + o.rsqrt(o.square(x) + 1) + o.exp(-x),
        lambda o, x: o.maximum(x, 0.5) - o.minimum(x, x[:, :1]),
        lambda o, x: (1 - x) / 4 + 2 / (o.absolute(x) + 1) + x**2,
        lambda o, x: o.cast(x, "float32") * np.float32([1, 2, 3]),
    ],
)
def test_keras_ops_compute_what_they_did(k, tmp_path, function):
    same(k, functional(k, lambda x: function(k.ops, x)), tmp_path)


def test_an_op_that_is_not_known_is_refused_by_name(k, tmp_path):
    with pytest.raises(UserError, match=r"layer 'fft\w*': keras.ops' FFT is not known here"):
        same(k, functional(k, lambda x: k.ops.fft((x, x))[0]), tmp_path)


@pytest.mark.parametrize(
    "layer",
    [
        lambda la: la.LSTM(5),
        lambda la: la.LSTM(5, return_sequences=True, go_backwards=True),
        lambda la: la.GRU(5),
        lambda la: la.GRU(5, reset_after=False, return_sequences=True),
        lambda la: la.SimpleRNN(5, activation="relu"),
        lambda la: la.Bidirectional(la.LSTM(5, return_sequences=True)),
        lambda la: la.Bidirectional(la.GRU(5), merge_mode="sum"),
        lambda la: la.Bidirectional(la.LSTM(5), backward_layer=la.GRU(5, go_backwards=True)),
        lambda la: la.TimeDistributed(la.Dense(5, activation="relu")),
        lambda la: la.SpectralNormalization(la.Conv1D(5, 3, activation="relu")),
        lambda la: la.SpectralNormalization(la.Dense(5, activation="hard_silu")),
        lambda la: la.LayerNormalization(),
        lambda la: la.LayerNormalization(center=False, epsilon=0.1),
        lambda la: la.GroupNormalization(2),
        lambda la: la.UnitNormalization(),
        lambda la: la.Conv1D(5, 3, padding="causal", dilation_rate=2),
        lambda la: la.SeparableConv1D(5, 3),
        lambda la: la.DepthwiseConv1D(3),
        lambda la: la.AveragePooling1D(2),
        lambda la: la.EinsumDense("abc,cd->abd", output_shape=(None, 7), bias_axes="d"),
        lambda la: lambda x: la.MultiHeadAttention(2, 3, value_dim=4)(x, x),
        lambda la: lambda x: la.MultiHeadAttention(2, 3, output_shape=5)(x, value=x, key=x),
        lambda la: lambda x: la.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True),
        lambda la: lambda x: la.Attention()([x, x]),
        lambda la: lambda x: la.Dot(axes=1)([x, x]),
    ],
)
def test_a_layer_of_sequences_is_rebuilt(k, tmp_path, layer):
    same(k, functional(k, layer(k.layers), (6, 4)), tmp_path)


@pytest.mark.parametrize(
    "layer",
    [
        lambda la: la.UpSampling2D(2),
        lambda la: la.UpSampling2D((2, 3), interpolation="bilinear"),
        lambda la: la.Resizing(5, 4),
        lambda la: la.Resizing(5, 4, interpolation="nearest"),
        lambda la: la.CenterCrop(5, 4),
        lambda la: la.Rescaling([1.0, 2.0, 3.0], offset=0.5),
        lambda la: la.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0]),
        lambda la: la.Cropping2D(1),
        lambda la: la.Permute((2, 3, 1)),
        lambda la: la.Conv2D(4, 3, dilation_rate=2),
        lambda la: la.Conv2D(6, 3, groups=3, strides=2, padding="same"),
        lambda la: la.AveragePooling2D(3, 2, padding="same"),
        lambda la: la.GlobalAveragePooling2D(keepdims=True),
        lambda la: la.BatchNormalization(axis=1),
        lambda la: la.RandomFlip(),
        lambda la: la.SpatialDropout2D(0.3),
        lambda la: la.GaussianNoise(0.3),
        lambda la: lambda x: la.Average()([x, la.Minimum()([x, la.Maximum()([x, x])])]),
        lambda la: lambda x: la.Subtract()([x, la.Multiply()([x, la.Add()([x, x])])]),
    ],
)
def test_a_layer_of_pictures_is_rebuilt(k, tmp_path, layer):
    same(k, functional(k, layer(k.layers)), tmp_path)


def test_a_normalisation_adapted_to_data_is_rebuilt(k, tmp_path):
    layer = k.layers.Normalization()
    layer.adapt(images() * 3 + 7)
    given = k.Input(SHAPE)
    same(k, k.Model(given, layer(given)), tmp_path)


def test_a_layer_made_of_layers_is_traced(k, tmp_path):
    layers = k.layers

    @k.saving.register_keras_serializable("tests")
    class Block(layers.Layer):
        def __init__(self, filters, **named):
            super().__init__(**named)
            self.filters = filters
            self.conv, self.norm = layers.Conv2D(filters, 3), layers.BatchNormalization()

        def call(self, x, training=None):
            return k.ops.relu6(self.norm(self.conv(x), training=training))

        def build(self, shape):
            self.conv.build(shape)
            self.norm.build(self.conv.compute_output_shape(shape))

        def get_config(self):
            return {**super().get_config(), "filters": self.filters}

    model = functional(k, lambda x: Block(4)(Block(4)(x)))
    graph = same(k, model, tmp_path, custom={"Block": Block})
    assert kinds(graph) == ["Conv2D", "BatchNormalization", "ReLU"] * 2


def unfollowed(k):
    class Mixed(k.layers.Layer):
        def build(self, shape):
            self.mix = self.add_weight(name="mix", shape=(shape[-1], shape[-1]))

        def call(self, x):
            return k.ops.matmul(x, self.mix)

    return Mixed


def test_a_layer_that_cannot_be_traced_is_refused_with_what_to_do(k, tmp_path):
    kind = unfollowed(k)
    model = functional(k, kind(name="mine"))
    with pytest.raises(UserError) as caught:
        same(k, model, tmp_path, custom={"Mixed": kind})
    text = str(caught.value)
    assert "layer 'mine' (Mixed): tf_keras has no such layer" in text
    assert "write its twin, class MixedTwin(tf_keras.layers.Layer)" in text


def test_a_layer_of_a_function_that_is_not_known_needs_a_twin(k, tmp_path):
    class Convolved(k.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(3, 3, shape[-1], 5))

        def call(self, x):
            return k.ops.conv(x, self.kernel, padding="same")

    model = functional(k, Convolved(name="mine"))
    with pytest.raises(UserError) as caught:
        same(k, model, tmp_path, custom={"Convolved": Convolved})
    text = str(caught.value)
    assert "layer 'mine' (Convolved): tf_keras has no such layer" in text
    assert "in it keras.ops' Conv is not known here" in text
    assert "write its twin, class ConvolvedTwin" in text


def test_a_layer_with_a_twin_of_tf_keras_becomes_that(k, tmp_path):
    from tfedge.networks.backend import keras as k2
    from tfedge.networks.files import opened
    from tfedge.networks.graph import build

    kind, twin = unfollowed(k), unfollowed(k2)

    def of_tf_keras(self, x):
        import tensorflow as tf

        return tf.matmul(x, self.mix)

    twin.call = of_tf_keras
    model = functional(k, kind(name="mine"))
    model.save(tmp_path / "n.keras")

    custom = {"Mixed": kind, "MixedTwin": twin}
    graph, _ = opened(tmp_path / "n.keras", SHAPE, custom=custom)
    assert graph.calls[0].layer.kind is twin
    assert difference(build(graph)(images()), np.asarray(model(images()))) < 1e-5


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda la: la.LSTM(5, recurrent_activation="hard_sigmoid", name="slow"),
            "layer 'slow' (LSTM): has recurrent_activation = 'hard_sigmoid', which tf_keras",
        ),
        (
            lambda la: la.Bidirectional(la.GRU(5, activation="celu", name="in"), name="both"),
            "layer 'both' (Bidirectional), in it 'forward_in': has the activation 'celu'",
        ),
        (
            lambda la: la.TimeDistributed(la.Dense(5, activation="hard_silu", name="in")),
            "in it 'in': has activation 'hard_silu'",
        ),
    ],
)
def test_an_activation_inside_that_tf_keras_has_not_is_refused(k, tmp_path, layer, message):
    with pytest.raises(UserError) as caught:
        same(k, functional(k, layer(k.layers), (6, 4)), tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["Dense", "Activation"])
def test_a_layer_as_activation_is_put_behind(k, tmp_path, kind):
    given = k.layers.LeakyReLU(0.3)
    made = k.layers.Dense(5, activation=given) if kind == "Dense" else k.layers.Activation(given)
    graph = same(k, functional(k, made), tmp_path)
    assert kinds(graph) == (["Dense", "LeakyReLU"] if kind == "Dense" else ["LeakyReLU"])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda o, x: o.elu(x, alpha=0.5), "keras.ops' Elu with alpha = 0.5 is not known"),
        (lambda o, x: o.pad(x, 1, mode="wrap"), "keras.ops' Pad with mode = 'wrap' is not known"),
    ],
)
def test_an_op_of_another_meaning_is_refused_by_name(k, tmp_path, function, message):
    with pytest.raises(UserError) as caught:
        same(k, functional(k, lambda x: function(k.ops, x)), tmp_path)
    assert message in str(caught.value)


def test_settings_that_tf_keras_does_not_know_are_refused_by_name(k, tmp_path):
    model = functional(k, k.layers.LayerNormalization(rms_scaling=True, name="norm"))
    with pytest.raises(UserError) as caught:
        same(k, model, tmp_path)
    assert "layer 'norm' (LayerNormalization): has rms_scaling = True" in str(caught.value)


def test_channels_first_is_refused_by_name(k, tmp_path):
    model = functional(k, k.layers.ZeroPadding2D(data_format="channels_first", name="pad"))
    with pytest.raises(UserError, match=r"'pad' \(ZeroPadding2D\): has its channels first"):
        same(k, model, tmp_path)


def test_a_model_trained_in_half_precision_is_rebuilt_in_float32(k, tmp_path):
    from tfedge.networks.files import opened
    from tfedge.networks.graph import build

    k.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = functional(k, lambda x: k.layers.Dense(4)(k.layers.Conv2D(4, 3)(x)))
    finally:
        k.config.set_dtype_policy("float32")
    model.save(tmp_path / "n.keras")
    graph, _ = opened(tmp_path / "n.keras", SHAPE)
    rebuilt = build(graph)
    assert {layer.compute_dtype for layer in rebuilt.layers} == {"float32"}
    assert difference(rebuilt(images()), np.asarray(model(images()), np.float32)) < 0.05
