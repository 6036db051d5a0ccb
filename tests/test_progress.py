import os
import pty
import re
import subprocess
import sys

import pytest

from tfedge import progress


def test_lines_say_how_much_is_done_and_how_long_it_takes_yet(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Lines().bar("student", 100) as advance:
        advance(1, "too early to say")
        advance(40, "loss 1.5")
    assert capsys.readouterr().err == "student      40 of 100  loss 1.5  0:00:30 left\n"


def test_a_total_that_was_not_known_may_come_later(capsys, monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Lines().bar("decoding", 1) as advance:
        advance(1000, "", 3000)
    assert "1,000 of 3,000" in capsys.readouterr().err


def test_without_a_terminal_progress_comes_in_lines(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert isinstance(progress.terminal(), progress.Lines)


def test_on_a_terminal_a_bar_is_drawn():

    ours, theirs = pty.openpty()
    code = (
        "from tfedge import progress; p = progress.terminal(); p.say('[teacher] begins')\n"
        "with p.bar('teacher', 10) as advance: advance(5, 'loss 0.5')"
    )
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(ours, 65536).decode())
    os.close(ours)
    assert "[teacher] begins" in shown
    assert re.search(r"teacher .* 5/10 loss 0\.5", shown)


def test_what_a_library_writes_is_shown_only_when_the_work_fails(capfd):
    with progress.quietly():
        os.write(2, b"all is well\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(KeyError):
        fail_loudly()
    assert capfd.readouterr().err == "the reason\n"
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def fail_loudly():
    with progress.quietly():
        os.write(2, b"the reason\n")
        raise KeyError


def test_silence_says_nothing(capfd):
    quiet = progress.Silent()
    quiet.say("x")
    with quiet.bar("x", 1) as advance:
        advance(1, "x")
    assert capfd.readouterr() == ("", "")
