"""Engines side by side, each in processes of its own."""

import json
import math
import sys

import numpy as np
import pytest
from real_runtimes import OLD
from small_engines import (
    BIAS,
    KERNEL,
    bare_python,
    crashing_python,
    dense_model,
    tiring_python,
)
from test_card import CARD
from test_host import UNKNOWN
from tiny_conv import conv_model

from tfedge.cli import main
from tfedge.engines import child, comparison, known, network, turns
from tfedge.errors import UserError
from tfedge.progress import Silent
from tfedge.report import engines as shown
from tfedge.tflite import card as cards

FIGURES = {"ms_p50", "ms_p50_low", "ms_p50_high", "rounds"}
RATIO = {"ratio", "ratio_low", "ratio_high"}


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Time what is timed for a moment only."""
    monkeypatch.setattr(comparison, "WARM_S", 0.0)
    monkeypatch.setattr(comparison, "BLOCK_S", 0.001)
    monkeypatch.setattr(turns, "PAUSE_S", 0.0)


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(comparison, "thread_counts", lambda: (1, 2))


@pytest.fixture
def one_thread(monkeypatch):
    monkeypatch.setattr(comparison, "thread_counts", lambda: (1,))


@pytest.fixture
def read(tmp_path):
    """Return a network of a .tflite's bytes."""

    def of(content):
        (tmp_path / "x.tflite").write_bytes(content)
        return network.read(tmp_path / "x.tflite", content)

    return of


def ran(of, names, pythons=None, rounds=6):
    engines = known.named(names)
    return comparison.compare(of, of.inputs(2), engines, pythons or {}, Silent(), rounds=rounds)


# --- times


def test_engines_take_turns_forth_and_back():
    heard = []
    calls = [lambda: heard.append("a") or [1.0], lambda: heard.append("b") or [2.0]]
    assert turns.interleaved(calls, 3) == [[1.0] * 3, [2.0] * 3]
    assert "".join(heard) == "ab" + "ba" + "ab"


def test_a_rounds_value_is_the_median_of_its_calls():
    assert turns.interleaved([lambda: [3.0, 1.0, 100.0]], 1) == [[3.0]]


def test_a_turns_first_call_is_not_timed_and_one_is_at_least():
    heard = []
    assert len(child.turn(lambda: heard.append(0), 0.0)) == 1
    assert len(heard) == 2


def test_a_turn_has_so_many_calls_at_most():
    assert len(child.turn(lambda: None, 60.0)) == child.MOST_CALLS


def test_the_ends_of_a_medians_interval_are_those_of_the_binomial_table():
    # For 30 values the 10th and the 21st, for 6 the outermost (Conover 1999, table A3).
    assert turns.median_of(range(1, 31)) == (15.5, 10, 21)
    assert turns.median_of([5, 1, 2, 4, 3, 6]) == (3.5, 1, 6)


def test_the_interval_holds_the_median_as_often_as_it_says_for_a_skewed_distribution():
    random, inside = np.random.default_rng(0), 0
    for _ in range(300):
        _, low, high = turns.median_of(random.exponential(size=21))
        inside += low <= math.log(2) <= high
    assert 0.94 <= inside / 300 <= 0.995


def test_a_ratio_is_taken_within_each_round():
    theirs = [1.0, 50.0, 1.0, 7.0, 1.0, 1.0]  # the machine did something else in two rounds
    assert turns.ratio_of([2 * value for value in theirs], theirs) == (2, 2, 2)


# --- inputs and answers


def test_random_inputs_fill_int8_and_are_the_same_again(read):
    of = read(conv_model())
    x = of.inputs(20)
    assert (x.shape, x.dtype) == ((20, 1, 4, 4, 3), np.int8)
    assert (x.min(), x.max()) == (-128, 127)
    assert np.array_equal(x, of.inputs(20))


def test_normalised_inputs_are_quantised_as_the_file_says(read):
    # Scale 1/255 and zero point -128: the byte of a pixel, less 128.
    x = np.float32([0, 1 / 255, 1, 2]).repeat(12).reshape(1, 4, 4, 3)
    assert np.unique(read(conv_model()).fed(x)).tolist() == [-128, -127, 127]
    assert read(conv_model()).fed(x).shape == (1, 1, 4, 4, 3)


def test_int8_answers_differ_in_steps(read):
    of = read(conv_model())  # scale 2, zero point 3
    reference = np.int8([[[10, 20, 30]], [[5, 4, 3]]])
    answers = np.int8([[[10, 24, 30]], [[3, 4, 3]]])
    assert network.difference(of, answers, reference) == {
        "largest_difference_steps": 4,
        "same_answers": 0.5,
    }
    in_float = np.float32(2) * (answers.astype(np.float32) - 3)
    assert network.difference(of, in_float, reference)["largest_difference_steps"] == 4


def test_the_difference_of_int8_answers_does_not_overflow(read):
    ends = np.int8([[[127, 0, 0]]]), np.int8([[[-128, 0, 0]]])
    assert network.difference(read(conv_model()), *ends)["largest_difference_steps"] == 255


def test_float_answers_differ_as_a_share_of_the_largest(read):
    found = network.difference(
        read(dense_model()), np.float32([[[1, 2, -8]]]), np.float32([[[1, 2.5, -10]]])
    )
    assert found == {"largest_difference": pytest.approx(0.2), "same_answers": 1.0}


# --- what there is to choose from


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onnxrutime", "--engines: unknown engine 'onnxrutime'\n  did you mean 'onnxruntime'?"),
        ("litert,,tvm", "--engines: unknown engine ''"),
        ("tvm, tvm", "--engines: tvm is there twice"),
    ],
)
def test_a_wrong_name_is_told(text, message):
    with pytest.raises(UserError) as error:
        known.named(text)
    assert str(error.value).startswith(message)


def test_all_is_every_engine_litert_first():
    names = [engine.name for engine in known.named("all")]
    assert names == ["litert", "tflite-runtime", "onnxruntime", "openvino", "tvm", "executorch"]
    assert set(names) == set(child.ENGINES)


@pytest.mark.parametrize("text", ["openvino", "vino=/bin/sh", "openvino=/no/such", "openvino=/tmp"])
def test_a_python_that_is_none_is_told(text):
    with pytest.raises(UserError, match="--python: "):
        known.pythons((text,))


def test_an_old_runtime_needs_an_old_python(monkeypatch):
    (old,) = known.named("tflite-runtime")
    assert old.install.startswith("pip install --target ")
    assert old.install.endswith('tflite-runtime tflite-runtime==2.14.0 "numpy<2"')
    monkeypatch.setattr(known.sys, "version_info", type("V", (), {"minor": 13}))
    assert old.install == (
        'python3.11 -m venv old && old/bin/pip install tflite-runtime==2.14.0 "numpy<2";'
        " then give --python tflite-runtime=old/bin/python"
    )


# --- engines


def test_litert_on_one_thread_and_on_two(read, two_threads):
    one, two = ran(read(conv_model()), "litert")
    assert [row["threads"] for row in (one, two)] == [1, 2]
    assert set(one) == {"engine", "threads", "version"} | FIGURES
    assert set(two) - set(one) == {"largest_difference_steps", "same_answers"}
    for row in (one, two):
        assert 0 < row["ms_p50_low"] <= row["ms_p50"] <= row["ms_p50_high"]
        assert row["rounds"] == 6


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="no wheel of tflite-runtime: PyPI, 2.14.0")
def test_tflite_runtime_lies_in_a_folder_of_its_own_and_answers_the_same(read, one_thread):
    assert known.ENGINES["tflite-runtime"].folder == OLD
    ours, old = ran(read(conv_model()), "litert,tflite-runtime")
    assert old["version"] == "2.14.0"
    assert (old["largest_difference_steps"], old["same_answers"]) == (0, 1)
    assert set(old) > RATIO
    assert set(ours).isdisjoint(RATIO)


@pytest.mark.slow
@pytest.mark.parametrize("content", [conv_model(), dense_model()], ids=["int8", "float"])
def test_onnxruntime_and_openvino_answer_as_litert(read, one_thread, content):
    rows = ran(read(content), "litert,onnxruntime,openvino")
    assert [row["engine"] for row in rows] == ["litert", "onnxruntime", "openvino"]
    for row in rows[1:]:
        assert set(row) > FIGURES | RATIO, row
        assert row.get("largest_difference_steps", 0) <= 1
        assert row.get("largest_difference", 0) < 1e-5


def test_litert_makes_of_known_weights_what_numpy_does(tmp_path):
    (tmp_path / "x.tflite").write_bytes(dense_model())
    engine = child.LiteRT(str(tmp_path / "x.tflite"), 1)
    x = np.float32([[1, 2, -1, 0.5]])
    assert engine.answer(x) == pytest.approx(x @ KERNEL.T + BIAS)


def test_one_that_is_not_installed_is_named_with_its_pip_line(read, one_thread, tmp_path):
    python = bare_python(tmp_path)
    pythons = dict.fromkeys(("openvino", "onnxruntime"), python)
    ours, openvino, onnx = ran(read(conv_model()), "litert,openvino,onnxruntime", pythons)
    assert openvino == {"engine": "openvino", "install": f"{python} -m pip install openvino"}
    assert onnx["install"].endswith("pip install onnxruntime tf2onnx")
    assert set(ours) > FIGURES


def test_without_its_folder_the_old_runtime_is_named_with_the_line_that_makes_it(
    read, one_thread, tmp_path, monkeypatch
):
    monkeypatch.setattr(known.sys, "prefix", str(tmp_path))
    (row,) = ran(read(conv_model()), "tflite-runtime")
    assert row["install"] == known.ENGINES["tflite-runtime"].install
    assert str(tmp_path / "tflite-runtime") in row["install"] or "python3.11" in row["install"]


def test_an_engines_own_message_stands_where_it_cannot_take_the_file(read, one_thread):
    (row,) = ran(read(UNKNOWN), "litert")
    assert set(row) == {"engine", "failed"}
    assert "mine" in row["failed"]


def test_one_that_crashes_leaves_the_others(read, one_thread, tmp_path):
    pythons = {"tvm": crashing_python(tmp_path), "openvino": crashing_python(tmp_path)}
    tvm, openvino, ours = ran(read(conv_model()), "tvm,openvino,litert", pythons)
    assert tvm["failed"] == openvino["failed"] == "it ended with SIGSEGV"
    assert set(ours) > FIGURES


def test_one_that_ends_in_its_turn_leaves_the_others(read, one_thread, tmp_path):
    pythons = {"openvino": tiring_python(tmp_path, turns=3)}
    gone, ours = ran(read(dense_model()), "openvino,litert", pythons)
    assert gone["failed"] == "out of memory"
    assert ours["rounds"] == 6
    assert set(ours).isdisjoint(RATIO)  # the first that ran


def test_one_that_answers_in_another_shape_is_not_timed(read, one_thread, tmp_path):
    pythons = {"openvino": tiring_python(tmp_path, turns=99, classes=5)}
    (row,) = ran(read(dense_model()), "openvino", pythons)
    assert row["failed"] == "answers (1, 5), the network (1, 3)"
    assert set(row).isdisjoint(FIGURES)


def test_executorch_is_handed_the_pte_beside_the_file(read, one_thread, tmp_path):
    # A program that echoes what it is to open, as an engine's message.
    echo = tmp_path / "echo"
    echo.write_text('#!/bin/sh\necho "{\\"failed\\": \\"$4\\"}"\n')
    echo.chmod(0o755)
    (bare,) = ran(read(dense_model()), "executorch", {"executorch": echo})
    assert bare["failed"].endswith("model.tflite")
    (tmp_path / "x.pte").write_bytes(b"")
    (beside,) = ran(read(dense_model()), "executorch", {"executorch": echo})
    assert beside["failed"] == str(tmp_path / "x.pte")


# --- the command


@pytest.fixture
def files(tmp_path):
    for name, content in {
        "bare": conv_model(),
        "card": cards.write(conv_model(), CARD),
        "float": dense_model(),
    }.items():
        (tmp_path / f"{name}.tflite").write_bytes(content)
    (tmp_path / "net.h5").write_bytes(b"")
    return tmp_path


def compared(folder, *arguments, names=("bare",)):
    models = [str(folder / f"{name}.tflite") for name in names]
    return main(["compare", *models, *arguments, "--rounds", "6"])


def test_the_command_prints_json_of_every_file(files, one_thread, capsys):
    assert (
        compared(files, "--engines", "litert", "--json", "--count", "3", names=("bare", "float"))
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert [model["input"] for model in found["models"]] == ["int8 [1, 4, 4, 3]", "float32 [1, 4]"]
    assert [model["inputs"] for model in found["models"]] == [3, 3]
    assert found["machine"]["processors"] >= 1


def test_it_is_a_failure_if_no_engine_ran(files, one_thread, tmp_path, capsys):
    python = bare_python(tmp_path)
    assert compared(files, "--engines", "openvino", "--python", f"openvino={python}") == 1
    assert "openvino  not installed: " in capsys.readouterr().out


def test_with_data_the_card_says_how_all_files_are_fed(files, one_thread, capsys):
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    np.savez(files / "data.npz", x_test=x, y_test=np.arange(6) % len(CARD.labels))
    data = ["--data", str(files / "data.npz"), "--engines", "litert"]
    assert compared(files, *data, names=("bare", "card")) == 0
    assert "6 inputs of test" in capsys.readouterr().out
    assert compared(files, *data) == 2
    assert "bare.tflite: has no card that says how it is fed" in capsys.readouterr().err
    assert compared(files, *data, names=("card", "float")) == 2
    assert "float.tflite: takes (4,), the data is (4, 4, 3)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bare.tflite", "--engines", "all", "--trust"], "--trust: has no meaning with --engines"),
        (["bare.tflite", "--engines", "litre"], "unknown engine 'litre'"),
        (["net.h5", "--engines", "litert"], "net.h5: engines are compared on a .tflite"),
        (["no.tflite", "--engines", "litert"], "no.tflite: No such file or directory"),
        (["bare.tflite"], "compare: takes FLOAT, INT8 and --data, got 1 files and no --data"),
        (["bare.tflite", "--rounds", "7"], "--rounds: has a meaning with --engines only"),
        (["bare.tflite", "--python", "a=b"], "--python: has a meaning with --engines only"),
    ],
)
def test_what_cannot_be_compared_is_told(files, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(files)
    assert main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err


FOUND = {
    "machine": {"processor": "Some CPU", "processors": 4, "load_before": 0.04},
    "models": [
        {
            "file": "a/x.tflite",
            "bytes": 1234,
            "input": "int8 [1, 4]",
            "output": "int8 [1, 3]",
            "inputs": 32,
            "engines": [
                {"engine": "litert", "threads": 1, "version": "2.3.0", "rounds": 30}
                | {"ms_p50": 0.5, "ms_p50_low": 0.4, "ms_p50_high": 12.5},
                {"engine": "openvino", "threads": 1, "version": "2026.1", "rounds": 30}
                | {"ms_p50": 2.0, "ms_p50_low": 1.5, "ms_p50_high": 2.5}
                | {"ratio": 4.0, "ratio_low": 3.75, "ratio_high": 4.25}
                | {"largest_difference_steps": 1.0, "same_answers": 0.96875},
                {"engine": "tvm", "install": "pip install apache-tvm tflite"},
                {"engine": "executorch", "failed": "RuntimeError: no a|b"},
            ],
        }
    ],
}


def test_the_table_shows_figures_pip_lines_and_messages():
    lines = shown.table(FOUND).splitlines()
    assert lines[0] == "x.tflite: 1,234 bytes, int8 [1, 4] -> int8 [1, 3], 32 inputs at random"
    rows = [" ".join(line.split()) for line in lines]
    assert "litert 2.3.0 1 0.5000 (0.4000 to 12.500) 1" in rows
    assert "openvino 2026.1 1 2.000 (1.500 to 2.500) 4.00 (3.75 to 4.25) 1 step 96.9 %" in rows
    assert "tvm not installed: pip install apache-tvm tflite" in rows
    assert "executorch RuntimeError: no a|b" in rows
    assert rows[-1] == "Some CPU, 4 processors; load before: 0.0"


def test_markdown_has_as_many_cells_in_every_row():
    rows = [line for line in shown.markdown(FOUND).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert {line.count("|") for line in rows} == {8}
