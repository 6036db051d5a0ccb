import numpy as np
import pytest
from hard_model import READER, SCALED, hard_model
from small_data import stripes

from tfedge.data.sampling import calibration
from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def e():
    from tfedge.networks import equalisation

    return equalisation


def seeded(model, seed=0, spread=3.0):
    """Give a network weights whose channels differ by powers of ten, and biases."""
    rng = np.random.default_rng(seed)
    weights = []
    for weight in model.weights:
        channels = 10 ** rng.uniform(-spread / 2, spread / 2, weight.shape[-1])
        value = (rng.normal(size=weight.shape) * channels).astype(np.float32)
        weights.append(abs(value) if "variance" in weight.name else value)
    model.set_weights(weights)
    return model


def between(e, *middle, first=None, second=None, shape=(8, 8, 3)):
    """Return inputs -> first -> middle -> second -> outputs."""
    e.keras.backend.clear_session()
    layers = e.keras.layers
    x = inputs = e.keras.Input(shape)
    x = (first or layers.Conv2D(6, 3, name="first"))(x)
    for layer in middle:
        x = layer(x)
    x = (second or layers.Conv2D(5, 1, name="second"))(x)
    return seeded(e.keras.Model(inputs, x))


def answers(model, seed=1):
    shape = (16, *model.input_shape[1:])
    return model(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).numpy()


def assert_same_answers(twin, model):
    """Compare each output channel with the largest number in it: the small ones count as well."""
    got, wanted = answers(twin), answers(model)
    largest = np.abs(wanted).max(axis=tuple(range(wanted.ndim - 1)))
    assert (np.abs(got - wanted) <= 1e-5 * largest).all()


def ranges(model, first, second):
    """Return each channel's largest weight in the layer that makes it and in the one that reads it.

    By the definition, one channel at a time.
    """
    made = model.get_layer(first).get_weights()[0]
    if "Depthwise" in type(model.get_layer(first)).__name__:
        made = np.stack([made[..., i, j] for i, j in np.ndindex(made.shape[2:])], -1)
    read = model.get_layer(second).get_weights()[0]
    count = made.shape[-1]
    makes = [np.abs(made[..., i]).max() for i in range(count)]
    reads = [np.abs(read[..., i::count, :]).max() for i in range(count)]
    return np.array(makes), np.array(reads)


def test_scales_are_those_of_equation_11_worked_out_by_hand(e):
    layers = e.keras.layers
    model = between(
        e,
        layers.ReLU(),
        first=layers.Conv2D(2, 1, name="first"),
        second=layers.Conv2D(1, 1, name="second"),
        shape=(4, 4, 1),
    )
    model.get_layer("first").set_weights([np.float32([[[[8, -1]]]]), np.float32([4, 6])])
    model.get_layer("second").set_weights([np.float32([[[[2], [4]]]]), np.float32([7])])
    twin = e.equalised(model)
    # s = sqrt(8 / 2) = 2 and sqrt(1 / 4) = 1/2.
    kernel, bias = twin.get_layer("first").get_weights()
    assert kernel.ravel() == pytest.approx([4, -2])
    assert bias == pytest.approx([2, 12])
    kernel, bias = twin.get_layer("second").get_weights()
    assert kernel.ravel() == pytest.approx([4, 2])
    assert bias == pytest.approx([7])


def test_three_layers_in_a_row_end_with_the_geometric_mean_of_their_ranges(e):
    layers = e.keras.layers
    model = between(
        e,
        layers.ReLU(),
        layers.DepthwiseConv2D(1, name="middle"),
        layers.ReLU(),
        first=layers.Conv2D(2, 1, name="first"),
        second=layers.Conv2D(1, 1, name="second"),
        shape=(4, 4, 1),
    )
    for name, kernel in (
        ("first", [[[[1, 1000]]]]),
        ("middle", [[[[27], [1]]]]),
        ("second", [[[[1], [1]]]]),
    ):
        layer = model.get_layer(name)
        layer.set_weights([np.float32(kernel), layer.get_weights()[1]])
    twin = e.equalised(model)
    for name in ("first", "middle", "second"):
        kernel = twin.get_layer(name).get_weights()[0]
        assert kernel.ravel() == pytest.approx([3, 10], rel=1e-3)
    assert_same_answers(twin, model)


MIDDLES = {
    "nothing": lambda k: [],
    "relu": lambda k: [k.ReLU()],
    "leaky": lambda k: [k.ReLU(negative_slope=0.1), k.LeakyReLU(0.2)],
    "activation": lambda k: [k.Activation("relu"), k.Activation("linear")],
    "prelu": lambda k: [k.PReLU(shared_axes=(1, 2))],
    "dropout": lambda k: [k.Dropout(0.5), k.SpatialDropout2D(0.5)],
    "pooling": lambda k: [k.MaxPooling2D(), k.AveragePooling2D(padding="same")],
    "padding": lambda k: [k.ZeroPadding2D(2), k.Cropping2D(1), k.UpSampling2D(2, None, "bilinear")],
}


@pytest.mark.parametrize("name", MIDDLES)
def test_a_network_answers_as_before_with_channels_of_like_range(e, name):
    model = between(e, *MIDDLES[name](e.keras.layers))
    (pair,) = e.pairs(model)
    assert pair[:2] == ("first", "second")
    assert len(pair.between) == len(MIDDLES[name](e.keras.layers))
    made, read = ranges(model, "first", "second")
    assert max(made / read) > 10 * min(made / read)
    twin = e.equalised(model)
    made, read = ranges(twin, "first", "second")
    assert made == pytest.approx(read, rel=1e-3)
    assert_same_answers(twin, model)


ENDS = {
    "pooled": lambda k: [None, k.GlobalAveragePooling2D(), k.Dense(4, name="second")],
    "pooled by maximum": lambda k: [None, k.GlobalMaxPooling2D(), k.Dense(4, name="second")],
    "flattened": lambda k: [None, k.Flatten(), k.ReLU(), k.Dense(4, name="second")],
    "reshaped": lambda k: [None, k.Reshape((6, 6, 6)), k.Conv2D(4, 3, name="second")],
    "dense": lambda k: [k.Dense(6, "relu", name="first"), k.Dense(4, name="second")],
    "own activation": lambda k: [
        k.Conv2D(6, 3, activation="relu", use_bias=False, name="first"),
        k.Conv2D(4, 3, use_bias=False, name="second"),
    ],
    "into depthwise": lambda k: [None, k.DepthwiseConv2D(3, depth_multiplier=2, name="second")],
    "out of depthwise": lambda k: [
        k.DepthwiseConv2D(3, depth_multiplier=2, name="first"),
        k.ReLU(),
        k.Conv2D(4, 3, dilation_rate=2, name="second"),
    ],
    "out of groups": lambda k: [
        k.Conv2D(6, 3, groups=3, name="first"),
        k.Conv2D(4, 3, strides=2, padding="same", name="second"),
    ],
}


@pytest.mark.parametrize("name", ENDS)
def test_every_layer_with_weights_can_stand_at_either_end(e, name):
    first, *middle, second = ENDS[name](e.keras.layers)
    model = between(e, *middle, first=first, second=second)
    assert [pair[:2] for pair in e.pairs(model)] == [("first", "second")]
    twin = e.equalised(model)
    made, read = ranges(twin, "first", "second")
    assert made == pytest.approx(read, rel=1e-3)
    assert_same_answers(twin, model)


SKIPPED = {
    "batchnorm": lambda k: [k.BatchNormalization()],
    "relu6": lambda k: [k.ReLU(6.0)],
    "relu of another cap": lambda k: [k.ReLU(1.0)],
    "threshold": lambda k: [k.ReLU(threshold=0.5)],
    "relu6 as activation": lambda k: [k.Activation("relu6")],
    "sigmoid": lambda k: [k.Activation("sigmoid")],
    "elu": lambda k: [k.ELU()],
    "softmax": lambda k: [k.Softmax()],
    "channels moved": lambda k: [k.Permute((1, 3, 2))],
    "channels torn": lambda k: [k.Reshape((9, 12, 2))],
    "branch": lambda k: [lambda x: k.Add()([x, k.ReLU()(x)])],
    "operator": lambda k: [lambda x: x + 1.0],
    "second alike": lambda k: [lambda x: k.Concatenate()([x, k.Conv2D(2, 3, padding="same")(x)])],
}


@pytest.mark.parametrize("name", SKIPPED)
def test_what_does_not_let_a_scale_through_stands_between_no_pair(e, name):
    model = between(e, *SKIPPED[name](e.keras.layers))
    assert not [pair for pair in e.pairs(model) if pair.first == "first"]
    assert_same_answers(e.equalised(model), model)


def test_groups_that_read_and_activations_of_the_first_layer_count_too(e):
    layers = e.keras.layers
    assert not e.pairs(between(e, second=layers.Conv2D(4, 3, groups=2)))
    assert not e.pairs(between(e, first=layers.Conv2D(6, 3, activation="tanh")))
    assert not e.pairs(between(e, first=layers.Conv2D(6, 3, activation="relu6")))


def test_shared_layers_and_outputs_are_left_alone(e):
    layers = e.keras.layers
    inputs = e.keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 3, padding="same")
    twice = e.keras.Model(inputs, layers.Conv2D(2, 3)(shared(shared(inputs))))
    assert not e.pairs(twice)
    middle = layers.Conv2D(3, 3)(inputs)
    assert not e.pairs(e.keras.Model(inputs, [middle, layers.Conv2D(2, 3)(middle)]))


def test_layers_that_are_in_other_networks_too_are_equalised_in_the_twin_alone(e):
    layers = e.keras.layers
    model = between(e, layers.ReLU())
    other = x = e.keras.Input((8, 8, 3))
    for layer in model.layers[1:]:
        x = layer(x)
    e.keras.Model(other, layers.BatchNormalization()(x))
    before = [weight.copy() for weight in model.get_weights()]
    twin = e.equalised(model)
    assert len(e.pairs(model)) == 1
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not {id(weight) for weight in twin.weights} & {id(weight) for weight in model.weights}
    assert_same_answers(twin, model)


def test_a_sequential_network_is_equalised_as_well(e):
    layers = e.keras.layers
    model = e.keras.Sequential(
        [e.keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)]
    )
    seeded(model)
    assert len(e.pairs(model)) == 1
    assert_same_answers(e.equalised(model), model)


def test_a_cap_at_6_is_taken_off_on_request_only_where_a_pair_is(e):
    layers = e.keras.layers
    middle = layers.Conv2D(6, 3, activation="relu6", name="middle")
    model = between(e, layers.ReLU(6.0, name="cap"), middle)
    last = layers.ReLU(6.0, name="last")(model.output)
    model = e.keras.Model(model.input, last)
    assert [pair[:2] for pair in e.pairs(model, relu6=True)] == [
        ("first", "middle"),
        ("middle", "second"),
    ]
    twin = e.equalised(model, relu6=True)
    assert twin.get_layer("cap").max_value is None
    assert twin.get_layer("middle").get_config()["activation"] == "relu"
    assert twin.get_layer("last").max_value == 6
    # Where no number reaches 6 the two answer alike.
    small = [weight / 1000 for weight in model.get_weights()]
    model.set_weights(small)
    assert_same_answers(e.equalised(model, relu6=True), model)


def test_a_dead_channel_keeps_its_scale(e):
    model = between(e, e.keras.layers.ReLU())
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 0], kernel[..., 1] = 0, 1e-20
    model.get_layer("first").set_weights([kernel, bias])
    kernel, unread = model.get_layer("second").get_weights()
    kernel[..., 2, :] = 0
    model.get_layer("second").set_weights([kernel, unread])
    twin = e.equalised(model)
    for name, axis in (("first", -1), ("second", -2)):
        before, after = (net.get_layer(name).get_weights()[0] for net in (model, twin))
        assert np.array_equal(after.take([0, 1, 2], axis), before.take([0, 1, 2], axis))
    assert np.array_equal(twin.get_layer("first").get_weights()[1][:3], bias[:3])
    assert_same_answers(twin, model)


def test_a_network_in_a_network_is_refused_by_name(e):
    inner = between(e)
    outer = e.keras.Input((8, 8, 3))
    with pytest.raises(UserError, match="network in a network"):
        e.equalised(e.keras.Model(outer, inner(outer)))


def int8_accuracy(model, data):
    """Return the share of the test split that the network gets right in int8."""
    from ai_edge_litert.interpreter import Interpreter

    from tfedge.tflite.conversion import to_int8

    run = Interpreter(model_content=to_int8(model, calibration(data, 100), data.limits()))
    run.allocate_tensors()
    (given,), (answer,) = run.get_input_details(), run.get_output_details()
    scale, zero = given["quantization"]
    right = 0
    for x, number in zip(data.normalise(data.test.inputs), data.test.classes, strict=True):
        tensor = np.clip(np.round(x / scale) + zero, -128, 127).astype(np.int8)
        run.set_tensor(given["index"], tensor[None])
        run.invoke()
        right += run.get_tensor(answer["index"])[0].argmax() == number
    return right / len(data.test.classes)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_that_int8_ruins_is_as_good_as_in_float_once_equalised(e, seed):
    data = stripes(train=1024, tune=256, test=1000)
    model = hard_model(data, seed=seed)
    made, _ = ranges(model, SCALED, READER)
    assert max(made) > 300 * min(made)
    found = model(data.normalise(data.test.inputs)).numpy().argmax(axis=1)
    accuracy = np.mean(found == data.test.classes)
    assert int8_accuracy(model, data) < accuracy - 0.2
    assert int8_accuracy(e.equalised(model), data) >= accuracy - 0.015
