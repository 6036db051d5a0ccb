"""Files timed in turn on this machine, once."""

import json
from dataclasses import replace

import pytest
from test_card import CARD
from tiny_conv import G, Op, T, conv_model, model_of
from tiny_model import tiny_model

from tfedge.boards import host, timed
from tfedge.progress import Silent
from tfedge.tflite import card as cards

UNKNOWN = model_of(
    G(
        "main",
        (T("x", "int8", (1, 2)), T("y", "int8", (1, 2))),
        (Op("mine", (0,), (1,)),),
        (0,),
        (1,),
    )
)


@pytest.fixture
def files(tmp_path):
    """The same network twice, with other cards, and another."""
    contents = {
        "int8": cards.write(conv_model(), CARD),
        "tested": cards.write(conv_model(), replace(CARD, labels=("a", "b", "c"))),
        "tiny": tiny_model(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


@pytest.fixture
def measured(monkeypatch):
    """What is measured from now on: lists of files' names."""
    heard = []

    def measure(files, rounds):
        heard.append([file.name for file in files])
        return [{"host_ms_p50": 1.0 + number} for number in range(len(files))]

    monkeypatch.setattr(host, "measure", measure)
    return heard


def test_files_are_measured_once_together_and_equal_networks_as_one(files, measured, tmp_path):
    found = host.figures(tmp_path / "build", files, Silent())
    assert [len(names) for names in measured] == [2]
    assert found["int8"] == found["tested"] != found["tiny"]
    assert host.figures(tmp_path / "build", files, Silent()) == found
    assert len(measured) == 1


def test_another_file_lets_all_be_measured_anew(files, measured, tmp_path):
    host.figures(tmp_path / "build", files, Silent())
    files["more"] = tmp_path / "more"
    files["more"].write_bytes(UNKNOWN)
    host.figures(tmp_path / "build", files, Silent())
    assert [len(names) for names in measured] == [2, 3]


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}"])
def test_kept_figures_that_are_damaged_are_measured_anew(files, measured, tmp_path, damage):
    found = host.figures(tmp_path / "build", files, Silent())
    (kept,) = (tmp_path / "build" / host.FOLDER).iterdir()
    kept.write_text(damage)
    assert host.figures(tmp_path / "build", files, Silent()) == found
    assert len(measured) == 2


def test_every_file_has_its_time_and_arena_and_one_that_does_not_run_says_why(files, tmp_path):
    files["tiny"].write_bytes(UNKNOWN)
    found = host.figures(tmp_path / "build", files, Silent())
    assert found["int8"]["host_ms_p50"] > 0
    assert found["int8"]["host_calls"] >= timed.LEAST_ROUNDS
    assert found["int8"]["arena_measured_bytes"] == timed.arena(str(files["int8"]))
    assert "mine" in found["tiny"]["failed"]
    assert set(found["tiny"]) == {"failed"}


def test_without_rounds_only_the_arena_is_read(files):
    (found,) = host.measure([files["int8"]], rounds=0)
    assert found == {"arena_measured_bytes": timed.arena(str(files["int8"]))}


def test_a_file_that_ends_the_process_ends_not_this_one(monkeypatch, tmp_path, files):
    script = tmp_path / "dies.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(host, "_SCRIPT", script)
    (found,) = host.measure([files["int8"]], rounds=1)
    assert found == {"failed": "the runtime ended with SIGSEGV"}


def test_files_take_turns_forth_and_back_and_a_turns_first_call_is_not_timed(monkeypatch):
    monkeypatch.setattr(timed, "BLOCK_S", 0.0)  # a block of one call
    heard = []
    calls = [lambda: heard.append("a"), lambda: heard.append("b")]
    times = timed.interleaved(calls, rounds=3)
    trying = "aabb"
    assert "".join(heard) == trying + "bbaa" + "aabb" + "bbaa"
    assert [len(one) for one in times] == [3, 3]


def test_slow_files_are_called_in_the_fewest_rounds_only(monkeypatch):
    monkeypatch.setattr(timed, "SECONDS", 0.0)
    monkeypatch.setattr(timed, "BLOCK_S", 0.0)
    (times,) = timed.interleaved([lambda: None], rounds=30)
    assert len(times) == timed.LEAST_ROUNDS


def test_the_script_prints_an_object_a_file(files, capsys):
    timed.main(1, [str(files["int8"]), str(files["tiny"])])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(line) for line in lines] == [
        {"arena_measured_bytes", "host_ms_p50", "host_calls"}
    ] * 2
