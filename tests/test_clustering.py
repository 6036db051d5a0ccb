import zlib

import numpy as np
import pytest
from small_jobs import folders, trained

from tfedge.errors import UserError
from tfedge.plan.stages import Cluster
from tfedge.training.course import Course

pytestmark = pytest.mark.slow

INITS = ("kmeans++", "linear", "density", "random")


@pytest.fixture(scope="module")
def c():
    from tfedge.training import clustering

    return clustering


def network(c):
    c.keras.backend.clear_session()
    c.keras.utils.set_random_seed(0)
    layers = c.keras.layers
    x = inputs = c.keras.Input((8, 8, 4))
    x = layers.Conv2D(16, 3, name="wide")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(layers.ReLU()(x))
    x = layers.SeparableConv2D(16, 3, name="separable")(x)
    x = layers.Conv2D(2, 1, name="tiny")(x)
    return c.keras.Model(inputs, layers.Dense(8, name="answer")(layers.Flatten()(x)))


def pruned(model, share=0.5):
    """Set the smallest weights of each kernel but the tiny one's to 0, in place."""
    from tfedge.networks.kernels import kernels

    for name, kernel in kernels(model).items():
        if name != "tiny":
            size = np.abs(kernel.numpy())
            kernel.assign(np.where(size < np.quantile(size, share), 0, kernel.numpy()))
    return model


def clustered(c, before, count=8, init="kmeans++", exceptions=None):
    """Cluster a network and train it for a few steps; return it wrapped, and without wrappers."""
    from tfedge.training.preserving import Preserving, unwrapped

    wrapped = c.with_clustering(before, c.Wish(count, init, exceptions or {}))
    wrapped.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 8, 8, 4)).astype(np.float32)
    y = rng.normal(size=(48, 8)).astype(np.float32)
    wrapped.fit(x, y, batch_size=8, verbose=0, callbacks=[Preserving(unwrapped(wrapped))])
    return wrapped, c.without_clustering(wrapped)


def values(model):
    """Return each kernel, of a separable convolution the pointwise half, by layer."""
    place = {"separable": 1}
    layers = [layer for layer in model.layers if layer.get_weights()]
    return {layer.name: layer.get_weights()[place.get(layer.name, 0)] for layer in layers}


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("sparse", [False, True])
def test_each_kernel_ends_with_so_many_values_and_keeps_its_zeros(c, init, sparse):
    before = pruned(network(c)) if sparse else network(c)
    zeros = {name: kernel == 0 for name, kernel in values(before).items()}
    _, after = clustered(c, before, init=init)
    found = values(after)
    for name in ("wide", "separable", "answer"):
        assert 6 <= np.unique(found[name]).size <= 8, name
        assert (found[name][zeros[name]] == 0).all()
        assert np.mean(found[name] == 0) == pytest.approx(0.5 * sparse, abs=0.02)
    assert (found["depthwise"][zeros["depthwise"]] == 0).all()
    assert np.unique(found["depthwise"]).size > 60


def test_the_stripped_network_answers_as_the_wrapped_one_did(c):
    before = network(c)
    wrapped, after = clustered(c, before)
    x = np.random.default_rng(1).normal(size=(5, 8, 8, 4)).astype(np.float32)
    expected = wrapped(x, training=False).numpy()
    assert after(x, training=False).numpy() == pytest.approx(expected, abs=1e-6)
    assert [type(layer) for layer in after.layers] == [type(layer) for layer in before.layers]
    assert [w.shape for w in after.weights] == [w.shape for w in before.weights]


def test_training_moves_the_values_and_leaves_the_callers_network_as_it_was(c):
    before = network(c)
    weights = before.get_weights()
    _, after = clustered(c, before)
    assert all(map(np.array_equal, before.get_weights(), weights))
    start = c.without_clustering(c.with_clustering(before, c.Wish(8, "linear", {})))
    centroids = np.linspace(*(f(values(before)["wide"]) for f in (np.min, np.max)), 8)
    assert np.unique(values(start)["wide"]) == pytest.approx(centroids, abs=1e-6)
    assert not np.isin(np.unique(values(after)["wide"]), values(start)["wide"]).any()


def test_before_any_training_each_weight_is_its_nearest_value(c):
    before = network(c)
    start = c.without_clustering(c.with_clustering(before, c.Wish(8, "linear", {})))
    kernel, found = values(before)["answer"], values(start)["answer"]
    distances = np.abs(kernel[..., None] - np.unique(found))
    assert np.abs(kernel - found) == pytest.approx(distances.min(axis=-1), abs=1e-6)


def test_layers_may_have_other_numbers_or_none_by_name(c):
    _, after = clustered(c, network(c), exceptions={"wi*": 4, "ans*": 0})
    found = {name: np.unique(kernel).size for name, kernel in values(after).items()}
    assert found["wide"] == 4
    assert found["separable"] == 8
    assert found["answer"] == values(after)["answer"].size


def test_a_layer_left_whole_keeps_its_zeros_and_one_left_clustered_its_values(c):
    _, first = clustered(c, pruned(network(c)), exceptions={"answer": 0})
    zeros = values(first)["answer"] == 0
    _, second = clustered(c, first, exceptions={"answer": 0, "wide": 0})
    assert (values(second)["answer"][zeros] == 0).all()
    assert np.mean(zeros) == pytest.approx(0.5, abs=0.02)
    one, other = values(first)["wide"], values(second)["wide"]
    assert np.unique(other).size == np.unique(one).size == 8
    assert not np.isin(np.unique(other)[np.unique(other) != 0], one).any()


def test_what_is_not_clustered_is_named(c):
    model = network(c)
    assert c.unclustered(model) == {"depthwise": "DepthwiseConv2D"}
    assert c.too_small(model, c.Wish(17, "linear", {})) == ["tiny"]
    assert c.too_small(model, c.Wish(16, "linear", {})) == []


def test_a_pattern_that_matches_no_layer_is_refused(c):
    with pytest.raises(UserError, match="matches 'answr'\n  did you mean 'answer'"):
        c.with_clustering(network(c), c.Wish(8, "linear", {"answr": 4}))


def test_a_network_in_a_network_is_refused(c):
    outer = c.keras.Sequential([c.keras.layers.InputLayer((8, 8, 4)), network(c)])
    with pytest.raises(UserError, match="is a network in a network"):
        c.with_clustering(outer, c.Wish(8, "linear", {}))


def test_to_prune_what_is_clustered_is_refused(c):
    from tfedge.training import pruning as p

    _, after = clustered(c, network(c))
    schedule, pattern = p.Schedule("constant", 0, 1, 1, 0), p.Pattern("free", (1, 4))
    with pytest.raises(UserError, match="share values, which pruning would undo\n  prune first"):
        p.with_pruning(after, 0.5, schedule, pattern, {})


def test_a_layer_spared_by_pruning_keeps_the_zeros_it_has(tmp_path):
    from tfedge.networks.saving import load_model
    from tfedge.plan.job import MODEL
    from tfedge.plan.stages import Prune

    inputs = folders(tmp_path)
    course = Course(epochs=1, batch=32)
    trained(Prune("of", course=course), inputs, tmp_path / "first")
    name = load_model(tmp_path / "first" / MODEL).layers[-1].name
    again = Prune("of", sparsity=0.75, layers={name: 0.0}, course=course)
    _, figures = trained(again, {"of": tmp_path / "first"}, tmp_path / "second")
    assert figures["zeros"][name] == pytest.approx(0.5, abs=0.02)


def test_the_stage_says_what_it_made(tmp_path):
    stage = Cluster("of", clusters=6, course=Course(epochs=1, batch=32))
    weights, figures = trained(stage, folders(tmp_path), tmp_path / "out")
    kernels = [weight for weight in weights if weight.ndim > 1 and weight.size >= 12]
    assert list(figures["clusters"].values()) == [np.unique(kernel).size for kernel in kernels]
    assert set(figures["clusters"].values()) == {6}
    assert figures["sparsity"] == 0
    assert figures["notes"] == [
        f"weights share 6 values in {', '.join(figures['clusters'])}:"
        " that shortens the zipped file, and makes int8 no faster"
    ]
    assert figures["zipped_bytes"] < figures["raw_bytes"]


def test_a_teacher_may_teach_while_weights_are_clustered(tmp_path):
    from tfedge.training.teaching import Teaching

    inputs, course = folders(tmp_path), Course(epochs=1, batch=32)
    alone, _ = trained(Cluster("of", course=course), inputs, tmp_path / "alone")
    stage = Cluster("of", course=course, teaching=Teaching("teacher"))
    taught, figures = trained(stage, inputs, tmp_path / "taught")
    assert not all(map(np.array_equal, alone, taught))
    assert max(figures["clusters"].values()) <= 16


@pytest.mark.parametrize("sparse", [False, True])
def test_shared_values_zip_to_fewer_bytes(c, sparse):
    def zipped(model):
        return len(zlib.compress(b"".join(w.tobytes() for w in model.get_weights()), 9))

    before = pruned(network(c)) if sparse else network(c)
    few, fewer = (clustered(c, before, count)[1] for count in (32, 8))
    assert zipped(fewer) < zipped(few) < zipped(before)


def test_too_few_clusters_for_a_layer_are_refused():
    with pytest.raises(UserError, match="'answer' must have 3 clusters or more, or 0 for none"):
        Cluster("of", layers={"answer": 2}).check("[x]")
