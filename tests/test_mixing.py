from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from test_comparison import both, depthwise_net, random_inputs

from tfedge.errors import UserError
from tfedge.tflite import names
from tfedge.tflite.comparison import compare, decibels
from tfedge.tflite.facts import facts
from tfedge.tflite.gates import check
from tfedge.tflite.mixing import Twins, fewest, mixed
from tfedge.tflite.running import answers

pytestmark = pytest.mark.slow


def residual_net():
    from tfedge.networks.backend import keras

    layers = keras.layers
    keras.backend.clear_session()
    keras.utils.set_random_seed(5)
    x = images = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.Add(name="add")([x, y])
    z = layers.BatchNormalization(name="lonely")(x)
    x = layers.Concatenate(name="cat")([x, z])
    x = layers.SeparableConv2D(8, 3, strides=2, name="separable")(x)
    x = layers.LeakyReLU(name="leaky")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(images, layers.Dense(4, name="logits")(x), name="net")


def twins_of(model, finer, inputs):
    from tfedge.tflite.conversion import convert

    exact, coarse = both(model, inputs)
    other = exact if finer == "float32" else convert(model, finer, inputs, (0.0, 1.0))
    return Twins(coarse, other, names.of_network(model))


@pytest.fixture(scope="module")
def inputs():
    return random_inputs((8, 8, 3))


@pytest.fixture(scope="module", params=["float32", "int16x8"])
def twins(request, inputs):
    return twins_of(residual_net(), request.param, inputs)


def signal_to_noise(exact, other):
    return decibels((exact**2).sum(), ((exact - other) ** 2).sum())


def test_with_no_layer_kept_out_the_answers_stay(twins, inputs):
    same = mixed(twins, ())
    assert np.array_equal(answers(same, inputs), answers(twins.int8, inputs))


def test_every_single_layer_can_be_kept_out(twins, inputs):
    finer = "float" if "float32" in {t.dtype for t in facts(twins.finer, "x").inputs} else "int16"
    before = facts(twins.int8, "x")
    for layer in dict.fromkeys(twins.owners.values()):
        content = mixed(twins, [layer])
        found = facts(content, "x")
        assert found.inputs[0].dtype == found.outputs[0].dtype == "int8"
        assert found.inputs[0].scales == before.inputs[0].scales
        assert any(finer in tensor.dtype for tensor in found.subgraphs[0].tensors), layer
        near = signal_to_noise(answers(twins.int8, inputs), answers(content, inputs))
        assert near > 20.0, layer
        check(content, "int8", (0.0, 1.0), "x", twins.layers, kept=[layer])


def test_what_is_outside_from_the_start_stays_there_whatever_is_tried(twins, inputs):
    outside = replace(twins, outside=("inner",))
    wanted = answers(mixed(twins, ["inner", "logits"]), inputs)
    assert np.array_equal(answers(mixed(outside, ["logits"]), inputs), wanted)
    tried = []

    def measure(content):
        tried.append(answers(content, inputs))
        return float(np.array_equal(tried[-1], wanted))

    found = fewest(outside, ["inner", "logits"], measure, 1.0, tried=1)
    assert np.array_equal(tried[0], answers(mixed(twins, ["inner"]), inputs))
    assert (found.layers, found.accuracy) == (("logits",), 1.0)
    assert found.flatbuffer == mixed(outside, ["logits"])


def test_with_all_layers_kept_out_only_the_ends_are_rounded(inputs):
    twins = twins_of(residual_net(), "float32", inputs)
    content = mixed(twins, set(twins.owners.values()))
    (given,), (made,) = facts(content, "x").inputs, facts(content, "x").outputs
    fed = np.clip(np.round(inputs / given.scales[0]) + given.zero_points[0], -128, 127)
    exact = answers(twins.finer, np.float32((fed - given.zero_points[0]) * given.scales[0]))
    steps = np.clip(np.round(exact / made.scales[0]) + made.zero_points[0], -128, 127)
    expected = (steps - made.zero_points[0]) * made.scales[0]
    off = np.abs(answers(content, inputs) - expected)
    assert off.max() <= made.scales[0] * 1.01  # kernels add in another order
    assert np.mean(off < 1e-5) > 0.95


def counted(content):
    """Count a file's operators by name, those that only change the type together."""
    found = Counter()
    for (name, _), count in facts(content, "x").operators.items():
        found["seam" if name in names.SEAMS else name] += count
    return found


def test_values_cross_between_types_only_where_they_must(twins):
    operators, before = counted(mixed(twins, ["stem", "inner", "add"])), counted(twins.int8)
    before["seam"] += 2  # the input on its way in, the sum on its way out
    assert operators == before


def test_signature_and_metadata_stay_valid(twins, inputs):
    from ai_edge_litert.interpreter import Interpreter

    content = mixed(twins, twins.with_readers("inner"))
    run = Interpreter(model_content=content)
    runner = run.get_signature_runner()
    (given,) = runner.get_input_details().values()
    raw = np.clip(np.round(inputs[:1] / given["quantization"][0]) + given["quantization"][1],
                  -128, 127).astype(np.int8)  # fmt: skip
    (made,) = runner(**{next(iter(runner.get_input_details())): raw}).values()
    scale, zero = run.get_output_details()[0]["quantization"]
    assert np.allclose((made.astype(float) - zero) * scale, answers(content, inputs[:1]))
    found = facts(content, "x")
    assert [s.name for s in found.signatures] == [s.name for s in facts(twins.int8, "x").signatures]
    assert found.sizes.metadata > 0


def test_the_same_layers_make_the_same_bytes(twins):
    assert mixed(twins, ["add", "stem"]) == mixed(twins, ["stem", "add"])


def test_a_layer_goes_with_those_that_read_it_up_to_where_channels_mix(inputs):
    twins = twins_of(depthwise_net(), "float32", inputs)
    assert twins.with_readers("depthwise") == ("depthwise", "pointwise")
    assert twins.with_readers("pointwise") == ("pointwise", "pool", "mean", "logits")
    assert twins.with_readers("logits") == ("logits",)


@pytest.fixture(scope="module")
def hard(inputs):
    factors = np.where(np.arange(16) % 2, 1000.0, 1.0)
    return twins_of(depthwise_net(factors), "float32", inputs)


def test_as_few_layers_as_needed_are_taken_out(hard, inputs):
    exact = answers(hard.finer, inputs)
    seen = []

    def measure(content):
        seen.append(content)
        return float(1 - 10 ** (-signal_to_noise(exact, answers(content, inputs)) / 10))

    ranked = [layer.layer for layer in compare(hard.finer, hard.int8, inputs[:8]).layers]
    found = fewest(hard, ranked, measure, 0.99)
    assert measure(hard.int8) < 0.9
    assert found.accuracy >= 0.99
    assert set(found.layers) == {"depthwise", "pointwise"}
    assert found.extra_bytes == len(found.flatbuffer) - len(hard.int8)
    assert found.accuracy == pytest.approx(measure(found.flatbuffer))
    assert found.measured == len(seen) - 2 <= 1 + 6 * 5


def test_nothing_is_taken_out_where_all_is_well(hard):
    found = fewest(hard, ["depthwise"], lambda _: 0.9, 0.9)
    assert (found.layers, found.extra_bytes, found.measured) == ((), 0, 1)
    assert found.flatbuffer == hard.int8


def test_the_search_ends_where_nothing_helps(hard):
    names_ = list(dict.fromkeys(hard.owners.values()))
    found = fewest(hard, ["input_1", *names_], lambda _: 0.5, 0.9, tried=2, rounds=2)
    assert found.accuracy == 0.5
    assert found.measured <= 1 + 2 * 2
    assert found.layers
    assert fewest(hard, [], lambda _: 0.5, 0.9).layers == ()


def test_files_with_other_operators_and_layers_of_no_operator_are_refused(hard, inputs):
    other = twins_of(residual_net(), "float32", inputs)
    with pytest.raises(UserError, match=r"made other operators: operator 1 is DEPTHWISE_CONV_2D"):
        mixed(Twins(hard.int8, other.finer, hard.layers), ["stem"])
    with pytest.raises(UserError, match="no operator of the file is layer 'sten'"):
        mixed(hard, ["sten"])
