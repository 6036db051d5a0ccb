from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_board import SCRIPT, messages, pixels, running, script, write


def test_names_that_no_path_can_be_are_a_line_and_the_stream_goes_on(model, photos):
    good = str(photos / "a.jpg")
    done = script(model, "-", "--json", input=f"x\0y\n{good}\n")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, first["input"]) == (2, "-")
    assert first["error"] == "wants a path a line, a picture or a .npy"
    assert second["input"] == good


def test_paths_come_from_stdin_and_answers_as_they_are_ready(model, photos):
    with running(model, "-") as process:
        for name in ("c.PNG", "a.jpg"):
            process.stdin.write(f"{photos / name}\n\n")
            process.stdin.flush()
            assert process.stdout.readline().startswith(f"{photos / name}\t")
        out, _ = process.communicate()
    assert (process.returncode, out) == (0, "")


def test_a_closed_pipe_ends_it_quietly(model, photos):
    with running(model, "-") as process:
        process.stdin.write(f"{photos / 'a.jpg'}\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(f"{photos / 'a.jpg'}\n" * 3)
        process.stdin.close()
        err = process.stderr.read()
        process.wait()
    assert process.returncode == 141  # as a shell says of SIGPIPE
    assert messages(err) == []


def test_a_full_disk_is_one_line_and_2(model, photos):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, SCRIPT, model, photos]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "infer.py: stdout: No space left on device"


def test_a_full_disk_behind_a_file_names_the_file(model, photos):
    done = script(model, photos, "--output", "/dev/full")
    assert done.returncode == 2
    assert messages(done.stderr) == ["infer.py: /dev/full: No space left on device"]


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip", b"\x1c\0\0\0TFL3 a model"])
def test_another_file_on_stdin_is_one_line(model, content):
    with running(model, "-", text=False) as process:
        _, err = process.communicate(content)
    assert process.returncode == 2
    said = "infer.py: -: wants a path a line, a picture or a .npy; got another file"
    assert messages(err.decode()) == [said]


def test_a_closed_stdin_is_one_line(model):
    command = ["sh", "-c", '"$@" <&-', "sh", sys.executable, SCRIPT, model, "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert messages(done.stderr)[-1].startswith("infer.py: -: stdin is closed; name files")


def test_an_old_pillow_is_told_of_once(tmp_path, photos):
    model = write(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(
        "from PIL import Image\nopened = Image.open\n"
        "def open_(source, mode='r'):\n    return opened(source)\n"
        "open_.__name__ = open_.__qualname__ = 'open'\nImage.open = open_\n"
    )
    done = script(model, photos, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    said = "infer.py: this Pillow is too old; pip install 'pillow>=8'"
    assert messages(done.stderr) == [said]


def test_ctrl_c_ends_it_without_a_traceback(model, photos):
    with running(model, "-") as process:
        process.stdin.write(f"{photos / 'a.jpg'}\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_name_or_label_that_cannot_be_printed_is_escaped(tmp_path):
    def change(card):
        card["labels"] = ["猫", "犬", "鰻"]

    model = write(tmp_path, change=change)
    file = tmp_path / os.fsdecode(b"\xff.png")
    with file.open("wb") as stream:
        Image.fromarray(pixels()).save(stream, "PNG")
    done = script(model, file, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    name, label, _ = done.stdout.split("\t")
    assert name.endswith("\\udcff.png")
    assert label in ("\\u732b", "\\u72ac", "\\u9c3b")


def test_without_numpy_it_says_how_to_install_it():
    done = subprocess.run(
        [sys.executable, "-S", SCRIPT, "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "infer.py: needs numpy; install it: pip install numpy\n"


def test_arrays_need_no_pillow_and_nothing_of_tfedge(tmp_path):
    model = write(tmp_path)
    np.save(tmp_path / "x.npy", pixels())
    (tmp_path / "PIL.py").write_text("raise ImportError('no Pillow')\n")
    (tmp_path / "tfedge.py").write_text("raise ImportError('nothing of ours')\n")
    done = script(model, tmp_path / "x.npy", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
