from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfedge.boards import emulation, pi
from tfedge.progress import Silent

SCRIPT = Path(__file__).parent.parent.parent / "device" / "infer.py"
ON_BOARD = Path(__file__).with_name("on_board.py")


@pytest.fixture(scope="session")
def apt():
    if shutil.which("apt-get") is None:
        pytest.skip("the emulated Pi was NOT tested: apt-get, which makes it, is not here")


@pytest.fixture(scope="session")
def userland(apt):
    return emulation.userland(Silent())


@pytest.fixture(scope="session", params=pi.BOARDS)
def board(request):
    return request.param


@pytest.fixture(scope="session")
def model(built):
    """The small pipeline's int8 file."""
    return built / "stripes.tflite"


@pytest.fixture(scope="session")
def inputs():
    """Pictures as that model takes them, uint8 [64, 8, 8, 1]: noise, which tests every value."""
    return np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope="session")
def folder(model, inputs, tmp_path_factory):
    """What lies on the board beside infer.py: the model, broken copies of it, and pictures."""
    home = tmp_path_factory.mktemp("board")
    content = model.read_bytes()
    (home / "model.tflite").write_bytes(content)
    (home / "truncated.tflite").write_bytes(content[: len(content) // 2])
    (home / "text.tflite").write_text("this is no model\n" * 100)
    (home / "empty.tflite").touch()
    flipped = bytearray(content)
    flipped[2000] ^= 0xFF
    (home / "flipped.tflite").write_bytes(flipped)
    np.save(home / "inputs.npy", inputs)
    (home / "pictures").mkdir()
    for number, pixels in enumerate(inputs[:6, :, :, 0]):
        Image.fromarray(pixels).save(home / "pictures" / f"{number}.png")
    (home / "pictures" / "3.png").write_bytes(b"no picture")
    # Not a photo, but as hard for a decoder: every frequency in it, in colour.
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((640, 480)).save(home / "photo.jpg", quality=85)
    return home


def use(command, folder, commands, staged=()):
    """Run `on_board` by what `command` makes of its arguments; return what it printed."""
    work = {
        "model": str(folder / "model.tflite"),
        "inputs": str(folder / "inputs.npy"),
        "photos": [
            (str(folder / "photo.jpg"), (96, 96, 3)),
            (str(folder / "photo.jpg"), (8, 8, 1)),
        ],
        "commands": commands,
        "staged": staged,
    }
    file = folder / "work.json"
    file.write_text(json.dumps(work))
    # A program on an emulated board can start none: doctor.py has to look for itself.
    environment = {**os.environ, "TFEDGE_NO_PROBE": "1"}
    words = command([str(ON_BOARD), str(SCRIPT), str(file)])
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
