from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tfedge import paths

REPO = Path(__file__).parent.parent
STRIPES = Path(__file__).parent / "pipelines"


# A shell's background job ignores Ctrl-C, and so would every process that a test starts from it.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
