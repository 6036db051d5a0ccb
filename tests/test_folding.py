import numpy as np
import pytest
from prepared import answers, kinds, pixels, prepared
from random_weights import difference, randomise

pytestmark = pytest.mark.slow

SHAPE = (8, 8, 4)


@pytest.fixture(scope="module")
def k():
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    return keras


def network(k, middle, shape=SHAPE):
    """Return a network of random weights: what `middle` makes of its input, then a head."""
    given = k.Input(shape)
    x = middle(given)
    x = k.layers.Flatten()(k.layers.ReLU()(x))
    return randomise(k.Model(given, k.layers.Dense(4)(x)))


def made_of(model, shape=SHAPE, **options):
    """Prepare a network and prove that it answers as before; return what is left."""
    x = pixels(shape)
    made = prepared(model, x, **options)
    expected = model(x.astype(np.float32) / 255, training=False)
    assert difference(answers(made, x), expected) < 1e-5
    return made.model


HEAD = {"ReLU": 1, "Flatten": 1, "Dense": 1}


@pytest.mark.parametrize(
    "layer",
    [
        lambda layers: layers.Conv2D(6, 3, padding="same", use_bias=False),
        lambda layers: layers.Conv2D(6, 3, strides=2, padding="same"),
        lambda layers: layers.Conv2D(6, 3, dilation_rate=2),
        lambda layers: layers.Conv2D(6, 3, groups=2, padding="same"),
        lambda layers: layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        lambda layers: layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda layers: layers.SeparableConv2D(6, 3, depth_multiplier=2, padding="same"),
        lambda layers: layers.Conv2DTranspose(6, 3, strides=2, padding="same"),
        lambda layers: layers.Dense(6, use_bias=False),
    ],
)
def test_a_batchnorm_behind_goes_into_the_layers_weights(k, layer):
    layer = layer(k.layers)
    left = made_of(network(k, lambda x: k.layers.BatchNormalization()(layer(x))))
    expected = dict(HEAD)
    expected[type(layer).__name__] = expected.get(type(layer).__name__, 0) + 1
    assert kinds(left) == expected


def test_what_goes_into_a_convolution_is_worked_out_by_hand(k):
    conv, norm = k.layers.Conv2D(6, 3), k.layers.BatchNormalization(epsilon=0.01)
    model = network(k, lambda x: norm(conv(x)))
    kernel, bias = conv.get_weights()
    gamma, beta, mean, variance = (weight.astype(np.float64) for weight in norm.get_weights())
    scale = gamma / np.sqrt(variance + 0.01)
    got = made_of(model).get_layer(conv.name).get_weights()
    assert difference(got[0], kernel * scale) < 1e-6
    assert difference(got[1], (bias - mean) * scale + beta) < 1e-6


@pytest.mark.parametrize(("scale", "center"), [(True, False), (False, True), (False, False)])
def test_a_batchnorm_without_gamma_or_beta_is_folded(k, scale, center):
    layers = k.layers
    norm = layers.BatchNormalization(scale=scale, center=center)
    left = made_of(network(k, lambda x: norm(layers.Conv2D(6, 3, use_bias=False)(x))))
    assert kinds(left) == {"Conv2D": 1, **HEAD}


def test_a_batchnorm_before_an_unpadded_layer_goes_into_it(k):
    layers = k.layers

    def middle(x):
        x = layers.MaxPooling2D()(x)  # so that it is not the network's first layer
        return layers.Conv2D(6, 3)(layers.BatchNormalization()(x))

    assert kinds(made_of(network(k, middle))) == {"MaxPooling2D": 1, "Conv2D": 1, **HEAD}


@pytest.mark.parametrize(
    ("layer", "folds"),
    [
        (lambda layers: layers.Conv2D(6, 3, use_bias=False), True),
        (lambda layers: layers.Conv2D(6, 1, padding="same", strides=2), True),
        (lambda layers: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), True),
        (lambda layers: layers.Dense(6), True),
        (lambda layers: layers.Conv2D(6, 3, padding="same"), False),
        (lambda layers: layers.DepthwiseConv2D(3, padding="same"), False),
        (lambda layers: layers.Conv2D(6, 3, groups=2), False),
        (lambda layers: layers.Conv2DTranspose(6, 3), False),
    ],
)
def test_an_offset_is_not_folded_over_padded_zeros(k, layer, folds):
    layer = layer(k.layers)

    def middle(x):
        return layer(k.layers.BatchNormalization()(k.layers.MaxPooling2D()(x)))

    left = kinds(made_of(network(k, middle)))
    if folds:
        assert "DepthwiseConv2D" not in left or type(layer).__name__ == "DepthwiseConv2D"
    expected = {"MaxPooling2D": 1, **HEAD}
    for kind in (type(layer).__name__, *([] if folds else ["DepthwiseConv2D"])):
        expected[kind] = expected.get(kind, 0) + 1
    assert left == expected


def test_a_scale_without_offset_is_folded_over_padded_zeros(k):
    layers = k.layers

    def middle(x):
        x = layers.MaxPooling2D()(x) * np.float32([2.0, 0.5, -1.0, 3.0])
        return layers.Conv2D(6, 3, padding="same")(x)

    assert kinds(made_of(network(k, middle))) == {"MaxPooling2D": 1, "Conv2D": 1, **HEAD}


def test_a_scale_goes_into_all_that_read_it_or_none(k):
    layers = k.layers

    def both(x, second):
        x = layers.BatchNormalization()(layers.MaxPooling2D()(x))
        return layers.Concatenate()([layers.Conv2D(6, 1)(x), second(x)])

    one = network(k, lambda x: both(x, layers.Conv2D(6, 1)))
    assert kinds(made_of(one)) == {"MaxPooling2D": 1, "Conv2D": 2, "Concatenate": 1, **HEAD}
    two = network(k, lambda x: both(x, layers.AveragePooling2D(1)))
    assert kinds(made_of(two))["DepthwiseConv2D"] == 1


def test_a_layer_that_others_read_unscaled_keeps_its_weights(k):
    layers = k.layers

    def middle(x):
        x = layers.Conv2D(4, 3, padding="same")(x)
        return layers.Add()([x, layers.BatchNormalization()(x)])

    left = kinds(made_of(network(k, middle)))
    assert left == {"Conv2D": 1, "DepthwiseConv2D": 1, "Add": 1, **HEAD}


def test_an_activation_between_keeps_them_apart(k):
    layers = k.layers

    def middle(x):
        return layers.BatchNormalization()(layers.Conv2D(6, 3, activation="relu")(x))

    assert kinds(made_of(network(k, middle))) == {"Conv2D": 1, "DepthwiseConv2D": 1, **HEAD}


def test_a_shared_convolution_takes_no_batchnorm_of_one_call(k):
    layers = k.layers
    conv = layers.Conv2D(4, 3, padding="same")

    def middle(x):
        return conv(layers.BatchNormalization()(conv(x)))

    left = kinds(made_of(network(k, middle)))
    assert left == {"Conv2D": 1, "DepthwiseConv2D": 1, **HEAD}


def test_a_batchnorm_alone_is_a_depthwise_convolution_of_one_pixel(k):
    layers = k.layers

    def middle(x):  # a pre-activation residual block, He 2016
        y = layers.Conv2D(4, 3, padding="same")(layers.MaxPooling2D()(x))
        z = layers.ReLU()(layers.BatchNormalization(name="alone")(y))
        z = layers.Conv2D(4, 3, padding="same", use_bias=False)(z)
        return layers.Add()([y, layers.Conv2D(4, 3, padding="same")(
            layers.ReLU()(layers.BatchNormalization()(z)))])  # fmt: skip

    model = network(k, middle)
    left = made_of(model)
    assert kinds(left)["DepthwiseConv2D"] == 1
    assert "BatchNormalization" not in kinds(left)
    gamma, beta, mean, variance = model.get_layer("alone").get_weights()
    kernel, bias = left.get_layer("alone").get_weights()
    assert kernel.shape == (1, 1, 4, 1)
    assert difference(kernel.ravel(), gamma / np.sqrt(variance + 1e-3)) < 1e-6
    assert difference(bias, beta - mean * gamma / np.sqrt(variance + 1e-3)) < 1e-6


def test_a_dense_block_has_its_concatenations_scaled(k):
    layers = k.layers

    def middle(x):  # Huang 2017: each layer reads all before it through a norm of its own
        features = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        for _ in range(3):
            y = layers.ReLU()(layers.BatchNormalization()(features))
            y = layers.Conv2D(8, 1, use_bias=False)(y)
            y = layers.ReLU()(layers.BatchNormalization()(y))
            y = layers.Conv2D(4, 3, padding="same", use_bias=False)(y)
            features = layers.Concatenate()([features, y])
        return layers.BatchNormalization()(features)

    left = kinds(made_of(network(k, middle)))
    assert left == {
        "Conv2D": 7,
        "DepthwiseConv2D": 4,
        "Concatenate": 3,
        "ReLU": 7,
        "Flatten": 1,
        "Dense": 1,
    }


def test_a_batchnorm_of_vectors_stays_a_scale_where_it_stands_alone(k):
    layers = k.layers

    def middle(x):
        x = layers.GlobalAveragePooling2D()(x)
        return layers.BatchNormalization()(layers.Activation("tanh")(x))

    left = kinds(made_of(network(k, middle)))
    assert left == {"GlobalAveragePooling2D": 1, "Activation": 1, "Affine": 1, **HEAD}


def test_a_batchnorm_of_another_axis_is_left(k):
    model = network(k, lambda x: k.layers.BatchNormalization(axis=1)(x))
    assert kinds(made_of(model))["BatchNormalization"] == 1


def test_batchnorm_is_kept_for_training_where_that_is_wished(k):
    layers = k.layers

    def middle(x):
        x = layers.ReLU()(layers.BatchNormalization(name="after")(layers.Conv2D(4, 3)(x)))
        return layers.BatchNormalization(name="alone")(layers.Concatenate()([x, x]))

    model = network(k, middle)
    left = made_of(model, fold=False)
    assert type(left.get_layer("after")).__name__ == "BatchNormalization"
    assert type(left.get_layer("alone")).__name__ == "DepthwiseConv2D"
    for got, expected in zip(
        left.get_layer("after").get_weights(), model.get_layer("after").get_weights(), strict=True
    ):
        assert np.array_equal(got, expected)


def test_the_model_that_came_in_keeps_its_weights(k):
    model = network(k, lambda x: k.layers.BatchNormalization()(k.layers.Conv2D(4, 3)(x)))
    before = model.get_weights()
    made_of(model)
    assert all(map(np.array_equal, model.get_weights(), before))
