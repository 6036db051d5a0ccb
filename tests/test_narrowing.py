"""Groups of channels, and networks without some of theirs."""

import functools
import inspect
import sys

import numpy as np
import pytest
from narrowed import (
    MODELS,
    apart,
    from_models,
    groups_of,
    half_of_each,
    inputs_for,
    without_weights,
)
from random_weights import difference, randomise

from tfedge.errors import UserError

pytestmark = pytest.mark.slow

FOREIGN = (
    *("conv1d", "efficientnet", "mobilenet", "mobilenet_v2", "mobilenet_v3", "moved", "nasnet"),
    *("nested", "rescaled", "resnet", "separable", "shuffled", "siamese"),
)
# Of five families of keras.applications a small member, of the same blocks as the whole networks.
SMALL_APPLICATIONS = {
    "MobileNetV2": ("MobileNetV2", {"alpha": 0.35}),
    "MobileNetV3Small": ("MobileNetV3Small", {"alpha": 0.75}),
    "EfficientNetB0": (
        "EfficientNet",
        {"width_coefficient": 0.5, "depth_coefficient": 0.3, "default_size": 96},
    ),
    "DenseNet121": ("DenseNet", {"blocks": [2, 2, 2, 2]}),
    "NASNetMobile": (
        "NASNet",
        {"penultimate_filters": 192, "num_blocks": 1, "stem_block_filters": 8}
        | {"skip_reduction": False},
    ),
}
RANDOM = range(12)


@pytest.fixture(scope="module")
def k():
    from tfedge.networks.backend import keras

    return keras


@pytest.fixture(scope="module")
def without():
    """Build the network without the channels that are not kept."""
    from tfedge.networks.graph import build
    from tfedge.networks.narrowing import surgery

    return lambda groups, kept: build(surgery.without(groups, kept))


def application(name, *, small):
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    build, options = getattr(keras.applications, name), {}
    if small:
        builder, options = SMALL_APPLICATIONS[name]
        build = getattr(sys.modules[build.__module__], builder)
    return randomise(build(weights=None, input_shape=(96, 96, 3), classes=4, **options))


@functools.cache
def network(kind, name):
    """Return the same network to all tests: none may change it."""
    if kind in ("application", "small application"):
        return application(name, small=kind.startswith("small"))
    if kind == "random":
        import random_networks

        return random_networks.network(name)
    if kind == "models":
        return from_models(name)
    import foreign_networks

    return dict(inspect.getmembers(foreign_networks, inspect.isfunction))[name]()


@functools.cache
def groups_in(kind, name):
    return groups_of(network(kind, name))


LONG = ("efficientnet_lite0", "mobilenet_v1", "mobilenet_v3_large", "resnet14", "resnet20")
NETWORKS = [
    *(
        pytest.param("models", name, marks=pytest.mark.very_slow if name in LONG else ())
        for name in MODELS
    ),
    *(("foreign", name) for name in FOREIGN),
    *(("random", seed) for seed in RANDOM),
    *(("small application", name) for name in SMALL_APPLICATIONS),
]
WHOLE_APPLICATIONS = [
    pytest.param("application", name, marks=pytest.mark.very_slow) for name in SMALL_APPLICATIONS
]


@pytest.mark.parametrize(("kind", "name"), [*NETWORKS, *WHOLE_APPLICATIONS])
def test_it_answers_as_the_wide_one_that_reads_nothing_of_what_went(kind, name, without):
    from tfedge.networks.graph import build
    from tfedge.networks.narrowing.surgery import masked

    model = network(kind, name)
    before = model.get_weights()
    groups = groups_in(kind, name)
    kept = half_of_each(groups)
    small = without(groups, kept)
    assert apart(build(masked(groups, kept)), small) < 1e-5
    assert small.count_params() < model.count_params()
    assert all(map(np.array_equal, model.get_weights(), before))
    assert apart(without(groups, {}), model) < 1e-5


@pytest.mark.parametrize(("kind", "name"), NETWORKS[: -len(SMALL_APPLICATIONS)])
def test_taking_out_channels_of_zeros_changes_no_answer(kind, name, without):
    groups = groups_in(kind, name)
    kept = half_of_each(groups)
    dead = without_weights(groups, kept, "makes", "passes")
    assert apart(dead, without(groups_of(dead), kept)) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_of_every_network_here_all_layers_but_the_last_can_lose_channels(name):
    groups = groups_in("models", name)
    assert list(groups.whole.values()) == ["is the network's answer"]


def model_of(k, shape, build):
    k.backend.clear_session()
    given = k.Input(shape)
    return randomise(k.Model(given, build(given)))


def widths(groups):
    return {group.name: group.width for group in groups.all}


def slices(group):
    return {(s.layer, s.of, s.axis): s.per_channel for s in group.slices}


def test_what_is_added_goes_together_with_all_that_has_numbers_for_it(k):
    def build(x):
        x = k.layers.Conv2D(6, 3, name="one")(x)
        y = k.layers.BatchNormalization(name="norm")(k.layers.Conv2D(6, 1, name="two")(x))
        return k.layers.Dense(2, name="end")(k.layers.Flatten()(k.layers.Add()([x, y])))

    (group,) = groups_of(model_of(k, (4, 4, 3), build)).all
    assert (group.name, group.makers, group.width) == ("one", ("one", "two"), 6)
    assert slices(group) == {
        ("one", 0, -1): 1,
        ("one", "filters", -1): 1,
        ("one", 1, -1): 1,
        ("two", 0, -2): 1,  # it reads what it is added to
        ("two", 0, -1): 1,
        ("two", "filters", -1): 1,
        ("two", 1, -1): 1,
        **{("norm", number, -1): 1 for number in range(4)},
        ("end", 0, -2): 4,  # one of each of the 2 x 2 places that Flatten puts in a row
    }
    assert "reads  end 0 axis -2: 4 a channel" in str(group)


def test_in_a_concatenation_each_channel_keeps_its_own_place(k, without):
    def build(x):
        parts = [k.layers.Conv2D(n, 1, name=f"of_{n}", use_bias=False)(x) for n in (2, 3)]
        x = k.layers.Concatenate()(parts)
        return k.layers.Dense(2, name="end", use_bias=False)(k.layers.GlobalMaxPooling2D()(x))

    model = model_of(k, (4, 4, 3), build)
    groups = groups_of(model)
    assert widths(groups) == {"of_2": 2, "of_3": 3}
    small = without(groups, {"of_2": np.array([1]), "of_3": np.array([0, 2])})
    expected = model.get_layer("end").get_weights()[0][[1, 2, 4]]
    assert np.array_equal(small.get_layer("end").get_weights()[0], expected)


def test_squeeze_and_excite_goes_with_what_it_multiplies(k):
    def build(x):
        x = k.layers.Conv2D(8, 3, name="wide")(x)
        gate = k.layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = k.layers.Conv2D(4, 1, activation="relu", name="squeeze")(gate)
        gate = k.layers.Conv2D(8, 1, activation="sigmoid", name="excite")(gate)
        x = k.layers.Multiply()([x, gate])
        return k.layers.Dense(2)(k.layers.GlobalAveragePooling2D()(x))

    groups = groups_of(model_of(k, (4, 4, 3), build))
    assert widths(groups) == {"wide": 8, "squeeze": 4}
    assert groups.all[0].makers == ("wide", "excite")


@pytest.mark.parametrize(
    ("filters", "count", "width", "left"),
    # Two groups of 8 lose a channel each; of eight groups of 2 a whole one goes.
    [(16, 2, 8, {"groups": 2, "filters": 8}), (16, 8, 8, {"groups": 4, "filters": 8})],
)
def test_the_groups_of_a_convolution_stay_equal(k, without, filters, count, width, left):
    def build(x):
        x = k.layers.Conv2D(16, 1, name="before")(x)
        x = k.layers.Conv2D(filters, 3, groups=count, name="grouped")(x)
        return k.layers.Dense(2)(k.layers.GlobalAveragePooling2D()(x))

    groups = groups_of(model_of(k, (4, 4, 3), build))
    assert {group.width for group in groups.all} == {width}
    assert {group.made_at_once for group in groups.all} == {2}
    small = without(groups, {group.name: np.arange(width // 2) for group in groups.all})
    config = small.get_layer("grouped").get_config()
    assert {key: config[key] for key in left} == left
    assert small.get_layer("before").filters == 8


def test_a_layer_called_twice_ties_what_it_reads_each_time(k):
    def build(x):
        shared = k.layers.Conv2D(6, 3, padding="same", name="shared")
        x, y = (shared(k.layers.Conv2D(5, 1, name=name)(x)) for name in "ab")
        return k.layers.Dense(2)(k.layers.GlobalAveragePooling2D()(k.layers.Concatenate()([x, y])))

    groups = groups_of(model_of(k, (4, 4, 3), build))
    assert [({*group.makers}, group.width) for group in groups.all] == [
        ({"a", "b"}, 5),
        ({"shared"}, 6),
    ]


def test_a_dense_layer_on_the_last_axis_reads_each_channel_once(k):
    def build(x):
        x = k.layers.Dense(7, name="first")(k.layers.Conv1D(5, 1, name="conv")(x))
        return k.layers.Dense(2, name="end")(k.layers.GlobalAveragePooling1D()(x))

    groups = groups_of(model_of(k, (4, 3), build))
    assert widths(groups) == {"conv": 5, "first": 7}
    assert slices(groups.all[0])["first", 0, -2] == 1


@pytest.mark.parametrize(
    ("shape", "kind"), [((9, 3), "Conv1D"), ((5, 5, 3), "Conv2D"), ((5, 5, 5, 2), "Conv3D")]
)
@pytest.mark.parametrize("turned", ["", "Transpose"])
def test_convolutions_of_every_rank_and_their_transposes_lose_channels(
    k, without, shape, kind, turned
):
    def build(x):
        x = k.layers.BatchNormalization()(getattr(k.layers, kind + turned)(6, 3, name="a")(x))
        x = getattr(k.layers, kind + turned)(4, 3, padding="same", name="b")(k.layers.ReLU()(x))
        return k.layers.Dense(2)(k.layers.Flatten()(x))

    model = model_of(k, shape, build)
    kept = {"a": np.array([0, 3, 5]), "b": np.array([1, 2])}
    dead = without_weights(groups_of(model), kept, "makes", "passes")
    small = without(groups_of(dead), kept)
    assert (small.get_layer("a").filters, small.get_layer("b").filters) == (3, 2)
    assert apart(dead, small) < 1e-5


def test_behind_a_reshape_a_channel_is_the_numbers_of_all_its_places(k, without):
    def build(x):
        x = k.layers.Dense(4 * 4 * 5, name="wide")(x)
        x = k.layers.Conv2D(6, 3, name="conv")(k.layers.Reshape((4, -1, 5))(x))
        return k.layers.Dense(2)(k.layers.Flatten()(x))

    model = model_of(k, (3,), build)
    groups = groups_of(model)
    assert widths(groups) == {"wide": 5, "conv": 6}
    assert groups.all[0].made_at_once == 16
    kept = {"wide": np.array([0, 4]), "conv": np.arange(6)}
    small = without(groups, kept)
    assert small.get_layer("wide").units == 32
    assert apart(without_weights(groups, kept, "reads"), small) < 1e-5


def test_what_a_layer_normalises_over_fewer_channels_is_as_by_hand(k, without):
    def build(x):
        x = k.layers.LayerNormalization(name="norm")(k.layers.Dense(6, name="wide")(x))
        return k.layers.Dense(2, name="end")(x)

    model = model_of(k, (3,), build)
    kept = np.array([1, 2, 5])
    small = without(groups_of(model), {"wide": kept})
    (kernel, bias), (gamma, beta), (last, more) = (
        model.get_layer(name).get_weights() for name in ("wide", "norm", "end")
    )
    x = inputs_for(model)
    y = (x @ kernel + bias)[:, kept]
    y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-3)
    assert difference(small(x), (y * gamma[kept] + beta[kept]) @ last[kept] + more) < 1e-5


def test_inputs_and_every_answer_keep_their_channels(k):
    k.backend.clear_session()
    given = k.Input((8, 8, 3))
    x = k.layers.Conv2D(3, 3, padding="same", name="with_input")(given)
    x = k.layers.Conv2D(8, 3, name="inside")(k.layers.Add()([x, given]))
    early = k.layers.Conv2D(8, 1, name="early")(x)
    late = k.layers.Dense(2, name="late")(k.layers.GlobalAveragePooling2D()(early))
    groups = groups_of(randomise(k.Model(given, [late, early])))
    assert widths(groups) == {"inside": 8}
    assert groups.whole == {
        "with_input": "goes with the network's input",
        "early": "is the network's answer",
        "late": "is the network's answer",
    }


def test_what_is_not_followed_keeps_what_it_reads_and_is_named(k):
    def build(x):
        x = k.layers.Conv1D(6, 3, name="free")(x)
        x = k.layers.Conv1D(6, 3, name="read")(x)
        return k.layers.Dense(2, name="end")(k.layers.LSTM(5, name="memory")(x))

    groups = groups_of(model_of(k, (12, 3), build))
    assert widths(groups) == {"free": 6}
    assert groups.whole["read"] == "'memory' (LSTM) reads it"


def test_channels_that_a_softmax_mixes_stay(k):
    def build(x):
        x = k.layers.Conv2D(6, 1, name="shares", activation="softmax")(x)
        x = k.layers.Softmax()(k.layers.Conv2D(6, 1, name="more")(x))
        return k.layers.Dense(2, name="end")(k.layers.GlobalAveragePooling2D()(x))

    groups = groups_of(model_of(k, (4, 4, 3), build))
    assert groups.all == ()
    assert set(groups.whole) == {"shares", "more", "end"}


def test_protected_layers_keep_their_channels_and_those_added_to_them(k):
    def build(x):
        x = k.layers.Conv2D(6, 1, name="stem")(x)
        for name in ("block_1", "block_2"):
            x = k.layers.Add()([x, k.layers.Conv2D(6, 1, name=name)(k.layers.Conv2D(4, 1)(x))])
        return k.layers.Dense(2, name="end")(k.layers.GlobalAveragePooling2D()(x))

    model = model_of(k, (4, 4, 3), build)
    groups = groups_of(model, ["*_2"])
    assert [group.width for group in groups.all] == [4, 4]
    assert groups.whole["stem"] == "protect names 'block_2'"
    with pytest.raises(UserError, match="protect: no layer matches 'blok_1'\n  did you mean"):
        groups_of(model, ["blok_1"])


def test_two_kernels_side_by_side_on_one_are_two_groups_of_their_own(k, without):
    def build(x):
        parts = [k.layers.Conv2D(4, 1, name=name)(x) for name in "ab"]
        x = k.layers.Add()([k.layers.Conv2D(8, 1, name="both")(x), k.layers.Concatenate()(parts)])
        return k.layers.Dense(2)(k.layers.GlobalAveragePooling2D()(x))

    groups = groups_of(model_of(k, (4, 4, 3), build))
    assert {frozenset(group.makers) for group in groups.all} == {
        frozenset(pair) for pair in (("a", "both"), ("b", "both"))
    }
    assert [group.width for group in groups.all] == [4, 4]
    small = without(groups, {groups.all[0].name: np.array([1])})
    assert small.get_layer("both").filters == 5


def test_layers_keep_their_names_and_order(k, without):
    model = from_models("resnet8")
    groups = groups_of(model)
    small = without(groups, half_of_each(groups))
    names = [layer.name for layer in model.layers[1:]]
    assert [layer.name for layer in small.layers[1:]] == names
