"""What channels are worth, what they cost, and which of them stay."""

import numpy as np
import pytest
from narrowed import groups_of
from random_weights import randomise

from tfedge.errors import UserError
from tfedge.networks.narrowing.wishes import Wishes

pytestmark = pytest.mark.slow


@pytest.fixture
def k():
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    return keras


@pytest.fixture
def added(k):
    """Two convolutions, both behind BatchNormalization, added; then a third and a dense layer."""
    layers = k.layers
    x = images = k.Input((8, 8, 2))
    one = layers.BatchNormalization()(layers.Conv2D(6, 3, name="b")(x))
    two = layers.BatchNormalization()(layers.Conv2D(6, 3, name="a")(x))
    x = layers.ReLU()(layers.Add()([one, two]))
    x = layers.ReLU()(layers.Conv2D(4, 1, name="c")(x))
    x = layers.GlobalAveragePooling2D()(x)
    return randomise(k.Model(images, layers.Dense(3, name="answer")(x)))


def kernel(model, name):
    weights = model.get_layer(name).get_weights()[0]
    return weights.reshape(-1, weights.shape[-1])


def scores(name, model, batches=()):
    from tfedge.networks.narrowing.scores import SCORES

    return SCORES[name].function(groups_of(model), batches)


def test_weights_count_by_their_size_over_all_layers_that_make_a_channel(added):
    a, b, c = (kernel(added, name) for name in "abc")
    l1, l2 = scores("l1", added), scores("l2", added)
    assert np.allclose(l1["a"], np.abs(a).sum(0) + np.abs(b).sum(0))
    assert np.allclose(l1["c"], np.abs(c).sum(0))
    assert np.allclose(l2["a"], np.sqrt((a**2).sum(0)) + np.sqrt((b**2).sum(0)))


def test_a_filter_between_the_others_is_worth_least_by_the_geometric_median(added):
    filters = kernel(added, "c").T
    expected = [sum(np.linalg.norm(one - other) for other in filters) for one in filters]
    assert np.allclose(scores("geometric_median", added)["c"], expected, rtol=1e-4)


def test_batchnorm_scores_by_its_factors_and_names_layers_that_have_none(k, added):
    layers = k.layers
    x = images = k.Input((8, 8, 2))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 3, name="a")(x))
    with_norm = randomise(k.Model(images, layers.Dense(3)(layers.Flatten()(x))))
    with_norm.get_layer("norm").gamma.assign([1, -2, 3, -4, 5, -6])
    assert scores("batchnorm", with_norm)["a"].tolist() == [1, 2, 3, 4, 5, 6]
    with pytest.raises(UserError, match="no BatchNormalization scales the channels of 'c'"):
        scores("batchnorm", added)


def cross_entropy(logits, labels):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return float(
        -(labels * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))).sum(1).mean()
    )


def test_taylor_is_the_squared_slope_of_the_loss_when_a_channel_is_turned_down(added):
    """The slope is measured: what reads the channel is made a little weaker and stronger."""
    rng = np.random.default_rng(2)
    batches = [
        (
            rng.normal(size=(4, 8, 8, 2)).astype(np.float32),
            np.eye(3, dtype=np.float32)[[0, 1, 2, n]],
        )
        for n in (0, 1)
    ]
    reader, step = added.get_layer("c"), 2e-3
    weights, bias = reader.get_weights()
    expected = np.zeros(6)
    for channel in range(6):
        for x, y in batches:
            losses = []
            for factor in (1 + step, 1 - step):
                turned = weights.copy()
                turned[:, :, channel] *= factor
                reader.set_weights([turned, bias])
                losses.append(cross_entropy(added(x).numpy(), y))
            expected[channel] += ((losses[0] - losses[1]) / (2 * step)) ** 2
    reader.set_weights([weights, bias])
    assert np.allclose(scores("taylor", added, batches)["a"], expected, rtol=0.05, atol=1e-5)


def costs_of(groups):
    from tfedge.networks.narrowing.costs import Costs

    return Costs(groups)


def test_a_cost_is_worked_out_by_hand(added):
    costs = costs_of(groups_of(added))
    # 6 x 6 places; kernels of 3x3x2 to 6 twice, of 1x1x6 to 4, and a dense layer of 4 to 3.
    assert costs.macs(costs.widths) == 36 * (2 * 9 * 2 * 6 + 6 * 4) + 4 * 3
    assert costs.macs(np.array([2, 3])) == 36 * (2 * 9 * 2 * 2 + 2 * 3) + 3 * 3
    assert costs.channels(np.array([2, 3])) == 5


NETWORKS = ("resnet8", "mobilenet_v2", "shuffled", "separable", "conv1d", "nasnet")


@pytest.mark.parametrize("name", NETWORKS)
def test_multiplications_are_those_of_the_file_whatever_stays(name):
    import foreign_networks
    from narrowed import from_models, half_of_each

    from tfedge.networks.graph import build
    from tfedge.networks.narrowing.amounts import counted
    from tfedge.networks.narrowing.surgery import without
    from tfedge.tflite.conversion import to_float
    from tfedge.tflite.facts import facts

    model = from_models(name) if name == "resnet8" else getattr(foreign_networks, name)()
    groups = groups_of(model)
    kept = half_of_each(groups)
    costs = costs_of(groups)
    whole = facts(to_float(build(groups.graph)), name).macs
    half = facts(to_float(build(without(groups, kept))), name).macs
    # What multiplies and is no kernel, such as a gate, is in the file's count alone.
    assert costs.macs(costs.widths) == pytest.approx(whole, rel=0.02)
    assert costs.macs(counted(groups, kept)) == pytest.approx(half, rel=0.02)


def test_bytes_are_those_by_which_int8_files_differ():
    from narrowed import from_models, half_of_each, inputs_for

    from tfedge.networks.graph import build
    from tfedge.networks.narrowing.amounts import counted
    from tfedge.networks.narrowing.surgery import without
    from tfedge.tflite.conversion import to_int8

    model = from_models("resnet8")
    groups = groups_of(model)
    kept = half_of_each(groups)
    costs = costs_of(groups)
    samples = inputs_for(model, 16)
    limits = float(samples.min()), float(samples.max())
    files = [
        len(to_int8(network, samples, limits))
        for network in (build(groups.graph), build(without(groups, kept)))
    ]
    found = costs.bytes(costs.widths) - costs.bytes(counted(groups, kept))
    assert found == pytest.approx(files[0] - files[1], rel=0.02)


def chosen(model, worth, cost, budget, **steps):
    from tfedge.networks.narrowing.amounts import Steps, choose

    groups = groups_of(model)
    worth = {name: np.array(values, float) for name, values in worth.items()}
    kept = choose(groups, worth, cost, budget, Steps(**{"multiple": 1, "least": 1} | steps))
    return {name: channels.tolist() for name, channels in kept.items()}


WORTH = {"a": [9, 1, 8, 2, 7, 3], "c": [6, 5, 4, 10]}


def test_the_channels_worth_least_go_of_whichever_layer_they_are(added):
    kept = chosen(added, WORTH, lambda counts: counts.sum(), 5)
    assert kept == {"a": [0, 2, 4], "c": [0, 3]}  # 9, 8 and 7; 6 and 10


def test_a_channel_that_costs_much_must_be_worth_much(added):
    # Those of "a" cost 4: 9 is worth less for its cost than any of "c".
    kept = chosen(added, WORTH, lambda counts: float(counts @ [4, 1]), 8)
    assert kept == {"a": [0], "c": [0, 1, 2, 3]}
    kept = chosen(added, WORTH, lambda counts: float(counts @ [1, 4]), 14)
    assert kept == {"a": [0, 1, 2, 3, 4, 5], "c": [0, 3]}


def test_what_a_channel_costs_falls_with_the_channels_that_read_it(added):
    """By the product of both, as between two layers, each step is worked out by hand."""
    worth = {"a": [4, 3, 2, 1, 1, 1], "c": [4, 4, 4, 1]}
    # 24 in all.  A step of "a" saves 4 for 1: 0.25; one of "c" saves 6 for 1: 0.17, so "c" first:
    # 18.  Then of "a", 1 for 3 three times: 9.
    assert chosen(added, worth, lambda counts: float(counts.prod()), 9) == {
        "a": [0, 1, 2],
        "c": [0, 1, 2],
    }


def test_channels_stay_in_multiples_or_all_of_them(added):
    kept = chosen(added, WORTH, lambda counts: counts.sum(), 9, multiple=4, least=4)
    assert {name: len(channels) for name, channels in kept.items()} == {"a": 4, "c": 4}


def test_more_than_can_go_is_refused(added):
    with pytest.raises(
        UserError, match=r"the least that can stay costs 2\.00 times what may be left"
    ):
        chosen(added, WORTH, lambda counts: counts.sum(), 4, multiple=4, least=4)


def test_by_layer_every_layer_loses_the_same_share(added):
    from tfedge.networks.narrowing.amounts import comparable

    worth = {"a": np.array([900, 100, 800, 200, 700, 300.0]), "c": np.array([6, 5, 4, 10.0])}
    ranks = comparable(worth, layerwise=True, compares=False)
    kept = chosen(added, ranks, lambda counts: counts.sum(), 5)
    assert kept == {"a": [0, 2, 4], "c": [0, 3]}
    scaled = comparable(worth, layerwise=False, compares=False)
    assert scaled["a"].mean() == scaled["c"].mean() == 1


@pytest.mark.parametrize("share", [0.3, 0.55, 0.8])
def test_instructions_are_searched_for_with_few_counts(k, share):
    from tfedge.networks.narrowing.cutting import cost_of, cut

    layers = k.layers
    x = images = k.Input((8, 8, 2))
    for width in (64, 96, 128):
        x = layers.ReLU()(layers.Conv2D(width, 3, padding="same")(x))
    model = randomise(k.Model(images, layers.Dense(3)(layers.Flatten()(x))))
    counts = []

    def instructions(network):
        """As a processor's: more for few channels, and something for the call itself."""
        wide = cost_of(network, Wishes(remove=0.5), None)
        counts.append(500 + 0.4 * wide + 3 * wide**0.9)
        return counts[-1]

    wishes = Wishes(remove=1 - share, share_of="pi4", score="l1", multiple=1, least=1)
    budget = share * cost_of(model, wishes, instructions)
    made = cut(model, wishes, budget, (), instructions)
    assert len(counts) <= 9
    # A channel of the second layer is 3.4 % of the whole: no choice may come nearer.
    assert 0.96 * budget < instructions(made.network) <= budget


def test_instructions_that_are_mostly_for_other_things_are_met_too(k):
    """A fiftieth of the multiplications is less than can stay, not so of the instructions."""
    from tfedge.networks.narrowing.cutting import cost_of, cut

    x = images = k.Input((8, 8, 2))
    for width in (32, 48, 64):
        x = k.layers.ReLU()(k.layers.Conv2D(width, 3, padding="same")(x))
    model = randomise(k.Model(images, k.layers.Dense(3)(k.layers.GlobalAveragePooling2D()(x))))
    whole = cost_of(model, Wishes(remove=0.5), None)

    def instructions(network):
        width = network.layers[1].filters  # as if the first layer's channels cost most
        return cost_of(network, Wishes(remove=0.5), None) - whole / 40 * (8 - width / 4)

    wishes = Wishes(remove=0.98, share_of="pi5", score="l1")
    made = cut(model, wishes, 0.02 * instructions(model), (), instructions)
    assert instructions(made.network) <= 0.02 * instructions(model)


def test_a_step_that_costs_nothing_stays(added):
    kept = chosen(added, WORTH, lambda counts: float(counts[0]), 2)
    assert kept == {"a": [0, 2], "c": [0, 1, 2, 3]}


def test_a_network_of_which_nothing_can_go_is_refused_by_its_layers(k):
    from tfedge.networks.narrowing.cutting import cut

    x = k.Input((4,))
    model = k.Model(x, k.layers.Dense(3, name="only")(x))
    with pytest.raises(UserError, match="no layer of this network can lose channels: only is the"):
        cut(model, Wishes(remove=0.5), 1.0, (), None)
