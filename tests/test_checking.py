import json
import subprocess

import numpy as np
import pytest
from board_models import WRONG, cases, error
from conftest import REPO
from real_runtimes import environment_with, python_with
from tiny_conv import G, Op, T, conv_model, model_of
from tiny_model import card_for, tiny_model, with_card

from tfedge.boards.checking import as_json, check
from tfedge.boards.runtimes import RUNTIMES
from tfedge.boards.targets import TARGETS, target
from tfedge.cli import main
from tfedge.errors import UserError
from tfedge.tflite import staging
from tfedge.tflite.facts import facts

INT8 = ((1.0,), (0,))


def found(content, name, severity=None):
    findings = check(content, "it", target(name)).findings
    return [one for one in findings if severity in (None, one.severity)]


def dense(version=4, fed="int8", scales=(0.1,), bias="int32", name="FULLY_CONNECTED"):
    """Return a model of one dense layer of 4 inputs and 3 outputs, to be looked at only."""
    zeros = (0,) * len(scales)
    quantised = () if fed == "float32" else INT8
    return model_of(
        G(
            "main",
            (
                T("net/in", fed, (1, 4), None, *quantised),
                T("net/hidden/MatMul", "int8", (3, 4), np.ones((3, 4), np.int8), scales, zeros),
                T("net/hidden/bias", bias, (3,), np.ones(3, bias)),
                T("net/hidden/BiasAdd", fed, (1, 3), None, *quantised),
            ),
            (Op(name, (0, 1, 2), (3,), version),),
            (0,),
            (3,),
        )
    )


def one_step(operator, version=1, shape=(1, 4), dtype="int8"):
    ends = tuple(T(f"net/{name}/X", dtype, shape, None, *INT8) for name in ("in", "odd"))
    return model_of(G("main", ends, (Op(operator, (0,), (1,), version),), (0,), (1,)))


def test_a_version_that_a_runtime_lacks_is_named_with_operator_layer_and_remedy():
    (one,) = found(dense(12, "float32", (0.1, 0.2, 0.3), "float32"), "tflite-runtime 2.14", "fails")
    assert one.operators == ("FULLY_CONNECTED v12 of layer 'hidden'",)
    assert one.runtimes == ("tflite-runtime 2.14",)
    assert "it has this operator up to version 10" in one.happens
    assert "_experimental_disable_per_channel_quantization_for_dense_layers = True" in one.remedy
    assert "use ai-edge-litert 1.0 or later" in one.remedy
    assert found(dense(12, "float32", (0.1, 0.2, 0.3), "float32"), "ai-edge-litert 1.x") == []
    assert found(dense(9, "float32", (0.1,), "float32"), "tflite-runtime 2.5") == []


def test_an_operator_that_came_later_fails_before():
    (one,) = found(one_step("GELU"), "tflite-runtime 2.7", "fails")
    assert "it has no such operator" in one.happens
    assert "replace the layer" in one.remedy
    assert "tflite-runtime 2.8 or later" in one.remedy
    assert found(one_step("GELU"), "tflite-runtime 2.8", "fails") == []


def test_of_a_family_only_the_versions_at_fault_are_named():
    (one,) = found(one_step("GELU", 3), "ai-edge-litert-2.x", "fails")
    assert one.runtimes == ("ai-edge-litert 2.0", "ai-edge-litert 2.1")


def wrong_on(content):
    """Name the runtimes that a file is said to be wrong on."""
    return [name for name in RUNTIMES if found(content, name, "wrong")]


def test_a_dense_layer_of_many_scales_is_wrong_up_to_2_9():
    many = dense(scales=(0.1, 0.2, 0.3))
    assert wrong_on(many) == [f"tflite-runtime 2.{minor}" for minor in range(5, 10)]
    assert wrong_on(dense()) == []
    (one,) = found(many, "tflite-runtime 2.9", "wrong")
    assert "answers nonsense, and says nothing" in one.happens


def test_16_bits_and_a_wide_bias_are_wrong_on_2_8_alone():
    assert wrong_on(dense(7, "int16", bias="int64")) == ["tflite-runtime 2.8"]
    assert wrong_on(dense(7, "int16", bias="int32")) == []


def test_an_int8_lstm_is_wrong_before_2_12_and_keeps_its_state():
    content = one_step("UNIDIRECTIONAL_SEQUENCE_LSTM", shape=(1, 4, 4))
    assert wrong_on(content) == [f"tflite-runtime 2.{minor}" for minor in range(5, 12)]
    assert wrong_on(one_step("UNIDIRECTIONAL_SEQUENCE_LSTM", dtype="float32")) == []
    (note,) = found(content, "pi5", "note")
    assert "keeps its state" in note.happens
    assert "reset_all_variables()" in note.remedy


@pytest.mark.parametrize(
    ("operator", "name", "fails"),
    [
        ("FlexErf", "pi5", "FlexErf is TensorFlow's own"),
        ("mine", "pi5", "unresolved custom op: mine"),
        ("edgetpu-custom-op", "pi5", "unresolved custom op: edgetpu-custom-op"),
        ("edgetpu-custom-op", "coral", ""),
        ("TFLite_Detection_PostProcess", "tflite-runtime 2.5", ""),
    ],
)
def test_custom_operators_fail_but_for_those_that_runtimes_have(operator, name, fails):
    serious = found(one_step(operator), name, "fails")
    assert [fails in one.happens for one in serious] == ([True] if fails else [])


def test_a_batch_of_four_fails_for_the_board_feeds_one():
    (one,) = found(one_step("RELU", shape=(4, 4)), "pi4", "fails")
    assert "takes 4 inputs at once (net/in/X)" in one.happens


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("encode", "decode"), "has 2 signatures (encode, decode); infer.py runs the first"),
        (("exit_0", "exit_1"), "has 2 exits (exit_0, exit_1); infer.py leaves at the first that"),
    ],
)
def test_a_second_signature_is_a_note(names, says):
    step = (Op("RELU", (0,), (1,)),)
    ends = tuple(T(name, "int8", (1, 4), None, *INT8) for name in "ab")
    (one,) = found(model_of(*(G(name, ends, step, (0,), (1,)) for name in names)), "pi5")
    assert (one.severity, says in one.happens) == ("note", True)


def test_stages_are_no_graphs_for_an_edge_tpu_and_a_file_each_is():
    content = staging.cascade(conv_model(), conv_model())
    (one,) = found(content, "coral", "fails")
    assert "it holds 3 graphs (exit_0, exit_1) and the compiler takes one; a convert" in one.happens
    assert 'target = "coral" writes a file a stage' in one.happens
    assert not found(staging.stage(content, 0), "coral", "fails")


def test_int8_without_xnnpack_and_16_bits_anywhere_are_slow():
    slow = [name for name in RUNTIMES if found(tiny_model(), name, "slow")]
    assert slow == [n for n in RUNTIMES if n.startswith("tflite") and not n.endswith(".12")]
    (one,) = found(one_step("RELU", dtype="int16"), "pi5", "slow")
    assert "16 bits without XNNPACK" in one.happens


def test_float_inside_an_int8_file_is_a_note():
    tensors = (
        T("image", "int8", (1, 4), None, *INT8),
        T("net/swish/Sigmoid", "float32", (1, 4)),
        T("net/out/MatMul", "int8", (1, 4), None, *INT8),
    )
    steps = (Op("DEQUANTIZE", (0,), (1,), 2), Op("QUANTIZE", (1,), (2,)))
    (one,) = found(model_of(G("main", tensors, steps, (0,), (2,))), "pi5")
    assert (one.severity, "net/swish/Sigmoid" in one.happens) == ("note", True)


def test_32_bits_say_which_wheel_there_is():
    (note,) = found(tiny_model(), "pi4-32bit", "note")
    assert "numpy has to be below 2" in note.happens
    assert "tflite-runtime==2.14.0" in note.remedy


def test_a_file_that_is_larger_than_the_board_fails_there_and_nowhere_else():
    side = 2 << 10
    ends = tuple(T(name, "float32", (1, side, side, 16)) for name in "ab")  # 256 MiB each
    content = model_of(G("main", ends, (Op("RELU", (0,), (1,)),), (0,), (1,)))
    (one,) = found(content, "zero2", "fails")
    assert "needs about 560 MiB, and a process can have 256" in one.happens
    assert found(content, "pi4", "fails") == []


def test_the_card_counts_as_file_and_changes_nothing_else():
    bare = tiny_model()
    packed = with_card(bare, card_for(bare))
    ours, theirs = (check(content, "it", target("pi5")) for content in (bare, packed))
    assert ours.findings == theirs.findings
    assert theirs.file_bytes == len(packed)
    assert theirs.process_bytes - ours.process_bytes == 2 * (len(packed) - len(bare))


def test_the_edge_tpus_predictions_are_findings():
    (one,) = found(one_step("HARD_SWISH"), "coral", "fails")
    assert "nothing of it runs on the Edge TPU" in one.happens
    (slow,) = found(one_step("HARD_SWISH"), "coral", "slow")
    assert "Operation not supported" in slow.happens
    (refused,) = found(dense(12, "float32", (0.1,), "float32"), "coral", "fails")[:1]
    assert "FULLY_CONNECTED" in str(refused)


@pytest.mark.parametrize("name", TARGETS)
def test_a_small_int8_model_does_for_every_target(name):
    verdict = check(tiny_model(), "it", target(name))
    assert verdict.ok
    assert json.loads(json.dumps(as_json(verdict)))["target"]["name"] == name


def test_a_damaged_file_is_a_mistake_of_the_users():
    with pytest.raises(UserError, match=r"it: not a \.tflite file"):
        check(b"nothing of the kind", "it", target("pi5"))


def test_the_command_prints_the_verdict_and_exits_with_1_if_it_is_bad(tmp_path, capsys):
    file = tmp_path / "many.tflite"
    file.write_bytes(dense(scales=(0.1, 0.2, 0.3)))
    assert main(["check", str(file), "--target", "pi5"]) == 0
    assert "it runs there and answers right, as far as is known" in capsys.readouterr().out
    assert main(["check", str(file), "--target", "tflite-runtime 2.9"]) == 1
    said = capsys.readouterr().out
    assert "WRONG ANSWERS on tflite-runtime 2.9: answers nonsense" in said
    assert "at FULLY_CONNECTED v4 of layer 'hidden'" in said
    assert main(["check", str(file), "--target", "tflite-runtime 2.9", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is False
    assert printed["findings"][0]["severity"] == "wrong"
    assert printed["findings"][0]["runtimes"] == ["tflite-runtime 2.9"]
    two = ["--target", "pi5", "--target", "tflite-runtime 2.9", "--json"]
    assert main(["check", str(file), *two]) == 1
    assert [one["ok"] for one in json.loads(capsys.readouterr().out)] == [True, False]
    assert main(["check", str(tmp_path / "none.tflite"), "--target", "pi5"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("package", ["tflite-runtime", "ai-edge-litert"])
def test_the_verdict_is_what_the_runtime_here_does(tmp_path, real_cases, package):
    name = "tflite-runtime-2.14" if package == "tflite-runtime" else "ai-edge-litert-2.x"
    told, happened = {}, {}
    for number, (what, (case, right)) in enumerate(real_cases.items()):
        file = tmp_path / f"{number}.tflite"
        file.write_bytes(case.content)
        np.save(f"{file}.npy", case.inputs)
        command = [*python_with(package), str(REPO / "benchmarks/runtime_verdicts.py"), "--run"]
        done = subprocess.run(
            [*command, str(file)],
            env=environment_with(package),
            capture_output=True,
            text=True,
            check=False,
        )
        told[what] = check(case.content, what, target(name)).ok
        happened[what] = done.returncode == 0 and (
            error(json.loads(done.stdout.splitlines()[-1])["answers"], right) < WRONG
        )
    assert told == happened
    assert list(told.values()).count(False) == (1 if package == "tflite-runtime" else 0)


@pytest.fixture(scope="module")
def real_cases():
    """Files of every form, and what this machine's TFLite kernels without XNNPACK answer."""
    from tfedge.tflite.running import Run

    known = {}
    for name, case in cases().items():
        runs = []
        for one in case.inputs:
            run = Run(case.content)
            run.feed(one)
            (made,) = facts(case.content, name).subgraphs[0].outputs
            runs.append(run.value(made)[0])
        known[name] = (case, np.stack(runs))
    return known


def test_without_a_target_it_says_how_to_find_one(tmp_path, capsys):
    assert main(["check", str(tmp_path / "m.tflite")]) == 2
    assert "--target: is missing\n  name a board" in capsys.readouterr().err


def test_a_file_that_lost_its_card_or_was_changed_is_told_before_it_is_copied(tmp_path, capsys):
    flatbuffer = tiny_model()
    file = tmp_path / "m.tflite"
    file.write_bytes(flatbuffer)
    assert main(["check", str(file), "--target", "pi5"]) == 0
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said[0].endswith(", but infer.py refuses it: it has no card")
    assert said[1] == f"  do: tfedge attach {file} --from ORIGINAL.tflite"
    assert main(["check", str(file), "--target", "pi5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"] is False
    whole = bytearray(with_card(flatbuffer, card_for(flatbuffer)))
    file.write_bytes(whole)
    assert main(["check", str(file), "--target", "pi5"]) == 0
    assert "no card" not in capsys.readouterr().out
    whole[flatbuffer.index(b"flat")] ^= 1
    file.write_bytes(whole)
    assert main(["check", str(file), "--target", "pi5"]) == 2
    assert "is not the one its card was made for" in capsys.readouterr().err


@pytest.mark.slow
def test_a_coral_is_not_blamed_for_an_lstm_that_its_edge_tpu_computes(real_cases):
    case, _ = real_cases["lstm int8"]
    assert wrong_on(case.content)  # of the same runtimes alone
    verdict = check(case.content, "it", target("coral"))
    assert verdict.mapping.whole
    assert verdict.ok
