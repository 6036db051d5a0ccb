"""LSTM layers, whose operators bear no names, and values that are no numbers, in a comparison."""

import numpy as np
import pytest
from tiny_conv import G, Op, T, model_of

from tfedge.data.dataset import Data, Split
from tfedge.tflite import names
from tfedge.tflite.comparison import flow_of

LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
SERIES = (6, 3)


def graph_of(*steps):
    """Return a graph of operators: (operator, numbers of what it reads, what it makes)."""
    tensors = [T("given", "float32", (1, 6, 3))]
    tensors += [T(made, "float32", (1, 6, 3)) for _, _, made in steps]
    operators = [Op(name, read, (place,)) for place, (name, read, _) in enumerate(steps, 1)]
    last = len(tensors) - 1
    graph = G("main", tuple(tensors), tuple(operators), (0,), (last,))
    return flow_of(model_of(graph), "x").subgraph


def owners(layers, *steps):
    return names.of_operators(graph_of(*steps), layers)


def test_lstms_in_a_row_are_known_by_their_order_with_what_stands_around_them():
    layers = [("in", "InputLayer"), ("one", "LSTM"), ("two", "LSTM"), ("out", "Dense")]
    found = owners(
        layers,
        ("REVERSE_V2", (0,), "tfl.reverse"),
        (LSTM, (1,), "tfl.lstm"),
        (LSTM, (2,), "tfl.lstm1"),
        ("STRIDED_SLICE", (3,), "tfl.slice"),
        ("FULLY_CONNECTED", (4,), "net/out/MatMul"),
    )
    assert found == (("one",), ("one",), ("two",), ("two",), ("out",))


def test_both_directions_are_one_layer():
    found = owners(
        [("both", "Bidirectional"), ("out", "Dense")],
        (LSTM, (0,), "tfl.lstm"),
        (LSTM, (0,), "tfl.lstm1"),
        ("CONCATENATION", (1, 2), "net/both/concat"),
        ("FULLY_CONNECTED", (3,), "net/out/MatMul"),
    )
    assert found == (("both",), ("both",), ("both",), ("out",))


def test_of_two_side_by_side_none_is_guessed():
    found = owners(
        [("left", "LSTM"), ("right", "LSTM"), ("out", "Dense")],
        (LSTM, (0,), "tfl.lstm"),
        (LSTM, (0,), "tfl.lstm1"),
        ("CONCATENATION", (1, 2), "made.up"),
        ("FULLY_CONNECTED", (3,), "net/out/MatMul"),
    )
    assert found == ((), (), (), ("out",))


def converted(middle, shape, limits, x):
    """Return a network's float and int8 files, and its layers."""
    from tfedge.networks.backend import keras
    from tfedge.tflite.conversion import to_float, to_int8

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    given = keras.Input(shape)
    made = keras.layers.Dense(4, name="out")(middle(keras.layers, given))
    model = keras.Model(given, made)
    return to_float(model), to_int8(model, x, limits), names.of_network(model)


@pytest.mark.slow
def test_an_lstm_is_compared_by_its_keras_name():
    from tfedge.tflite.comparison import compare

    x = np.random.default_rng(0).normal(size=(16, *SERIES)).astype(np.float32)
    files = converted(
        lambda layers, given: layers.LSTM(4, name="memory")(given), SERIES, (-4, 4), x
    )
    found = compare(*files[:2], x[:4], files[2])
    kinds = {layer.layer: layer.kind for layer in found.layers}
    assert set(kinds.values()) == {"InputLayer", "LSTM", "Dense"}
    assert kinds["memory"] == "LSTM"


@pytest.mark.slow
def test_an_input_is_answered_alike_whatever_came_before_it():
    from tfedge.tflite.running import Run, answers

    x = np.random.default_rng(0).normal(size=(2, *SERIES)).astype(np.float32)
    exact, *_ = converted(lambda layers, given: layers.LSTM(4)(given), SERIES, (-4, 4), x)
    first, _, again = answers(exact, np.stack([x[0], x[1], x[0]]))
    assert np.array_equal(first, again)
    run = Run(exact)
    (made,) = flow_of(exact, "x").subgraph.outputs
    seen = []
    for row in (x[0], x[1], x[0]):
        run.feed(row)
        seen.append(run.value(made).copy())
    assert np.array_equal(seen[0], seen[2])


@pytest.mark.slow
def test_what_a_comparison_says_is_no_number_and_does_not_stop_the_work():
    """SELU is GREATER and SELECT in the file."""
    from tfedge.tflite.comparison import compare

    x = np.random.default_rng(0).uniform(0, 1, (16, 8, 8, 3)).astype(np.float32)
    exact, int8, layers = converted(
        lambda layers, given: layers.Flatten()(
            layers.Activation("selu", name="curve")(layers.Conv2D(4, 3, name="conv")(given))
        ),
        (8, 8, 3),
        (0, 1),
        x,
    )
    found = {layer.layer: layer for layer in compare(exact, int8, x[:4], layers).layers}
    assert {"conv", "curve", "out"} <= set(found)
    one_by_one = [
        {layer.layer: layer for layer in compare(exact, int8, x[i : i + 1], layers).layers}
        for i in range(4)
    ]
    # Over several inputs the convolution's loss is about the mean of that on each: none of them is
    # weighed with what another made GREATER say.
    alone = [find["conv"].own_db for find in one_by_one]
    assert min(alone) - 1 <= found["conv"].own_db <= max(alone) + 1


@pytest.mark.slow
@pytest.mark.parametrize(("calibrate", "said"), [(20, True), (100, False)])
def test_few_calibration_inputs_are_noted_where_there_is_an_lstm(calibrate, said):
    from tfedge.networks.backend import keras
    from tfedge.tflite.making import Conversion
    from tfedge.tflite.wishes import Wishes

    x = np.random.default_rng(0).normal(size=(400, *SERIES)).astype(np.float32)
    classes = np.arange(400) % 4
    split = Split(x[:200], classes[:200])
    data = Data(split, Split(x[200:], classes[200:]), split, tuple("abcd"), "array", (0.0,), (1.0,))
    given = keras.Input(SERIES)
    memory = keras.layers.LSTM(4, name="memory")(given)
    model = keras.Model(given, keras.layers.Dense(4)(memory))
    made = Conversion(model, data, "[int8]", Wishes(calibrate=calibrate, strict=False)).run()
    notes = [note for note in made.figures.get("notes", ()) if "LSTM layers (memory)" in note]
    assert bool(notes) == said
