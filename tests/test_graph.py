import numpy as np
import pytest
from random_weights import difference, randomise

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def g():
    from tfedge.networks import graph

    return graph


def dense(g, name, units, given, rng):
    """Return a call of a Dense layer on `given`, with random weights."""
    inputs = given.shape[-1]
    weights = [rng.normal(size=size).astype(np.float32) for size in ((inputs, units), (units,))]
    layer = g.Layer(name, g.keras.layers.Dense, {"units": units}, weights)
    return g.Call(layer, ((given,), {}), [g.Tensor((None, units))])


def chain(g):
    """Return Dense(4) -> Dense(3) -> Dense(2) on 5 numbers."""
    rng = np.random.default_rng(0)
    start = g.Tensor((None, 5))
    first = dense(g, "first", 4, start, rng)
    second = dense(g, "second", 3, first.output, rng)
    third = dense(g, "third", 2, second.output, rng)
    return g.Graph("chain", [start], [third.output], [first, second, third])


def by_hand(graph, x):
    for call in graph.calls:
        kernel, bias = call.layer.weights
        x = x @ kernel + bias
    return x


def test_a_graph_becomes_a_flat_functional_float32_network_of_its_name(g):
    graph = chain(g)
    model = g.build(graph)
    x = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    assert difference(model(x), by_hand(graph, x)) < 1e-6
    assert model.name == "chain"
    assert [layer.name for layer in model.layers[1:]] == ["first", "second", "third"]
    assert {layer.dtype for layer in model.layers} == {"float32"}


def test_a_graph_is_built_again_as_often_as_one_likes(g):
    graph = chain(g)
    one, two = g.build(graph), g.build(graph)
    assert all(map(np.array_equal, one.get_weights(), two.get_weights()))
    assert not set(one.layers) & set(two.layers)


def test_a_layer_called_twice_is_one_layer_with_its_weights_once(g):
    rng = np.random.default_rng(0)
    start = g.Tensor((None, 4))
    one = dense(g, "shared", 4, start, rng)
    two = g.Call(one.layer, ((one.output,), {}), [g.Tensor((None, 4))])
    graph = g.Graph("twice", [start], [two.output], [one, two])
    assert graph.shared(one.layer)
    model = g.build(graph)
    assert len(model.layers) == 2
    assert len(model.weights) == 2
    x = rng.normal(size=(6, 4)).astype(np.float32)
    assert difference(model(x), by_hand(graph, x)) < 1e-6


def test_who_makes_and_who_reads_a_tensor_is_known(g):
    graph = chain(g)
    first, second, third = graph.calls
    assert graph.producer(graph.inputs[0]) is None
    assert graph.producer(second.input) is first
    assert graph.readers(first.output) == [second]
    assert graph.only_reader(second.output) is third
    assert graph.readers(third.output) == []


def test_an_output_of_the_network_has_no_only_reader(g):
    graph = chain(g)
    middle = graph.calls[1].output
    graph.outputs.append(middle)
    assert graph.only_reader(middle) is None


def test_a_bypassed_call_is_gone_and_its_reader_reads_its_input(g):
    graph = chain(g)
    first, second, third = graph.calls
    second.layer.config["units"] = 4
    graph.bypass(second)
    assert graph.calls == [first, third]
    assert third.input is first.output
    assert graph.readers(first.output) == [third]


def test_a_bypassed_last_call_leaves_its_input_as_the_answer(g):
    graph = chain(g)
    graph.bypass(graph.calls[-1])
    assert graph.outputs == [graph.calls[-1].output]
    assert g.build(graph).output_shape == (None, 3)


@pytest.mark.parametrize("position", [0, 1, 3])
def test_a_call_put_behind_a_tensor_is_read_by_all_that_read_the_tensor(g, position):
    graph = chain(g)
    tensor = [graph.inputs[0], *(call.output for call in graph.calls)][position]
    relu = g.Layer("relu", g.keras.layers.ReLU)
    call = graph.insert_after(tensor, relu)
    assert graph.calls.index(call) == position
    assert graph.readers(tensor) == [call]
    values = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    expected = np.maximum(values, 0) if position == 0 else values
    for number, made in enumerate((c for c in graph.calls if c is not call), start=1):
        kernel, bias = made.layer.weights
        expected = expected @ kernel + bias
        expected = np.maximum(expected, 0) if number == position else expected
    assert difference(g.build(graph)(values), expected) < 1e-6


def test_what_nothing_reads_is_dropped_with_all_that_only_it_needed(g):
    graph = chain(g)
    first, second, third = graph.calls
    rng = np.random.default_rng(0)
    aside = dense(g, "aside", 7, first.output, rng)
    beyond = dense(g, "beyond", 7, aside.output, rng)
    graph.replace(second, [aside, second, beyond])
    graph.drop_unread()
    assert graph.calls == [first, second, third]


def test_a_new_name_is_one_that_no_layer_has(g):
    graph = chain(g)
    assert graph.new_name("fourth") == "fourth"
    assert graph.new_name("first") == "first_1"
    graph.calls[1].layer.name = "first_1"
    assert graph.new_name("first") == "first_2"


def test_tensors_are_found_in_lists_and_in_named_arguments(g):
    a, b, c = (g.Tensor((None, 2)) for _ in range(3))
    layer = g.Layer("any", g.keras.layers.Layer)
    call = g.Call(layer, (([a, b], 3.0), {"mask": None, "other": {"x": c}}), [a])
    assert call.inputs == [a, b, c]


def test_a_class_derived_from_a_kind_is_another_kind(g):
    class Mine(g.keras.layers.Dense):
        pass

    call = g.Call(g.Layer("mine", Mine), ((), {}), [])
    assert call.is_a(Mine)
    assert not call.is_a(g.keras.layers.Dense)


def test_weights_that_do_not_fit_are_refused_with_both_shapes(g):
    graph = chain(g)
    graph.calls[1].layer.weights[0] = np.zeros((9, 3), np.float32)
    message = (
        r"layer 'second' \(Dense\): has weights \[\(9, 3\), \(3,\)\].*wants \[\(4, 3\), \(3,\)\]"
    )
    with pytest.raises(UserError, match=message):
        g.build(graph)


def test_a_layer_that_cannot_say_how_it_was_made_is_refused_by_name(g):
    class Scale(g.keras.layers.Layer):
        def __init__(self, by, **named):
            super().__init__(**named)
            self.by = by

    start, made = g.Tensor((None, 2)), g.Tensor((None, 2))
    call = g.Call(g.Layer("half", Scale), ((start,), {}), [made])
    with pytest.raises(UserError, match=r"layer 'half' \(Scale\): cannot be made again") as caught:
        g.build(g.Graph("own", [start], [made], [call]))
    assert "its get_config() return all" in str(caught.value)


def test_a_network_read_and_built_again_answers_the_same(g):
    from tfedge.networks.keras2 import Keras2
    from tfedge.networks.reading import read

    layers = g.keras.layers
    x = given = g.keras.Input((8, 8, 2))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(x)))
    x = layers.Add()([x, layers.Conv2D(4, 1)(x)])
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    model = randomise(g.keras.Model(given, x))
    again = g.build(read(model, Keras2()))
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 2)).astype(np.float32)
    assert difference(again(x), model(x)) < 1e-6
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]
