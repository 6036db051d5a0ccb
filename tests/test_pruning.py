import numpy as np
import pytest
from small_data import stripes

from tfedge.errors import UserError
from tfedge.training.course import Course

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def p():
    from tfedge.training import pruning

    return pruning


def network(p, width=8):
    p.keras.backend.clear_session()
    p.keras.utils.set_random_seed(0)
    layers = p.keras.layers
    x = inputs = p.keras.Input((8, 8, 4))
    x = layers.Conv2D(width, 3, name="wide")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(layers.ReLU()(x))
    x = layers.Conv2D(width, 1, name="narrow")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return p.keras.Model(inputs, layers.Dense(4, name="answer")(x))


def pruned(p, pattern="free", target=0.75, exceptions=None, steps=12):
    """Train with pruning for a few steps; return the network before and after."""
    before = network(p)
    schedule = p.Schedule("polynomial", 0, 8, 2, 1)
    model = p.with_pruning(before, target, schedule, p.Pattern(pattern, (1, 2)), exceptions or {})
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4 * steps, 8, 8, 4)).astype(np.float32)
    y = rng.normal(size=(4 * steps, 4)).astype(np.float32)
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[p.pruning_step()])
    return before, model


def test_each_kernel_ends_with_the_share_of_zeros_that_was_asked_for(p):
    _, model = pruned(p, exceptions={"narrow": 0.25, "ans*": 0.0})
    zeros = p.zeros(p.without_pruning(model))
    assert zeros["wide"] == pytest.approx(0.75, abs=1 / (9 * 4 * 8))
    assert zeros["narrow"] == pytest.approx(0.25, abs=1 / 64)
    assert zeros["answer"] == zeros["depthwise"] == 0


def test_the_stripped_network_answers_as_the_wrapped_one_did(p):
    before, model = pruned(p)
    clean = p.without_pruning(model)
    x = np.random.default_rng(1).normal(size=(5, 8, 8, 4)).astype(np.float32)
    assert clean(x, training=False).numpy() == pytest.approx(
        model(x, training=False).numpy(), abs=1e-6
    )
    assert [type(layer) for layer in clean.layers] == [type(layer) for layer in before.layers]
    assert clean.count_params() == before.count_params()


def test_the_callers_network_stays_as_it_was(p):
    before = network(p)
    weights = before.get_weights()
    after, _ = pruned(p)
    assert all(map(np.array_equal, after.get_weights(), weights))


def test_two_of_each_four_weights_along_the_inputs_are_zero(p):
    _, model = pruned(p, "2:4", target=0.5)
    kernel = p.without_pruning(model).get_layer("answer").get_weights()[0]  # [8 inputs, 4 outputs]
    fours = kernel.T.reshape(-1, 4)
    assert ((fours == 0).sum(axis=1) == 2).all()


def test_whole_blocks_fall_in_a_dense_layer(p):
    _, model = pruned(p, "block", target=0.5)
    kernel = p.without_pruning(model).get_layer("answer").get_weights()[0]
    blocks = kernel.reshape(16, 2)  # one input by two outputs
    share = (blocks == 0).mean(axis=1)
    assert set(share) == {0.0, 1.0}
    assert share.mean() == pytest.approx(0.5)


def test_layers_where_no_blocks_form_are_named(p):
    assert p.without_blocks(network(p), (1, 2)) == ["wide", "narrow"]
    assert p.without_blocks(network(p), (1, 4)) == ["wide", "narrow", "answer"]


@pytest.mark.parametrize("step", [0, 250, 500, 1000])
def test_the_ramp_is_zhu_and_guptas_cubic(p, step):
    ramp = p.Schedule("polynomial", 0, 1000, 10, 1).reaching(0.8)
    _, sparsity = ramp(p.tf.constant(step, p.tf.int64))
    assert float(sparsity) == pytest.approx(0.8 * (1 - (1 - step / 1000) ** 3), abs=1e-6)


@pytest.mark.parametrize(
    ("epochs", "batch", "span"),
    [(1, 64, (0, 1)), (1, 256, (0, 0)), (3, 64, (0.3, 0.7)), (50, 8, (0, 0.6))],
)
def test_the_last_pruning_comes_before_training_ends_however_short(p, epochs, batch, span):
    data = stripes()
    course = Course(epochs=epochs, batch=batch)
    total = epochs * -(-len(data.train.classes) // batch)
    schedule = p.Schedule.over(course, data, span, kind="polynomial", every=0)
    assert 0 <= schedule.begin < schedule.end <= total  # tfmot counts the steps from 1
    assert (schedule.end - schedule.begin) % schedule.every == 0
    assert schedule.every >= 1
    assert 0 <= schedule.first_epoch < epochs


def test_a_pattern_that_matches_no_layer_is_refused(p):
    schedule, pattern = p.Schedule("constant", 0, 1, 1, 0), p.Pattern("free", (1, 4))
    with pytest.raises(UserError, match="matches 'answr'\n  did you mean 'answer'"):
        p.with_pruning(network(p), 0.5, schedule, pattern, {"answr": 0})


def test_zeros_that_are_there_are_not_pruned_away_again(p):
    _, model = pruned(p, target=0.75)
    sparse, schedule = p.without_pruning(model), p.Schedule("polynomial", 0, 8, 2, 1)
    with pytest.raises(UserError, match="wide has 75% zeros, and would have 50%"):
        p.with_pruning(sparse, 0.5, schedule, p.Pattern("free", (1, 4)), {})


def test_a_network_in_a_network_is_refused(p):
    inner, schedule = network(p), p.Schedule("constant", 0, 1, 1, 0)
    outer = p.keras.Sequential([p.keras.layers.InputLayer((8, 8, 4)), inner])
    with pytest.raises(UserError, match="is a network in a network"):
        p.with_pruning(outer, 0.5, schedule, p.Pattern("free", (1, 4)), {})


def test_prunings_further_apart_than_the_ramp_are_refused(p):
    with pytest.raises(UserError, match="every: must be at most the 4 steps of the ramp, got 5"):
        p.Schedule.over(Course(epochs=1, batch=64), stripes(), (0, 1), kind="polynomial", every=5)


@pytest.mark.parametrize("kind", ["polynomial", "constant"])
@pytest.mark.parametrize(("epochs", "span"), [(1, (0, 0)), (1, (0.9, 1)), (3, (0.5, 1))])
def test_the_shortest_course_ends_with_all_the_zeros(p, kind, epochs, span):
    data = stripes(train=64)
    course = Course(epochs=epochs, batch=64)
    layers = p.keras.layers
    model = p.keras.Sequential([layers.Flatten(input_shape=(8, 8, 1)), layers.Dense(4)])
    schedule = p.Schedule.over(course, data, span, kind=kind, every=0)
    wrapped = p.with_pruning(model, 0.75, schedule, p.Pattern("free", (1, 4)), {})
    wrapped.compile("adam", "mse")
    x, y = data.normalise(data.train.inputs), np.eye(4)[data.train.classes]
    wrapped.fit(x, y, batch_size=64, epochs=epochs, verbose=0, callbacks=[p.pruning_step()])
    assert p.sparsity_of(p.without_pruning(wrapped)) == 0.75


def test_a_constant_ramp_prunes_at_its_first_step(p):
    ramp = p.Schedule("constant", 10, 100, 30, 1).reaching(0.8)
    pruned_at = [step for step in range(1, 101) if ramp(p.tf.constant(step, p.tf.int64))[0]]
    assert pruned_at == [11, 41, 71]


def test_two_of_each_four_fall_along_a_convolutions_inputs(p):
    _, model = pruned(p, "2:4", target=0.5)
    kernel = p.without_pruning(model).get_layer("wide").get_weights()[0]  # [3, 3, 4 inputs, 8]
    assert ((kernel == 0).sum(axis=2) == 2).all()


def test_fours_in_a_1d_convolution_are_refused_unless_it_is_spared(p):
    layers = p.keras.layers
    model = p.keras.Sequential(
        [layers.Conv1D(4, 3, input_shape=(8, 4), name="c"), layers.Flatten(), layers.Dense(4)]
    )
    schedule, fours = p.Schedule("constant", 0, 1, 1, 0), p.Pattern("2:4", (1, 4))
    with pytest.raises(UserError, match="c is a Conv1D, where tfmot knows no 2:4") as caught:
        p.with_pruning(model, 0.5, schedule, fours, {})
    assert 'add layers = { "c" = 0 }' in str(caught.value)
    p.with_pruning(model, 0.5, schedule, fours, {"c": 0.0})


def test_of_a_separable_convolution_the_pointwise_half_is_pruned(p):
    layers = p.keras.layers
    model = p.keras.Sequential([layers.SeparableConv2D(8, 3, input_shape=(8, 8, 4), name="s")])
    schedule = p.Schedule("constant", 0, 1, 1, 0)
    wrapped = p.with_pruning(model, 0.5, schedule, p.Pattern("free", (1, 4)), {})
    wrapped.compile("adam", "mse")
    x = np.ones((2, 8, 8, 4), np.float32)
    wrapped.fit(x, np.ones((2, 6, 6, 8)), verbose=0, callbacks=[p.pruning_step()])
    depthwise, pointwise, _ = p.without_pruning(wrapped).get_weights()
    assert np.count_nonzero(depthwise) == depthwise.size
    assert np.count_nonzero(pointwise) == pointwise.size / 2
