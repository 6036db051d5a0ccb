from __future__ import annotations

import gc
import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image
from tiny_board import pixels, write

from tfedge import paths

REPO = Path(__file__).parent.parent
STRIPES = Path(__file__).parent / "pipelines"


# A shell's background job ignores Ctrl-C, and so would every process that a test starts from it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A graph is many small objects: to look for garbage at every 700 new ones takes 4 % of the time.
gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope="session")
def infer():
    """The module device/infer.py, loaded as a device does: from its file alone."""
    return paths.runner()


@pytest.fixture
def project(tmp_path):
    """A folder with a small pipeline of every stage, for a test to edit."""
    for file in STRIPES.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The folder of a finished build of that pipeline, for all tests that only look."""
    from tfedge.cli import main

    folder = tmp_path_factory.mktemp("built")
    assert main(["build", str(STRIPES / "stripes.toml"), "--build-dir", str(folder)]) == 0
    return folder / "stripes"


@pytest.fixture
def eager():
    """Train step by step: to trace a graph for two steps would take most of the time."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(run_eagerly=True)
    yield
    tf.config.run_functions_eagerly(run_eagerly=False)


@pytest.fixture
def untimed(monkeypatch):
    """Build without the process that times each stage's file, for tests that ask for no times."""
    from tfedge.boards import host

    times = [{"host_ms_p50": 0.5, "arena_measured_bytes": 1}]
    monkeypatch.setattr(host, "measure", lambda files, rounds: times * len(files))


@pytest.fixture
def model(tmp_path):
    return write(tmp_path)


@pytest.fixture
def photos(tmp_path):
    """Three pictures in two folders, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for seed, name in enumerate(["c.PNG", "b/z.png", "a.jpg"]):
        Image.fromarray(pixels(seed, (9, 7, 3))).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def answer(infer, capfd):
    """Run main; return its status and what it wrote to stdout and stderr, without the runtime's."""

    def run(*arguments):
        status = infer.main([str(each) for each in arguments])
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if not line.startswith("INFO:")]
        return status, out, "\n".join(lines)

    return run


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, started once for all tests of a file."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if not program and not os.environ.get("CI"):  # where nothing may be left out it must be there
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # The page is ours, and the sandbox cannot be had by root.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
