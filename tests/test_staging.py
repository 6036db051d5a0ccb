import subprocess

import numpy as np
import pytest
from real_runtimes import RUNTIMES, environment_with, python_with
from tiny_conv import G, Op, T, conv_model, model_of

from tfedge.errors import UserError
from tfedge.tflite import leaving, staging
from tfedge.tflite.facts import facts
from tfedge.tflite.running import packed, unpacked

SHAPE = (8, 8, 2)


def pictures(count=40, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (count, *SHAPE)).astype(np.float32)


def converted(name):
    """Return the int8 file of a network with exits, before it is cut."""
    from tfedge.networks.backend import keras
    from tfedge.tflite.conversion import to_int8

    keras.utils.set_random_seed(1)
    k = keras.layers

    def conv(x, steps=1):
        return k.Conv2D(6, 3, strides=steps, padding="same", activation="relu")(x)

    def head(x, exit):
        return k.Dense(5, name=f"{exit}_dense")(k.GlobalAveragePooling2D()(x))

    x = given = keras.Input(SHAPE)
    first = conv(x)
    answers = [head(first, "exit_0")]
    second = k.Add()([first, conv(first)])
    if name == "three exits":
        answers.append(head(second, "exit_1"))
        answers.append(head(conv(second, 2), "last"))
    elif name == "two exits":
        answers.append(head(conv(second, 2), "last"))
    else:  # the last stage reads what the first made, and the picture itself
        answers.append(head(second, "exit_1"))
        answers.append(head(k.Concatenate()([conv(second), first, given]), "last"))
    return to_int8(keras.Model(given, answers), pictures(), (0.0, 1.0))


@pytest.fixture(scope="module", params=["two exits", "three exits", "across a stage"])
def cut(request):
    """The file before it is cut, and after."""
    whole = converted(request.param)
    return whole, staging.staged(whole)


_RUN = """
import sys, numpy as np
import infer
given, made = np.load(sys.argv[1]), {}
_, Interpreter = infer.load_runtime()
content = given["content"].tobytes()
count = int(given["exits"])

def tensors(interpreter):
    rows = []
    for x in given["inputs"]:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[None])
        interpreter.invoke()
        ends = interpreter.get_output_details()
        rows.append([interpreter.get_tensor(end["index"])[0] for end in ends])
    return [np.stack(row) for row in zip(*rows)]

for name in ("before", "content"):
    interpreter = Interpreter(model_content=given[name].tobytes())
    interpreter.allocate_tensors()
    made[name] = tensors(interpreter)
interpreter = Interpreter(model_content=content)
runners = [interpreter.get_signature_runner("exit_%d" % k) for k in range(count)]
rows = []
for x in given["inputs"]:
    held, row = {}, []
    for runner in runners:
        wanted = interpreter.get_signature_list()["exit_%d" % len(row)]["inputs"]
        held = runner(**{n: x[None] if n == "inputs" else held[n] for n in wanted})
        row.append(held["logits"][0])
    rows.append(row)
made["stages"] = [np.stack(row) for row in zip(*rows)]
np.savez(sys.argv[2], **{name + str(k): a for name, s in made.items() for k, a in enumerate(s)})
"""


def run(package, tmp_path, before, content, inputs):
    """Run a file's first graph and its stages with one runtime; {name: int8 arrays}."""
    from tfedge import paths

    given, made = tmp_path / "given.npz", tmp_path / "made.npz"
    count = len(staging.stages(content))
    blobs = {
        name: np.frombuffer(b, np.uint8) for name, b in (("before", before), ("content", content))
    }
    np.savez(given, inputs=inputs, exits=count, **blobs)
    done = subprocess.run(
        [*python_with(package), "-c", _RUN, str(given), str(made)],
        env=environment_with(package),
        cwd=paths.bundled() / "device",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(made))


@pytest.mark.slow
@pytest.mark.parametrize("package", RUNTIMES)
def test_each_stage_answers_bit_for_bit_as_the_network_before_it_was_cut(cut, package, tmp_path):
    before, content = cut
    inputs = np.random.default_rng(2).integers(-128, 128, (25, *SHAPE)).astype(np.int8)
    found = run(package, tmp_path, before, content, inputs)
    count = len(staging.stages(content))
    for number in range(count):
        assert np.array_equal(found[f"stages{number}"], found[f"before{number}"])
        assert len({tuple(row) for row in found[f"stages{number}"].tolist()}) > 5
    assert np.array_equal(found["content0"], found[f"before{count - 1}"])


@pytest.mark.slow
def test_the_first_graph_is_the_network_without_the_other_heads(cut):
    before, content = cut
    found = facts(content, "x")
    names = [tensor.name for tensor in found.subgraphs[0].tensors]
    assert not [name for name in names if "exit_" in name]
    assert (len(found.inputs), len(found.outputs)) == (1, 1)
    assert [t.name for t in found.outputs] == [facts(before, "x").outputs[-1].name]


@pytest.mark.slow
def test_weights_are_stored_once(cut):
    before, content = cut
    assert facts(content, "x").sizes.weights == facts(before, "x").sizes.weights
    assert facts(content, "x").parameters == facts(before, "x").parameters


@pytest.mark.slow
def test_operators_are_in_one_stage_each(cut):
    before, content = cut
    found = facts(content, "x")
    stages = [found.subgraphs[stage.subgraph] for stage in staging.stages(content)]
    (whole,) = facts(before, "x").subgraphs
    together = [op.name for graph in stages for op in graph.operators]
    assert sorted(together) == sorted(op.name for op in whole.operators)


@pytest.mark.slow
def test_stages_in_files_of_their_own_answer_as_in_one_file(cut):
    from ai_edge_litert.interpreter import Interpreter

    _, content = cut
    stages = staging.stages(content)
    files = [staging.stage(content, number) for number in range(len(stages))]
    assert max(len(file) for file in files) < len(content)
    x = pictures(8, seed=3)
    expected = leaving.stage_outputs(content, x).logits
    for number, one in enumerate(x):
        (given,) = facts(content, "x").inputs
        steps = np.round(one[None] / np.float32(given.scales[0])) + given.zero_points[0]
        held = {"inputs": np.clip(steps, -128, 127).astype(np.int8)}
        for stage, file, logits in zip(stages, files, expected, strict=True):
            interpreter = Interpreter(model_content=file)
            interpreter.allocate_tensors()
            ends = interpreter.get_input_details()
            for name, end in zip(stage.inputs, ends, strict=True):
                interpreter.set_tensor(end["index"], held[name])
            interpreter.invoke()
            made = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
            assert np.array_equal(made[0][0], logits[number])
            held |= dict(zip(stage.features, made[1:], strict=True))


@pytest.mark.slow
def test_what_only_the_last_stage_reads_goes_through_the_one_between():
    first, between, last = staging.stages(staging.staged(converted("across a stage")))
    assert (first.inputs, first.features) == (("inputs",), ("features_0",))
    assert between.inputs == ("features_0",)
    assert len(between.features) == 2
    assert last.inputs == ("inputs", *between.features)


@pytest.mark.slow
def test_stages_that_answer_otherwise_than_the_whole_are_found():
    from tfedge.errors import CheckError

    content = staging.staged(converted("two exits"))
    leaving.check_stages(content, pictures(5), "x")
    model = unpacked(content)
    graph = model.subgraphs[2]  # the last stage
    kernel = next(t for t in graph.tensors if b"last_dense/MatMul" in t.name)
    buffer = model.buffers[kernel.buffer]
    model.buffers.append(type(buffer)(data=np.bitwise_xor(buffer.data, 64)))
    kernel.buffer = len(model.buffers) - 1
    with pytest.raises(CheckError, match="the stages answer otherwise than the whole network"):
        leaving.check_stages(packed(model), pictures(5), "x")


def test_a_network_of_one_answer_has_no_exits():
    with pytest.raises(UserError, match="has 1 inputs and 1 outputs"):
        staging.staged(conv_model())
    with pytest.raises(UserError, match="has no exits"):
        staging.stages(conv_model())


def test_exits_of_unlike_shape_are_refused():
    tensors = (T("x", "int8", (1, 4)), T("a", "int8", (1, 3)), T("b", "int8", (1, 4)))
    graph = G("main", tensors, (Op("RELU", (0,), (2,)),), (0,), (1, 2))
    with pytest.raises(UserError, match=r"its exits answer \[1, 3\] and \[1, 4\]"):
        staging.staged(model_of(graph))


def test_float_features_are_refused():
    ends = ((0.5,), (0,))
    tensors = (
        T("x", "int8", (1, 4), None, *ends),
        T("a", "int8", (1, 4), None, *ends),
        T("f", "float32", (1, 4)),
        T("b", "int8", (1, 4), None, *ends),
    )
    steps = (
        Op("DEQUANTIZE", (0,), (2,)),
        Op("QUANTIZE", (2,), (1,)),
        Op("QUANTIZE", (2,), (3,)),
    )
    with pytest.raises(UserError, match="exit_0 has features_0 in float32"):
        staging.staged(model_of(G("main", tensors, steps, (0,), (1, 3))))


def with_scale(content, scale):
    model = unpacked(content)
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].quantization.scale = [scale]
    return packed(model)


def other_model():
    """Return `conv_model` with another dense layer."""
    model = unpacked(conv_model())
    (kernel,) = [t for t in model.subgraphs[0].tensors if t.name == b"dense/kernel"]
    model.buffers[kernel.buffer].data = np.roll(model.buffers[kernel.buffer].data, 5)
    return packed(model)


@pytest.mark.parametrize("package", RUNTIMES)
def test_a_cascade_answers_as_its_two_networks_do(package, tmp_path):
    small, large = other_model(), conv_model()
    content = staging.cascade(small, large)
    assert [s.inputs for s in staging.stages(content)] == [("inputs",), ("inputs",)]
    inputs = np.random.default_rng(2).integers(-128, 128, (50, 4, 4, 3)).astype(np.int8)
    found = run(package, tmp_path, small, content, inputs)
    assert np.array_equal(found["stages0"], found["before0"])
    assert np.array_equal(found["stages1"], found["content0"])
    assert not np.array_equal(found["stages0"], found["stages1"])
    assert np.array_equal(
        found["content0"], run(package, tmp_path, large, content, inputs)["before0"]
    )


def test_a_cascade_of_one_network_twice_cannot_be_told_from_it():
    inputs = np.random.default_rng(0).uniform(0, 1, (10, 4, 4, 3)).astype(np.float32)
    small, large = leaving.stage_outputs(staging.cascade(conv_model(), conv_model()), inputs).logits
    assert np.array_equal(small, large)


def test_a_state_that_no_runtime_could_reset_is_refused():
    ends = ((0.5,), (0,))
    tensors = tuple(T(name, "int8", (1, 4), None, *ends) for name in "ab")
    memory = model_of(
        G("main", tensors, (Op("UNIDIRECTIONAL_SEQUENCE_LSTM", (0,), (1,)),), (0,), (1,))
    )
    with pytest.raises(UserError, match="keeps a state from one input to the next"):
        staging.cascade(memory, memory)


def test_a_cascade_of_a_cascade_is_refused():
    twice = staging.cascade(conv_model(), conv_model())
    with pytest.raises(UserError, match="the small network has exits of its own"):
        staging.cascade(twice, conv_model())


def test_a_cascade_of_unlike_inputs_is_refused():
    with pytest.raises(UserError, match="they take unlike inputs"):
        staging.cascade(with_scale(conv_model(), 0.5), conv_model())


def test_a_stage_of_a_cascade_holds_its_own_weights_alone():
    content = staging.cascade(other_model(), conv_model())
    weights = facts(conv_model(), "x").sizes.weights
    for number in (0, 1):
        assert facts(staging.stage(content, number), "x").sizes.weights == weights
    assert facts(content, "x").sizes.weights == 2 * weights
