"""Where exits may be in a network, and the network with them."""

import itertools

import numpy as np
import pytest
from narrowed import apart, from_models, inputs_for
from random_weights import randomise

from tfedge.errors import UserError

pytestmark = pytest.mark.slow

NAMES = ("resnet8", "mobilenet_v2", "shufflenet_v2", "sensor_separable", "mcunet_like", "stack")


@pytest.fixture(scope="module")
def e():
    from tfedge.networks import exits

    return exits


@pytest.fixture(scope="module")
def keras(e):
    return e.keras


@pytest.fixture(scope="module")
def resnet(keras):
    keras.backend.clear_session()
    return from_models("resnet8")


def chain(keras, *layers, shape=(16, 16, 3)):
    keras.backend.clear_session()
    x = given = keras.Input(shape, name="given")
    for layer in layers:
        x = layer(x)
    return randomise(keras.Model(given, x))


def cut_off(graph, gone):
    """Whether no path leads from the input to the answer without the tensor `gone`."""
    reached = set(graph.inputs)
    for call in graph.calls:
        if reached.intersection(call.inputs):
            reached.update(tensor for tensor in call.outputs if tensor is not gone)
    return graph.outputs[0] not in reached


@pytest.mark.parametrize("name", NAMES)
def test_a_seam_is_where_no_path_leads_around(name, e):
    from tfedge.networks.keras2 import Keras2
    from tfedge.networks.reading import read

    graph = read(from_models(name), Keras2())
    cuts = [call for call in graph.calls if any(cut_off(graph, out) for out in call.outputs)]
    assert e._cuts(graph) == cuts
    assert len(cuts) > 3


@pytest.mark.parametrize("name", ["resnet8", "sensor_separable"])
def test_a_share_is_what_the_file_of_the_network_up_to_there_multiplies(name, e, keras):
    from tfedge.tflite.conversion import to_float
    from tfedge.tflite.facts import facts

    model = from_models(name)
    found = e.seams(model)
    seam = found[len(found) // 2]
    part = keras.Model(model.inputs, model.get_layer(seam.layer).output)
    before, whole = (facts(to_float(m), "x").macs for m in (part, model))
    assert seam.share == pytest.approx(before / whole, rel=1e-6)
    assert seam.size == np.prod(part.output_shape[1:])


@pytest.mark.parametrize("head", ["pool", "separable"])
@pytest.mark.parametrize("name", NAMES)
def test_the_last_exit_answers_what_the_network_did(name, head, e):
    model = from_models(name)
    weights = model.get_weights()
    points = e.even_points(model, 2)
    with_exits = e.with_exits(model, points, head)
    assert with_exits.output_shape == [(None, 4)] * 3
    assert apart(e.last_exit(with_exits), model) == 0
    assert all(map(np.array_equal, model.get_weights(), weights))
    made = {layer.name for layer in with_exits.layers[1:]} - {layer.name for layer in model.layers}
    assert all(name.startswith(("exit_0_", "exit_1_")) for name in made)
    assert {name[:6] for name in made} == {"exit_0", "exit_1"}
    assert e.exit_names(with_exits) == ("exit_0", "exit_1", "exit_2")
    assert e.exit_names(model) == ()


@pytest.mark.parametrize("name", ["resnet8", "sensor_separable"])
def test_to_answer_at_an_exit_takes_what_the_file_that_ends_there_multiplies(name, e, keras):
    from tfedge.tflite.conversion import to_float
    from tfedge.tflite.facts import facts

    model = from_models(name)
    model = e.with_exits(model, e.even_points(model, 2), "separable")
    parts = [keras.Model(model.inputs, model.outputs[:count]) for count in (1, 2, 3)]
    counts = [facts(to_float(part), "x").macs for part in parts]
    assert e.macs_to(model) == pytest.approx(counts, rel=1e-6)
    assert counts[0] < counts[1] < counts[2]


def test_a_pooling_head_is_the_mean_of_the_pixels_and_a_dense_layer(e, resnet):
    model = e.with_exits(resnet, ["re_lu_2"], "pool")
    kernel, bias = model.get_layer("exit_0_logits").get_weights()
    x = inputs_for(resnet)
    features = e.keras.Model(resnet.inputs, resnet.get_layer("re_lu_2").output)(x).numpy()
    expected = features.mean(axis=(1, 2)) @ kernel + bias
    assert model(x)[0].numpy() == pytest.approx(expected, abs=1e-4)


def test_heads_start_alike_for_a_seed_and_otherwise_for_another(e, resnet):
    def start(seed):
        model = e.with_exits(resnet, ["re_lu_2", "re_lu_4"], "separable", seed=seed)
        names = ("exit_0_depthwise", "exit_0_logits", "exit_1_logits")
        return [model.get_layer(name).get_weights()[0] for name in names]

    one, again, other = start(3), start(3), start(4)
    assert all(map(np.array_equal, one, again))
    assert not any(map(np.array_equal, one, other))
    assert not np.array_equal(one[1], one[2])


def test_a_separable_head_of_a_large_picture_looks_at_a_small_one(e, keras):
    layers = keras.layers
    model = chain(
        keras,
        layers.Conv2D(8, 3, padding="same", name="wide"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(4),
        shape=(96, 64, 3),
    )
    # 64 / 16 = 4 pixels each way become one, and the depthwise convolution halves what is left.
    made = e.with_exits(model, ["wide"], "separable")
    assert made.get_layer("exit_0_pointwise").output_shape == (None, 12, 8, 8)


def test_even_points_are_those_nearest_to_equal_shares(e, keras):
    layers = keras.layers
    # 3 x 3 places each: kernels of 1 x 1 from 1 to 4 channels, then 40 to 4 to 40 and so on.
    widths = [4, 10, 4, 10, 4]
    convolutions = [layers.Conv2D(width, 1, name=f"c{n}") for n, width in enumerate(widths)]
    model = chain(
        keras, *convolutions, layers.Flatten(), layers.Dense(4, name="answer"), shape=(3, 3, 1)
    )
    # In multiply-accumulates: 36, then 360 each, and 144 for the answer; 1620 in all.
    assert [seam.layer for seam in e.seams(model)] == ["c0", "c1", "c2", "c3", "c4", "flatten"]
    assert [seam.share * 1620 for seam in e.seams(model)][:3] == pytest.approx([36, 396, 756])
    assert e.even_points(model, 1) == ("c2",)  # 756 is nearest to 810
    assert e.even_points(model, 2) == ("c1", "c3")  # 540 lies between 396 and 756
    assert e.even_points(model, 5) == ("c0", "c1", "c2", "c3", "c4")
    with pytest.raises(UserError, match=r"has 5 places for early exits \(c0, .*, not 6"):
        e.even_points(model, 6)


def test_no_exit_is_put_where_only_the_answer_is_left_to_be_worked_out(e, keras):
    keras.backend.clear_session()
    layers = keras.layers
    # 9 places each: 1 * 4, 4 * 10 and 10 * 10 channels, then 10 * 2 for the answer alone.
    widths = [4, 10, 10]
    convolutions = [layers.Conv2D(width, 1, name=f"c{n}") for n, width in enumerate(widths)]
    pooled = [layers.GlobalAveragePooling2D(), layers.Dense(2)]
    model = chain(keras, *convolutions, *pooled, shape=(3, 3, 1))
    # In multiply-accumulates 36, 396 and 1296 of 1316: c2 is behind 98.5 % of them.
    assert e.even_points(model, 1) == ("c1",)
    assert e.even_points(model, 2) == ("c0", "c1")
    assert e.even_points(model, 3) == ("c0", "c1", "c2")  # there is no other


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_points_chosen_are_the_nearest_of_all_choices(e, count):
    random = np.random.default_rng(count)
    for _ in range(20):
        shares = np.sort(random.random(7))
        seams = [e.Seam(str(number), share, 1) for number, share in enumerate(shares)]
        wanted = np.arange(1, count + 1) / (count + 1)
        best = min(
            itertools.combinations(range(7), count),
            key=lambda chosen: ((shares[list(chosen)] - wanted) ** 2).sum(),
        )
        assert [seam.layer for seam in e._nearest(seams, count)] == [str(n) for n in best]


def test_of_places_at_equal_cost_the_smallest_tensor_is_taken(e, keras):
    keras.backend.clear_session()
    assert e.even_points(from_models("stack"), 1) == ("max_pooling2d",)


def test_even_points_are_refused_where_not_all_is_counted(e, keras):
    layers = keras.layers
    model = chain(keras, layers.LSTM(4, return_sequences=True), layers.LSTM(4), layers.Dense(4),
                  shape=(8, 3))  # fmt: skip
    with pytest.raises(
        UserError, match=r"not counted of layer 'lstm' .*\n.*name the exits' places"
    ):
        e.even_points(model, 1)
    made = e.with_exits(model, ["lstm"], "pool")
    assert made.output_shape == [(None, 4), (None, 4)]
    assert e.macs_to(made) == ()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (["re_lu_22"], "has no layer 're_lu_22'\n  did you mean 're_lu_2'"),
        (["re_lu_1"], "'re_lu_1' is no place for an exit: what 're_lu' made is needed behind it"),
        (["conv2d"], "int8 computes it in one go with 're_lu'\n  the nearest are 're_lu'"),
        (["add"], "int8 computes it in one go with 're_lu_2'"),
        (["dense"], "it is the network's answer\n  the nearest are 'global_average_pooling2d'"),
        (["re_lu_4", "re_lu_2"], "'re_lu_2' does not come behind 're_lu_4'"),
        (["re_lu_2", "re_lu_2"], "'re_lu_2' does not come behind 're_lu_2'"),
    ],
)
def test_a_point_that_is_none_is_told_why_and_what_is_near(points, message, e, resnet):
    with pytest.raises(UserError) as caught:
        e.with_exits(resnet, points, "pool")
    assert message in str(caught.value)


def test_a_separable_head_of_a_vector_is_refused(e, resnet):
    with pytest.raises(UserError, match="not the 64 numbers of 'global_average_pooling2d'"):
        e.with_exits(resnet, ["global_average_pooling2d"], "separable")


def test_a_layer_that_is_named_as_a_heads_is_refused_and_another_exit_is_not_a_head(e, keras):
    layers = keras.layers
    ends = (layers.GlobalAveragePooling2D(), layers.Dense(4))
    model = chain(keras, layers.Conv2D(4, 1, name="exit_0_logits"), *ends)
    with pytest.raises(UserError, match="has a layer 'exit_0_logits', which is a name of a head's"):
        e.with_exits(model, ["exit_0_logits"], "pool")
    model = chain(keras, layers.Conv2D(4, 1, name="exit_flow_conv"), *ends)
    e.with_exits(model, ["exit_flow_conv"], "pool")
    assert [e.of_a_head(name) for name in ("exit_flow_conv", "exit_12_logits")] == [False, True]


def test_a_network_that_has_exits_gets_no_more(e, resnet):
    model = e.with_exits(resnet, ["re_lu_2"], "pool")
    with pytest.raises(UserError, match="answers at 2 exits already"):
        e.with_exits(model, ["re_lu_4"], "pool")


def test_a_layer_that_is_called_twice_is_no_place(e, keras):
    layers = keras.layers
    twice = layers.Conv2D(3, 1, name="twice")
    model = chain(keras, twice, twice, layers.Flatten(), layers.Dense(4))
    with pytest.raises(UserError, match="the layer is called more than once"):
        e.with_exits(model, ["twice"], "pool")


def test_exits_outlast_saving_and_another_precision(e, resnet, tmp_path):
    from tfedge.networks.precision import in_precision
    from tfedge.networks.saving import load_model, save_model

    model = randomise(e.with_exits(resnet, ["re_lu_2", "re_lu_4"], "separable"))
    save_model(model, tmp_path / "m.h5")
    assert apart(load_model(tmp_path / "m.h5"), model) == 0
    half = in_precision(model, "bfloat16")
    assert apart(half, model) < 0.05
    assert {output.dtype for output in half(inputs_for(model))} == {e.tf.float32}
