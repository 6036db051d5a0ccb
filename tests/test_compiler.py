from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from stand_in_compiler import ENDED, TIMER, VERSION, install, success, table
from tiny_conv import G, Op, T, conv_model, model_of

from tfedge.boards import compiler, edgetpu
from tfedge.boards.edgetpu_rules import LATER, LIMITATION, MAPPED
from tfedge.cli import main
from tfedge.errors import CheckError, UserError
from tfedge.tflite import card
from tfedge.tflite.facts import facts

PIXELS, LOGITS = ((1 / 255,), (-128,)), ((2.0,), (3,))
WHOLE = table(("CONV_2D", 1, MAPPED), ("RESHAPE", 1, MAPPED), ("FULLY_CONNECTED", 1, MAPPED))
A_CARD = card.Card(
    labels=("cat", "dog", "eel"),
    input=card.Input("image", (4, 4, 3), (0.0,) * 3, (255.0,) * 3, "bilinear", "stretch"),
    made_by=card.Maker("0.1.0", "tiny", "int8", "0" * 64),
)


def compiled_model(classes=3):
    """What the compiler leaves: one custom operator between the same ends, and no signature."""
    tensors = (
        T("image", "int8", (1, 4, 4, 3), None, *PIXELS),
        T("logits", "int8", (1, classes), None, *LOGITS),
    )
    return model_of(
        G("", tensors, (Op("edgetpu-custom-op", (0,), (1,)),), (0,), (1,), signature=False)
    )


@pytest.fixture
def put_on_path(tmp_path, monkeypatch):
    def put(*told, **more):
        folder = install(tmp_path / "bin", *told, **more)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        return folder

    return put


@pytest.fixture
def model(tmp_path):
    """A file with a card, as `convert` makes it."""
    file = tmp_path / "model.tflite"
    file.write_bytes(card.write(conv_model(), A_CARD))
    return file


def test_what_the_compiler_says_is_read(put_on_path):
    log = success(3, cached="1.92MiB", streamed="0.00B")
    put_on_path(log, WHOLE, output=compiled_model())
    made = compiler.compiled(conv_model(), "m.tflite")
    assert made.version == "16.0.384591198"
    assert [(row.name, row.count, row.status) for row in made.rows] == [
        ("CONV_2D", 1, MAPPED),
        ("RESHAPE", 1, MAPPED),
        ("FULLY_CONNECTED", 1, MAPPED),
    ]
    assert (made.mapped, made.total) == (3, 3)
    assert made.on_chip_bytes == round(1.92 * 1024 * 1024)
    assert made.streamed_bytes == 0
    assert made.disagreements == ()
    assert made.flatbuffer == compiled_model()
    assert compiler.notes(made) == (
        "edgetpu_compiler 16.0.384591198 mapped 3 of 3 operators, "
        "keeps 1.92 MiB of parameters on the Edge TPU",
    )


@pytest.mark.parametrize(
    ("written", "size"),
    [("0.00B", 0), ("604.50KiB", 604.5 * 1024), ("6.86MiB", 6.86 * 1024**2), ("?", None)],
)
def test_sizes_are_read_in_every_unit(put_on_path, written, size):
    put_on_path(success(3, cached=written), WHOLE, output=compiled_model())
    got = compiler.compiled(conv_model(), "m").on_chip_bytes
    assert got == (None if size is None else round(size))


def test_the_table_is_taken_from_the_log_file_where_it_is_not_printed(put_on_path):
    put_on_path(success(3).replace("TABLE\n", ""), WHOLE, output=compiled_model())
    assert compiler.compiled(conv_model(), "m").mapped == 3


def test_the_compiler_gets_the_model_without_the_card(put_on_path, model):
    folder = put_on_path(success(3), WHOLE, output=compiled_model())
    compiler.compile_beside(model)
    assert (folder / "seen.tflite").read_bytes() == card.strip(model.read_bytes())


def test_every_disagreement_with_the_prediction_is_told(put_on_path):
    rows = table(("CONV_2D", 1, LIMITATION), ("RESHAPE", 1, LATER), ("FULLY_CONNECTED", 1, LATER))
    put_on_path(success(0, 3, streamed="3.45MiB"), rows, output=compiled_model())
    made = compiler.compiled(conv_model(), "m")
    assert (made.mapped, made.total) == (0, 3)
    assert made.disagreements == (
        f"CONV_2D: predicted 1 x '{MAPPED}', the compiler says 1 x '{LIMITATION}'",
        f"RESHAPE: predicted 1 x '{MAPPED}', the compiler says 1 x '{LATER}'",
        f"FULLY_CONNECTED: predicted 1 x '{MAPPED}', the compiler says 1 x '{LATER}'",
        "parameters: predicted cached on the Edge TPU, the compiler streams 3.45 MiB every "
        "inference",
    )
    assert compiler.notes(made)[1:] == made.disagreements
    assert "streams 3.45 MiB every inference" in compiler.notes(made)[0]


def test_an_operator_that_only_one_of_the_two_knows_of_is_a_disagreement(put_on_path):
    rows = table(("CONV_2D", 1, MAPPED), ("RESHAPE", 1, MAPPED), ("QUANTIZE", 2, MAPPED))
    put_on_path(success(4), rows, output=compiled_model())
    assert compiler.compiled(conv_model(), "m").disagreements == (
        f"FULLY_CONNECTED: predicted 1 x '{MAPPED}', the compiler says none",
        f"QUANTIZE: predicted none, the compiler says 2 x '{MAPPED}'",
    )


def test_a_partly_mapped_model_as_predicted_is_no_disagreement(put_on_path):
    shape = (1, 4, 4, 3)
    tensors = tuple(T(name, "int8", shape, None, *PIXELS) for name in "abcd")
    names = ("RELU", "HARD_SWISH", "RELU")
    operators = tuple(Op(name, (n,), (n + 1,)) for n, name in enumerate(names))
    given = model_of(G("main", tensors, operators, (0,), (3,)))
    expected = edgetpu.mapping(given, "m").operators
    # The log counts operators of a name by their status, in no order of the graph.
    rows = table(
        ("HARD_SWISH", 1, expected[1].status), ("RELU", 1, LATER), ("RELU", 1, "Mapped to Edge TPU")
    )
    put_on_path(success(1, 2), rows, output=given)
    made = compiler.compiled(given, "m")
    assert (made.mapped, made.total, made.disagreements) == (1, 3, ())


def test_a_model_compiled_against_the_prediction_is_told_as_one(put_on_path):
    floats = T("x", "float32", (1, 2)), T("y", "float32", (1, 2))
    given = model_of(G("main", floats, (Op("RELU", (0,), (1,)),), (0,), (1,)))
    put_on_path(success(1), table(("RELU", 1, MAPPED)), output=given)
    (told,) = compiler.compiled(given, "m").disagreements
    assert told.startswith("it was predicted that the compiler refuses this file (Model not quant")


FAILURES = {
    "not quantized": (
        f"{VERSION}\nInvalid model: NAME.tflite\nModel not quantized",
        "Model not quantized",
        "full int8",
    ),
    "an operator too new": (
        f"{VERSION}\nERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'. An older "
        "version of this builtin might be supported.\n\nERROR: Registration failed.\n\n"
        "Invalid model: NAME.tflite\nModel could not be parsed",
        "Didn't find op for builtin opcode 'CONV_2D' version '6'",
        "older operators",
    ),
    "an internal error": (
        f"{VERSION}\n\nInternal compiler error. Aborting! ",
        "Internal compiler error. Aborting!",
        "run it once more",
    ),
    "large activations": (
        f"{VERSION}\n{TIMER}\nERROR: Restored original execution plan after delegate application "
        f"failure.\nCompilation failed: Compilation failed due to large activation tensors in "
        f"model.\n{ENDED}\nCompilation failed! ",
        "due to large activation tensors in model.",
        "smaller pictures",
    ),
    "dynamic tensors": (
        f"{VERSION}\n{TIMER}\nERROR: Attempting to use a delegate that only supports static-sized "
        f"tensors with a graph that has dynamic-sized tensors.\n{ENDED}\nCompilation failed! ",
        "Attempting to use a delegate that only supports static-sized tensors",
        "fixed batch of 1",
    ),
    "no reason": (
        f"{VERSION}\n{TIMER}\n{ENDED}\nCompilation failed! ",
        f"{TIMER} / {ENDED} / Compilation failed!",
        "tfedge check MODEL --target coral",
    ),
    "nothing": ("", "it printed nothing", "tfedge check MODEL --target coral"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_compiler_that_gives_up_is_translated(put_on_path, case):
    log, reason, fix = FAILURES[case]
    put_on_path(log, code=1)
    with pytest.raises(CheckError) as failed:
        compiler.compiled(conv_model(), "m.tflite")
    text = str(failed.value)
    assert text.startswith("m.tflite: edgetpu_compiler")
    assert "gave up (exit 1)" in text
    assert reason in text
    assert fix in text
    assert "the prediction was that it maps 3 of 3 operators" in text


def test_success_without_a_file_is_a_failure(put_on_path):
    put_on_path(success(3), WHOLE)
    with pytest.raises(CheckError, match=r"gave up \(exit 0\)"):
        compiler.compiled(conv_model(), "m")


def test_a_compiler_that_crashes_is_named_with_its_signal(put_on_path):
    put_on_path("", died_of=signal.SIGSEGV)
    with pytest.raises(CheckError, match="was ended by signal 11: it printed nothing"):
        compiler.compiled(conv_model(), "m")


@pytest.mark.slow
def test_a_compiler_that_hangs_is_stopped_with_its_child(put_on_path):
    folder = put_on_path("", hang=True)
    with pytest.raises(CheckError, match=r"had not finished after 2 s and was stopped"):
        compiler.compiled(conv_model(), "m", limit_s=2)
    child = int((folder / "child").read_text())
    for _ in range(100):
        if not running(child):
            break
        time.sleep(0.05)
    assert not running(child)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_program_of_another_machine_is_named(put_on_path):
    program = put_on_path("") / "edgetpu_compiler"
    program.write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(UserError, match=r"cannot be run here: .*\n  it needs Linux on x86-64"):
        compiler.compiled(conv_model(), "m")


def test_the_compiled_file_gets_its_card_back(put_on_path, model, tmp_path):
    put_on_path(success(3), WHOLE, output=compiled_model())
    told = compiler.compile_beside(model)
    target = tmp_path / "model_edgetpu.tflite"
    got, _ = card.read(target.read_bytes(), target)
    before, _ = card.read(model.read_bytes(), model)
    assert replace(got, flatbuffer=None) == replace(before, flatbuffer=None)
    assert facts(target.read_bytes(), target).custom_operators == ("edgetpu-custom-op",)
    assert "mapped 3 of 3 operators" in told[0]


def test_an_output_with_other_ends_gets_no_card(put_on_path, model, tmp_path):
    put_on_path(success(3), WHOLE, output=compiled_model(classes=4))
    with pytest.raises(UserError, match="its output is"):
        compiler.compile_beside(model)
    assert not (tmp_path / "model_edgetpu.tflite").exists()


def test_without_the_compiler_there_is_a_note_that_says_how_to_get_it(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (note,) = compiler.compile_beside(model)
    assert "edgetpu_compiler is not installed here" in note
    assert "Debian on x86-64" in note
    assert "tfedge attach model_edgetpu.tflite --from model.tflite" in note
    assert not (tmp_path / "model_edgetpu.tflite").exists()
    with pytest.raises(UserError, match="not on the PATH"):
        compiler.compiled(conv_model(), "m")


def test_the_noted_command_gives_a_file_compiled_elsewhere_its_card(model, tmp_path):
    elsewhere = tmp_path / "model_edgetpu.tflite"
    elsewhere.write_bytes(compiled_model())
    assert main(["attach", str(elsewhere), "--from", str(model)]) == 0
    assert card.read(elsewhere.read_bytes(), elsewhere)[0].labels == ("cat", "dog", "eel")
