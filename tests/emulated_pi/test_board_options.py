"""infer.py's options that stay or look around, on an emulated Pi 4 and Pi 5."""

import json
import select
import shutil
import subprocess
import time

import pytest

from emulated_pi.conftest import SCRIPT, use
from tfedge.boards import pi

pytestmark = pytest.mark.slow

PATIENCE_S = 120


@pytest.fixture(scope="module")
def done(userland, board, folder):
    model = str(folder / "model.tflite")
    commands = [
        [model, str(folder / "pictures" / "0.png"), "--bench", "5", "--json"],
        [model, "--doctor", "--json"],
    ]
    return use(lambda words: userland.command(board, words), folder, commands)


def test_bench_knows_the_kernels_and_the_boards_state(done, board):
    command = done["commands"][0]
    assert command["status"] == 0, command["err"]
    found = json.loads(command["out"])
    assert found["xnnpack"] is True
    assert found["valid"] is True
    for state in (found["before"], found["after"]):
        assert state["temperature_c"] == pytest.approx(51.121)
        assert state["clock_mhz"] == pi.BOARDS[board].mhz
        assert state["governor"] == "ondemand"
    parts = [found[f"{part}_p50_ms"] for part in ("decode", "preprocess", "invoke", "total")]
    assert min(parts) > 0
    assert parts[-1] >= max(parts)


def test_doctor_finds_nothing_wrong_and_names_the_board(done, board):
    command = done["commands"][1]
    found = json.loads(command["out"])
    assert (command["status"], found["findings"]) == (0, [])
    assert found["board"] == pi.BOARDS[board].name
    assert (found["machine"], found["glibc"], found["bits"]) == ("aarch64", "2.36", 64)
    assert found["interpreter"] == "works"
    assert found["install"] == "pip install ai-edge-litert numpy pillow"


def test_watch_answers_what_arrives_and_stops_when_it_is_told(userland, folder, tmp_path):
    words = [str(SCRIPT), str(folder / "model.tflite"), "--watch", str(tmp_path), "--json"]
    command = userland.command("pi5", words)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            # What is there when it starts is left alone, and when it has started is not known.
            end, number = time.monotonic() + PATIENCE_S, 0
            while not select.select([process.stdout], [], [], 1)[0]:
                assert time.monotonic() < end, "nothing was answered"
                number += 1
                shutil.copy(folder / "pictures" / "0.png", tmp_path / ".arriving")
                (tmp_path / ".arriving").rename(tmp_path / f"{number}.png")
            answer = json.loads(process.stdout.readline())
            process.terminate()
            assert process.wait(PATIENCE_S) == 0, process.stderr.read()
        finally:
            process.kill()
    assert answer["input"].startswith(str(tmp_path))
    assert answer["classes"][0]["label"] in ("plain", "rows", "columns", "checks")
