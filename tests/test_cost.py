import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_conv import conv_model
from tiny_model import tiny_model

from tfedge.boards import counted, counting, emulation
from tfedge.boards.cost import Cost, Step, summary
from tfedge.boards.debian import BOOKWORM
from tfedge.boards.emulation import Userland
from tfedge.cli import main
from tfedge.errors import UserError
from tfedge.plan.settings import plain
from tfedge.plan.stages.converting import Evaluate, _counted
from tfedge.progress import Silent
from tfedge.report.cost import table
from tfedge.tflite.parts import part


def interpreted(flatbuffer, x):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=flatbuffer)
    interpreter.allocate_tensors()
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(found["index"])


MODELS = [counting.Model(tiny_model(), (np.zeros((1, 4, 4, 3), np.int8),))]


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(-128, 128, (1, 4, 4, 3), dtype=np.int8)


@pytest.mark.parametrize("cut", [1, 2])
def test_the_parts_of_a_model_one_after_the_other_are_the_model(x, cut):
    whole = conv_model()
    first, second = part(whole, range(cut)), part(whole, range(cut, 3))
    middle = interpreted(first.flatbuffer, x)
    assert np.array_equal(interpreted(second.flatbuffer, middle), interpreted(whole, x))


def test_a_part_holds_only_its_own_weights_and_says_what_it_is_fed():
    whole = conv_model()
    parts = [part(whole, range(number, number + 1)) for number in range(3)]
    assert [one.inputs for one in parts] == [(0,), (3,), (5,)]
    kernel = np.int8([9, 8, 7, 6, 5, 4, 3, 2]).tobytes()  # the last row of the dense layer's
    assert [kernel in one.flatbuffer for one in parts] == [False, False, True]


def test_a_part_leaves_the_whole_as_it_was():
    whole = conv_model()
    before = bytes(whole)
    part(whole, range(1))
    assert whole == before


def test_the_fewest_of_the_calls_less_those_of_no_call_are_counted():
    def said(*counts):
        # A line before each call, of what lies between two calls, and a line after it.
        return "".join(f"instructions 999\ninstructions {count}\n" for count in counts)

    lines = said(10, 70, 10, 10) + "file\n" + said(500, 111, 314) + "INFO: Created.\n"
    lines += "file\n" + said(30, 20, 20)
    assert counting.read(lines) == [101, 10]


def test_the_boards_script_speaks_right_before_and_after_each_call(monkeypatch):
    heard = []
    monkeypatch.setattr(counted.os, "getsid", lambda of: heard.append("mark"))
    counted.between(lambda: heard.append("call"), 2, 3)
    assert heard == ["mark", "call", "mark"] * 3


def test_a_long_call_is_not_made_more_often_than_it_must(monkeypatch):
    heard = []
    monkeypatch.setattr(counted, "SECONDS", 0)
    counted.between(lambda: heard.append("call"), 2, 20)
    assert heard == ["call"] * 2


def test_the_boards_script_calls_each_file_on_its_inputs(tmp_path, x):
    file = tmp_path / "0"
    file.write_bytes(tiny_model())
    np.savez(file.with_suffix(".npz"), x)
    command = [sys.executable, "-P", counted.__file__, "3", "20", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("file\n") == 1


def test_a_machine_without_a_compiler_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    userland = Userland(BOOKWORM, tmp_path, tmp_path, ("qemu-aarch64",), tmp_path)
    with pytest.raises(UserError, match=r"cc: counting .* needs a C compiler.*\n.*apt-get install"):
        counting.instructions(userland, "pi4", MODELS)


def test_what_a_compiler_says_is_passed_on(monkeypatch, tmp_path):
    monkeypatch.setenv("TFEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "cc").write_text("#!/bin/sh\necho 'stdio.h: No such file' >&2; exit 1\n")
    (tmp_path / "cc").chmod(0o755)
    userland = Userland(BOOKWORM, tmp_path, tmp_path, ("qemu-aarch64",), tmp_path)
    with pytest.raises(UserError, match=r"cc: cannot compile .*: stdio\.h.*\n.*libc6-dev"):
        counting.instructions(userland, "pi4", MODELS)


def test_what_the_board_says_of_a_model_that_does_not_run_is_passed_on(monkeypatch, tmp_path):
    monkeypatch.setattr(counting, "_plugin", lambda: tmp_path / "count.so")
    (tmp_path / "qemu").write_text("#!/bin/sh\necho 'RuntimeError: custom op' >&2; exit 1\n")
    (tmp_path / "qemu").chmod(0o755)
    userland = Userland(BOOKWORM, tmp_path, tmp_path, (str(tmp_path / "qemu"),), tmp_path)
    with pytest.raises(UserError, match=r"the emulated pi4: .* RuntimeError: custom op"):
        counting.instructions(userland, "pi4", MODELS)


STEPS = (Step("CONV_2D", "a;b", 700), Step("FULLY_CONNECTED", "logits", 250))


def test_operators_and_call_are_added_up_as_a_share_of_the_whole():
    assert Cost("pi4", 1000, 40, STEPS).covered == pytest.approx(0.99)


def test_the_table_has_a_column_a_board_and_says_that_neither_is_a_pis_clock():
    found = summary(tiny_model(), [Cost("pi4", 1000, 40, STEPS), Cost("pi5", 900, 30, STEPS)])
    lines = table(found).splitlines()
    assert lines[0].split() == ["pi4", "pi5"]
    assert lines[1].split()[:4] == ["Arm", "instructions", "1,000", "900"]
    assert lines[2].split() == ["0", "CONV_2D", "700", "700", "a"]
    assert lines[5].split()[:7] == ["these", "add", "up", "to", "99.0", "%", "108.9"]
    assert lines[6].startswith(f"host ms  {found['host_ms_p50']}")
    assert found["host_ms_p50"] > 0
    assert "Neither is a Pi's clock." in table(found)
    assert json.loads(json.dumps(found))["boards"]["pi5"]["cpu"] == "cortex-a76"


def test_a_board_that_cannot_be_emulated_is_refused(capsys):
    assert main(["cost", "x.tflite", "--target", "coral"]) == 2
    assert "'pi4', 'pi5'" in capsys.readouterr().err


def test_a_file_that_is_no_model_is_refused_before_anything_is_fetched(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TFEDGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "x.tflite").write_bytes(b"no model at all")
    assert main(["cost", str(tmp_path / "x.tflite")]) == 2
    assert "x.tflite: not a .tflite file" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def at_hand(monkeypatch):
    """Counting needs nothing, and counts the boards' places in their list."""
    monkeypatch.setattr(counting, "missing", lambda: "")

    def costs(content, boards, where, progress):
        return [Cost(board, 100 + number) for number, board in enumerate(boards)]

    monkeypatch.setattr("tfedge.boards.cost.costs", costs)


JOB = SimpleNamespace(name="tested", progress=Silent())


def test_both_boards_are_counted_where_nothing_need_be_fetched(at_hand):
    assert _counted(b"", None, JOB) == {"arm_pi4": 100, "arm_pi5": 101}


def test_an_explicit_list_is_counted_and_an_empty_one_counts_nothing(at_hand):
    assert _counted(b"", ("pi5",), JOB) == {"arm_pi5": 100}
    assert _counted(b"", (), JOB) == {}


def test_where_something_is_missing_nothing_is_fetched_and_a_note_says_how_to_get_it(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("TFEDGE_CACHE", str(tmp_path / "cache"))
    (note,) = _counted(tiny_model(), None, JOB)["notes"]
    assert note.startswith("no Arm instructions were counted: ")
    assert 'write cost = ["pi4", "pi5"]' in note
    assert not (tmp_path / "cache").exists()


def test_a_count_that_fails_unasked_is_a_note_and_asked_for_an_error(at_hand, monkeypatch):
    def costs(*_):
        raise UserError("the emulated pi4", "the model does not run", "do this")

    monkeypatch.setattr("tfedge.boards.cost.costs", costs)
    (note,) = _counted(b"", None, JOB)["notes"]
    assert "the emulated pi4: the model does not run" in note
    with pytest.raises(UserError, match="does not run"):
        _counted(b"", ("pi4",), JOB)


def test_what_counting_lacks_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(emulation, "at_hand", lambda: True)
    assert counting.missing() == ""
    monkeypatch.setattr(emulation, "at_hand", lambda: False)
    assert counting.missing() == "the emulated Pi is not on this machine yet"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is none" in counting.missing()


def test_whether_a_machine_can_count_is_no_part_of_the_recipe(monkeypatch):
    monkeypatch.setattr(counting, "missing", lambda: pytest.fail("asked for the recipe"))
    assert plain(Evaluate(of="int8"))["cost"] is None
    assert plain(Evaluate(of="int8", cost=()))["cost"] == []


def test_an_evaluation_that_cannot_count_says_so_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    Evaluate(of="int8").check("p.toml [tested]")
    with pytest.raises(UserError, match=r"p\.toml \[tested\] cost apt-get: is not on this machine"):
        Evaluate(of="int8", cost=("pi4",)).check("p.toml [tested]")
