from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from beside import beside
from conftest import REPO
from PIL import Image
from tiny_model import card_for, golden_file, tiny_model, with_card

SERVE = [sys.executable, REPO / "device" / "infer.py"]
PATIENCE_S = 30  # for what comes within a second unless the machine is very busy


def model_bytes(label="cat", *, shape=(4, 4, 3), output_off=0, golden=True) -> bytes:
    """Return a model that calls every picture `label`, with a golden vector that may be off."""
    flatbuffer, black = tiny_model(shape), np.zeros((1, *shape), np.uint8)
    card = card_for(flatbuffer, shape)
    card["labels"] = [label] * 3
    tensor = np.full((1, *shape), -128, np.int8)
    card["golden"] = {"count": 1, "tensors": [hashlib.sha256(tensor.tobytes()).hexdigest()]}
    output = interpreted(flatbuffer, tensor) + np.int8(output_off)
    files = {"golden.npz": golden_file(black, output)}
    return with_card(flatbuffer, card, files if golden else {})


def interpreted(flatbuffer: bytes, tensor: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=flatbuffer)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def put(file: Path, content: bytes) -> None:
    """Put a file in place by rename, as it is to be done on the board."""
    partial = file.with_name(f".{file.name}.new")
    partial.write_bytes(content)
    partial.replace(file)


def picture(folder: Path, name: str) -> None:
    Image.fromarray(np.full((4, 4, 3), 99, np.uint8)).save(folder / ".new.png")
    (folder / ".new.png").rename(folder / name)


class Service:
    """infer.py at work on a folder, and what it says: to systemd, to its output, to stderr."""

    def __init__(self, folder: Path, address: str, **environment):
        self.model, self.photos = folder / "model.tflite", folder / "photos"
        self.photos.mkdir()
        self.output, self.errors = folder / "answers.jsonl", folder / "errors.txt"
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(address.replace("@", "\0", 1))
        self.systemd.settimeout(PATIENCE_S)
        self.environment = {**os.environ, "NOTIFY_SOCKET": address, **environment}
        self.heard: list[str] = []
        self.process = None

    def start(self, *options):
        command = [*SERVE, self.model, "--serve", "--json", "--output", self.output]
        command += ["--watch", self.photos, *options]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(command, stderr=errors, env=self.environment)

    def hear(self, line: str) -> str:
        """Wait until it tells systemd `line`; return all that it told in the same breath."""
        while True:
            self.heard.append(self.systemd.recv(4096).decode())
            if line in self.heard[-1].splitlines():
                return self.heard[-1]

    def answers(self, count: int) -> list[dict]:
        wait_for(lambda: self.output.exists() and len(self._lines()) >= count)
        return self._lines()

    def says(self, words: str) -> str:
        wait_for(lambda: words in self.errors.read_text())
        return self.errors.read_text()

    def end(self, number=signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def _lines(self):
        whole = self.output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]


def wait_for(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@pytest.fixture
def prepare(tmp_path):
    """Prepare a service whose model calls everything a cat; end it with the test."""
    with contextlib.ExitStack() as stack:

        def make(address=str(tmp_path / "notify"), content=None, **environment):
            service = Service(tmp_path, address, **environment)
            stack.callback(service.systemd.close)
            stack.callback(lambda: service.process and service.process.kill())
            service.model.write_bytes(content or model_bytes())
            return service

        yield make


@pytest.fixture
def service(prepare):
    """A service that is ready."""
    made = prepare()
    made.start()
    made.hear("READY=1")
    return made


# --- the process


def test_it_is_ready_answers_what_comes_and_stops(service):
    picture(service.photos, "a.png")
    picture(service.photos, "b.png")
    answers = service.answers(2)
    assert {Path(answer["input"]).name for answer in answers} == {"a.png", "b.png"}
    assert [answer["classes"][0]["label"] for answer in answers] == ["cat", "cat"]
    assert service.end() == 0
    assert service.hear("STOPPING=1").splitlines() == ["STOPPING=1", "STATUS=answered 2"]


@pytest.mark.slow
def test_a_socket_whose_name_is_no_file_is_told_as_well(prepare):
    service = prepare(f"@tfedge-test-{os.getpid()}")
    service.start()
    assert service.hear("READY=1").splitlines() == ["READY=1", "STATUS=answered 0"]
    assert service.end() == 0
    service.hear("STOPPING=1")


@pytest.mark.slow
def test_without_systemd_it_serves_as_well(prepare):
    service = prepare()
    del service.environment["NOTIFY_SOCKET"]
    service.start()
    for number in range(10 * PATIENCE_S):  # it does not say when it begins to look
        picture(service.photos, f"{number}.png")
        time.sleep(0.1)
        if service.output.exists() and service.output.read_text():
            break
    assert service.answers(1)[0]["classes"][0]["label"] == "cat"
    assert service.end() == 0
    service.systemd.settimeout(0)
    with pytest.raises(BlockingIOError):
        service.systemd.recv(1)


@pytest.mark.slow
def test_a_bad_picture_is_reported_and_the_next_one_answered(service):
    put(service.photos / "bad.jpg", b"no picture")
    assert "cannot be read as a picture" in service.says("bad.jpg")
    picture(service.photos, "good.png")
    wait_for(lambda: any("classes" in line for line in service.answers(1)))
    assert service.end() == 0


@pytest.mark.slow
def test_what_came_while_it_was_down_is_answered_at_the_next_start(service, tmp_path):
    state = tmp_path / "answered"
    service.end()
    picture(service.photos, "long_there.png")
    service.start("--state", state)
    service.hear("READY=1")
    picture(service.photos, "first.png")
    service.answers(1)
    assert service.end() == 0
    picture(service.photos, "meanwhile.png")
    service.start("--state", state)
    answers = service.answers(2)
    assert [Path(answer["input"]).name for answer in answers] == ["first.png", "meanwhile.png"]
    assert service.end(signal.SIGKILL) == -signal.SIGKILL
    with state.open("a") as stream:  # as a power cut may leave it
        stream.write('["cut.png", [17')
    service.start("--state", state)
    picture(service.photos, "last.png")
    assert [Path(answer["input"]).name for answer in service.answers(3)][2:] == ["last.png"]
    assert service.end() == 0
    noted = {json.loads(line)[0] for line in state.read_text().splitlines()}
    assert noted == {"long_there.png", "first.png", "meanwhile.png", "last.png"}


@pytest.mark.slow
def test_a_folder_that_goes_away_is_waited_for(service):
    picture(service.photos, "a.png")
    service.answers(1)
    service.photos.rename(service.photos.with_name("gone"))
    assert "cannot be watched" in service.says("waits for it")
    service.photos.mkdir()
    picture(service.photos, "b.png")
    assert Path(service.answers(2)[1]["input"]).name == "b.png"
    assert service.errors.read_text().count("waits for it") == 1
    assert service.end() == 0


@pytest.mark.slow
def test_notes_that_cannot_be_kept_are_one_line_at_the_start(prepare):
    service = prepare()
    service.start("--state", "/proc/none/answered")
    assert service.process.wait(PATIENCE_S) == 2
    assert "/proc/none/answered: cannot be kept: " in service.says("name another --state")


@pytest.mark.slow
def test_the_watchdog_is_fed_while_nothing_comes(prepare):
    service = prepare(WATCHDOG_USEC="200000")
    service.start()
    service.hear("READY=1")
    for _ in range(3):
        service.hear("WATCHDOG=1")
    assert service.end() == 0


@pytest.mark.slow
def test_a_watchdog_of_another_process_is_not_fed(prepare):
    service = prepare(WATCHDOG_USEC="2", WATCHDOG_PID="1")
    service.start()
    service.hear("READY=1")
    picture(service.photos, "a.png")
    service.answers(1)
    service.end()
    service.hear("STOPPING=1")
    assert not [said for said in service.heard if "WATCHDOG=1" in said]


# --- another model


@pytest.mark.slow
def test_a_new_model_is_taken_on_sighup(service):
    picture(service.photos, "a.png")
    service.answers(1)
    put(service.model, model_bytes("dog"))
    service.process.send_signal(signal.SIGHUP)
    service.says("infer.py: goes on with the new model")
    picture(service.photos, "b.png")
    labels = [answer["classes"][0]["label"] for answer in service.answers(2)]
    assert labels == ["cat", "dog"]
    assert service.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (model_bytes("dog", output_off=40), "golden vector 0: the runtime is wrong by 40"),
        (model_bytes("dog", golden=False), "the model has no golden vectors"),
        (model_bytes("dog")[:-50], "model.tflite: has no card or was cut off; copy it again"),
        (model_bytes("dog", shape=(8, 8, 3)), "it takes other inputs; restart the service for it"),
        (b"", "model.tflite: is not a .tflite file"),
        (None, "model.tflite: "),
    ],
)
def test_a_bad_new_model_leaves_the_old_one_at_work(service, content, reason):
    if content is None:
        service.model.unlink()
    else:
        put(service.model, content)
    service.process.send_signal(signal.SIGHUP)
    said = service.says("goes on with the old model")
    assert reason in said
    assert "Traceback" not in said
    picture(service.photos, "a.png")
    assert service.answers(1)[0]["classes"][0]["label"] == "cat"
    assert service.end() == 0


@pytest.mark.slow
def test_after_a_bad_model_a_good_one_is_taken(service):
    for content, words in (
        (b"bad", "goes on with the old model"),
        (model_bytes("dog"), "goes on with the new model"),
    ):
        put(service.model, content)
        service.process.send_signal(signal.SIGHUP)
        service.says(words)
    picture(service.photos, "a.png")
    assert service.answers(1)[0]["classes"][0]["label"] == "dog"
    assert service.end() == 0


def test_it_does_not_start_with_a_model_that_fails_its_selftest(prepare):
    service = prepare(content=model_bytes(output_off=40))
    service.start()
    assert service.process.wait(PATIENCE_S) == 1
    assert "golden vector 0: the runtime is wrong" in service.errors.read_text()


def test_it_does_not_start_without_a_model(prepare):
    service = prepare()
    service.model.unlink()
    service.start()
    assert service.process.wait(PATIENCE_S) == 2
    assert "/model.tflite: " in service.errors.read_text().splitlines()[-1]


# --- the loop


@pytest.fixture
def serve(monkeypatch):
    """The module; signals are as before when the test is over."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield beside("serve")
    for number, action in before.items():
        signal.signal(number, action)


@pytest.fixture
def load(infer, tmp_path):
    """Load the file of a model, as a service does each time."""
    (tmp_path / "model.tflite").write_bytes(model_bytes())
    return lambda: infer.Classifier(tmp_path / "model.tflite")


def test_sigterm_during_an_answer_lets_that_be_finished_and_no_other_begin(serve, load):
    finished, closed = [], []

    def feed(takes, wait):
        try:
            yield from ((str(number), None) for number in range(9))
        finally:
            closed.append(True)

    def answer(model, name, read):
        if name == "2":
            os.kill(os.getpid(), signal.SIGTERM)
        finished.append(name)

    assert serve.loop(load, feed, answer) == 0
    assert (finished, closed) == (["0", "1", "2"], [True])


def test_sigterm_while_it_waits_ends_the_wait(serve, load):
    def feed(takes, wait):
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        wait(3600)
        yield "never", None

    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert serve.loop(load, feed, answer=None) == 0


def test_a_loop_that_hangs_does_not_feed_the_watchdog(serve, load, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "2000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)

        def feed(takes, wait):
            wait(0)
            time.sleep(0.05)  # a camera that gives no frame: 25 times systemd's patience
            systemd.settimeout(0)
            assert systemd.recv(4096).startswith(b"READY=1")
            with pytest.raises(BlockingIOError):
                systemd.recv(4096)
            yield "a frame at last", None

        assert serve.loop(load, feed, lambda *_: None) == 0
        assert systemd.recv(4096) == b"WATCHDOG=1\nSTATUS=answered 1"
        assert systemd.recv(4096) == b"STOPPING=1\nSTATUS=answered 1"


def test_the_feed_does_not_hold_the_first_model_once_another_took_its_place(serve, load):
    first = []

    def remembered():
        model = load()
        first.append(weakref.ref(model))
        return model

    def feed(takes, wait):
        yield "0", None
        os.kill(os.getpid(), signal.SIGHUP)
        wait(0)
        gc.collect()
        assert first[0]() is None
        assert takes.shape == (4, 4, 3)
        yield "1", None

    assert serve.loop(remembered, feed, lambda *_: None) == 0
    assert len(first) == 2


def test_what_is_told_to_nobody_does_not_stop_the_service(serve, tmp_path):
    serve.Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).goes_on("STATUS=well")


@pytest.mark.parametrize(
    ("watch", "camera", "inputs"),
    [(None, None, []), ("photos", "picamera2", []), ("photos", None, ["a.jpg"])],
)
def test_a_service_has_one_thing_to_look_at(serve, infer, watch, camera, inputs):
    args = argparse.Namespace(watch=watch, camera=camera, inputs=inputs)
    with pytest.raises(infer.ModelError, match="needs --watch DIR or --camera NAME"):
        serve.run(args)
