from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from beside import beside
from edge_tpu import LIBRARY, answered, build_library, compiled_model
from PIL import Image
from real_runtimes import RUNTIMES, environment_with
from tiny_board import DEVICE, messages, pixels, script, write
from tiny_model import card_for, with_card

OLD = {"STAND_IN_OLD": "1"}


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The folder of the stand-in library."""
    return build_library(tmp_path_factory.mktemp("edge_tpu")).parent


@pytest.fixture
def in_place(library, monkeypatch):
    """Have this process load the stand-in: where the loader looks was settled when it began."""
    monkeypatch.setattr(beside("edgetpu"), "LIBRARY", str(library / LIBRARY))


def expected(image):
    """Return {label: share} as the stand-in's source says, int8 `image` minus 128."""
    logits = (answered((image.astype(int) - 128).astype(np.int8)).astype(float) - 3) * 0.05
    shares = np.exp(logits) / np.exp(logits).sum()
    return dict(zip(("cat", "dog", "eel"), shares, strict=True))


@pytest.fixture
def compiled(tmp_path):
    file = tmp_path / "model_edgetpu.tflite"
    file.write_bytes(with_card(compiled_model(), card_for(compiled_model())))
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    return file


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) for name in RUNTIMES])
def on(request, library):
    """Run the script on each runtime with the stand-in, whose folder may be replaced."""
    own = environment_with(request.param)

    def run(*arguments, folder=library, **environment):
        known = {**own, "LD_LIBRARY_PATH": str(folder), **environment}
        done = script(*arguments, env=known)
        return done.returncode, done.stdout, messages(done.stderr)

    return run


def test_a_compiled_model_is_answered_by_the_edge_tpu(on, compiled, tmp_path):
    status, out, err = on(compiled, tmp_path / "a.png", "--top-k", "3", "--json")
    assert (status, err) == (0, [])
    classes = {each["label"]: each["share"] for each in json.loads(out)["classes"]}
    assert classes == pytest.approx(expected(pixels()), abs=1e-5)


def test_in_one_process_too(infer, in_place, compiled, monkeypatch):
    monkeypatch.setenv("TFEDGE_NO_PROBE", "1")
    classifier = infer.Classifier(compiled)
    assert classifier.delegate == "edgetpu"
    assert dict(classifier.classify(pixels(), 3)) == pytest.approx(expected(pixels()), abs=1e-5)


def test_what_is_plugged_in_decides(infer, in_place, compiled, monkeypatch):
    for plugged_in, asked, message in [
        ("", "auto", "none is there; plug it in"),
        ("usb,pci", "edgetpu:2", r"edgetpu:2 is not there, but 0 \(usb\), 1 \(pci\); name one"),
    ]:
        monkeypatch.setenv("STAND_IN_TPUS", plugged_in)
        with pytest.raises(infer.ModelError, match=f"needs an Edge TPU: {message}"):
            infer.Classifier(compiled, delegate=asked)


@pytest.mark.parametrize(
    ("asked", "device"),
    [("edgetpu", ""), ("edgetpu:usb", "usb"), ("edgetpu:pci", "pci"), ("edgetpu:2", ":2")],
)
def test_the_device_is_the_one_that_was_asked_for(on, compiled, tmp_path, asked, device):
    log = tmp_path / "log"
    environment = {"STAND_IN_TPUS": "usb,usb,pci", "STAND_IN_LOG": str(log)}
    environment["TFEDGE_NO_PROBE"] = "1"
    status, out, _ = on(compiled, tmp_path / "a.png", "--delegate", asked, **environment)
    assert (status, out.count("\n")) == (0, 1)
    assert log.read_text().splitlines() == [f"device {device}", "destroy one"]


def test_without_the_trial_it_is_opened_once_and_with_it_twice(on, compiled, tmp_path):
    log = tmp_path / "log"
    for environment, times in (({"TFEDGE_NO_PROBE": "1"}, 1), ({}, 2)):
        log.write_text("")
        on(compiled, tmp_path / "a.png", STAND_IN_LOG=str(log), **environment)
        assert log.read_text().count("device") == times


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({"STAND_IN_TPUS": ""}, [], "none is there; plug it in"),
        ({"STAND_IN_BUSY": "in use"}, [], "cannot be opened; end the program that has it"),
        ({"STAND_IN_BUSY": ""}, [], "cannot be opened; end the program that has it"),
        (OLD, [], f"{LIBRARY} is too old for "),
        ({}, ["--delegate", "edgetpu:pci"], "edgetpu:pci is not there, but 0 (usb)"),
        ({}, ["--delegate", "edgetpu:1"], "edgetpu:1 is not there, but 0 (usb)"),
    ],
)
def test_each_reason_why_there_is_no_edge_tpu_has_its_message(
    on, compiled, tmp_path, environment, arguments, message
):
    status, out, err = on(compiled, tmp_path / "a.png", *arguments, **environment)
    assert (status, out, len(err)) == (2, "", 1)
    assert err[0].startswith(f"infer.py: {compiled}: needs an Edge TPU: ")
    assert message in err[0]
    assert environment.get("STAND_IN_BUSY", "") in err[0]


def test_what_is_in_the_librarys_place_is_told_apart(on, compiled, tmp_path):
    text, other, needy, empty = (tmp_path / name for name in ("text", "other", "needy", "empty"))
    for folder in (text, other, needy, empty):
        folder.mkdir()
    (text / LIBRARY).write_text("no library, but long enough for a header of one" * 10)
    (tmp_path / "other.c").write_text("int other(void) { return 0; }\n")
    build_library(other, tmp_path / "other.c")
    shared = ["cc", "-shared", "-fPIC", tmp_path / "other.c"]
    subprocess.run([*shared, "-o", tmp_path / "libneeded.so"], check=True)
    link = ["-Wl,--no-as-needed", f"-L{tmp_path}", "-lneeded"]
    subprocess.run([*shared, "-o", needy / LIBRARY, *link], check=True)
    for folder, message in {
        empty: f"there is no {LIBRARY}; install Coral's libedgetpu1-std",
        text: f"{LIBRARY} is no library for this processor",
        other: f"{LIBRARY} is another library; install libedgetpu1-std anew",
        needy: f"{LIBRARY} needs libneeded.so; install that",
    }.items():
        status, out, err = on(compiled, tmp_path / "a.png", folder=folder)
        assert (status, out, len(err)) == (2, "", 1)
        assert f"{compiled}: needs an Edge TPU: {message}" in err[0]


def test_a_compiled_model_on_the_cpu_is_refused(on, compiled, tmp_path):
    status, out, err = on(compiled, tmp_path / "a.png", "--delegate", "cpu")
    assert (status, out, len(err)) == (2, "", 1)
    assert "needs --delegate edgetpu for it, or the file it was compiled from" in err[0]


def test_a_plain_model_runs_on_the_cpu_and_says_so_where_an_edge_tpu_is(on, tmp_path):
    model = write(tmp_path)
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    quiet = on(model, tmp_path / "a.png", STAND_IN_TPUS="")
    told = on(model, tmp_path / "a.png")
    assert told[:2] == quiet[:2] == on(model, tmp_path / "a.png", "--delegate", "cpu")[:2]
    assert quiet[2] == []
    said = "runs on the CPU: it is not compiled for the Edge TPU that is here"
    assert told[2] == [f"infer.py: {model}: {said}"]


def test_a_plain_model_is_not_sent_to_the_edge_tpu_for_nothing(on, tmp_path):
    model = write(tmp_path)
    status, out, err = on(model, "a.png", "--delegate", "edgetpu")
    assert (status, out, len(err)) == (2, "", 1)
    assert "is not compiled for an Edge TPU; run edgetpu_compiler and tfedge attach" in err[0]


@pytest.mark.parametrize("name", ["gpu", "edgetpu:", "edgetpu:x", "edgetpu:usb:1", "auto:usb"])
def test_an_unknown_delegate_is_named(answer, model, name):
    status, out, err = answer(model, "a.jpg", "--delegate", name)
    assert (status, out) == (2, "")
    assert err.startswith("infer.py: --delegate must be auto, cpu, edgetpu, edgetpu:usb, edgetpu:p")


@pytest.mark.slow
def test_no_child_process_is_a_message_that_says_how_to_do_without(library, compiled):
    code = "import sys; sys.executable = '/nowhere/python'; import infer; "
    code += f"sys.exit(infer.main([{str(compiled)!r}, 'a.png']))"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "PYTHONPATH": str(DEVICE)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "no child process starts to try it in; set TFEDGE_NO_PROBE=1" in done.stderr
