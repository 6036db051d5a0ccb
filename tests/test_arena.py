"""The planned arena, by hand and beside what the runtime lays out."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from test_memory import convolutions
from tiny_conv import G, Op, T, conv_model, model_of

from tfedge.boards import timed
from tfedge.tflite.arena import peak, planned
from tfedge.tflite.facts import facts


def graph(sizes, *steps, inputs=(0,)):
    """Return a graph of int8 tensors of these many bytes, the last of them its output."""
    tensors = tuple(T(f"t{i}", "int8", (1, size)) for i, size in enumerate(sizes))
    return G("main", tensors, steps, inputs, (len(sizes) - 1,))


def plan(*graphs):
    return peak(facts(model_of(*graphs), "it").subgraphs)


def relu(given, made):
    return Op("RELU", (given,), (made,))


def test_what_is_needed_at_once_is_what_the_arena_holds():
    # The input's 64 bytes are needed always, 192 and 128 at once, and 60, which takes 64, finds
    # the place of the 192 free ...
    sizes = (64, 192, 128, 60)
    steps = [relu(0, 1), relu(1, 2), relu(2, 3)]
    assert plan(graph(sizes, *steps)) == 64 + 192 + 128
    # ... but not if those are read once more at the end.
    steps[2] = Op("ADD", (2, 1), (3,))
    assert plan(graph(sizes, *steps)) == 64 + 192 + 128 + 64


def test_a_sum_takes_the_place_of_its_first_operand_and_a_maximum_its_own():
    def summed(by):
        return plan(graph([128] * 5, relu(0, 1), relu(0, 2), Op(by, (1, 2), (3,)), relu(3, 4)))

    assert summed("ADD") == 3 * 128
    assert summed("MAXIMUM") == 4 * 128


def test_an_operand_that_is_read_again_keeps_its_place():
    steps = [relu(0, 1), relu(0, 2), Op("ADD", (1, 2), (3,)), Op("MAXIMUM", (3, 1), (4,))]
    assert plan(graph([128] * 5, *steps)) == 4 * 128


def test_another_shape_of_the_same_numbers_takes_no_place_and_constants_none():
    # Of 48, 8, 8 and 3 bytes, each of which takes 64, the two of the reshape share a place.
    (subgraph,) = facts(conv_model(), "it").subgraphs
    assert planned(subgraph) == 3 * 64


def test_a_state_that_outlives_the_call_has_a_place_of_its_own():
    assert plan(graph([64, 64, 64], Op("ADD", (0, 1), (2,)))) == 3 * 64


def test_the_graph_that_needs_most_decides():
    small, large = graph([64, 64], relu(0, 1)), graph([64, 640], relu(0, 1))
    assert plan(small, large) == plan(large) == 704


def test_memory_that_two_tensors_share_counts_once():
    assert timed.covered([(0, 60), (64, 128), (64, 100), (1024, 1030)]) == 64 + 64 + 64


def random_graph(seed):
    """Return a graph of 12 operators on tensors of various lengths, float32 [1, length]."""
    random = np.random.default_rng(seed)
    tensors, steps = [T("t0", "float32", (1, 40))], []
    made = [0]

    def new(length):
        tensors.append(T(f"t{len(tensors)}", "float32", (1, int(length))))
        made.append(len(tensors) - 1)
        return made[-1]

    def constant(values):
        tensors.append(T(f"t{len(tensors)}", "int32", (len(values),), np.int32(values)))
        return len(tensors) - 1

    for _ in range(12):
        one, other = (int(random.choice(made[-4:])) for _ in range(2))
        length, second = tensors[one].shape[1], tensors[other].shape[1]
        kind = random.integers(4)
        if kind == 0:
            steps.append(relu(one, new(length)))
        elif kind == 1 and length == second:
            steps.append(Op("ADD", (one, other), (new(length),), 1, schema.AddOptionsT()))
        elif kind == 2 and length > 20:
            begin, size = constant([0, 3]), constant([1, length - 9])
            steps.append(Op("SLICE", (one, begin, size), (new(length - 9),), 1))
        elif length + second < 400:
            options = schema.ConcatenationOptionsT(axis=1)
            steps.append(Op("CONCATENATION", (one, other), (new(length + second),), 1, options))
    return G("main", tuple(tensors), tuple(steps), (0,), (made[-1],))


@pytest.mark.parametrize("seed", range(12))
def test_the_plan_is_what_the_runtime_lays_out(tmp_path, seed):
    file = tmp_path / "it.tflite"
    file.write_bytes(model_of(random_graph(seed)))
    (subgraph,) = facts(file.read_bytes(), "it").subgraphs
    assert planned(subgraph) == timed.arena(str(file)) > 0


def test_what_kernels_need_for_themselves_is_measured_and_not_planned(tmp_path):
    file = tmp_path / "it.tflite"
    file.write_bytes(model_of(convolutions(side=8, channels=4)))
    # The image, and what each of two convolutions makes of it.
    three = 192 + 256 + 256
    # The second writes the 9 pixels of 4 channels around each of 64 into a matrix.
    assert planned(facts(file.read_bytes(), "it").subgraphs[0]) == three
    assert timed.arena(str(file)) == three + 64 * 9 * 4
