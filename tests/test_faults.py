"""What becomes of a build whose disk fills up: one message, and nothing finished is lost."""

import json
import resource
import shutil
import subprocess
import sys

import pytest
from conftest import REPO

pytestmark = pytest.mark.slow

STAGES = ("teacher", "student", "sparse", "shared", "aware", "int8", "tested")
FULL = """
import io, json, resource, sys
from contextlib import redirect_stderr
from pathlib import Path
from shutil import rmtree
from tfedge.cli import main

file, place, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
build = ["build", file, "--build-dir", str(place.parent)]
for stage in sys.argv[4:]:
    (folder,) = place.glob(f"{stage}-????????")
    others = {one.name for one in place.glob("*-????????")} - {folder.name}
    rmtree(folder)
    said = io.StringIO()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with redirect_stderr(said):
            status = main([*build, "--until", stage])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    left = {one.name for one in place.glob("*-????????")}
    print(json.dumps({"stage": stage, "status": status, "said": said.getvalue(),
                      "lost": sorted(others - left), "finished": folder.name in left}), flush=True)
    assert main([*build, "--until", stage]) == 0
"""


@pytest.fixture(scope="module")
def ended(built, tmp_path_factory):
    """Run each stage of a finished build once more with no room for files of more than 1 kB."""
    place = tmp_path_factory.mktemp("full") / "stripes"
    shutil.copytree(built, place)
    pipeline = REPO / "tests/pipelines/stripes.toml"
    command = [sys.executable, "-c", FULL, str(pipeline), str(place), "1024", *STAGES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found = {one["stage"]: one for one in map(json.loads, lines)}
    assert list(found) == list(STAGES), done.stderr[-3000:]
    return found, place


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_ends_a_stage_with_one_message_and_loses_nothing(ended, stage):
    found = ended[0][stage]
    *_, problem, fix = found["said"].splitlines()
    assert found["status"] == 2
    assert problem.startswith("tfedge: ")
    assert "File too large" in problem
    assert fix == "  finished stages are kept; the same command goes on when that is mended"
    assert "Traceback" not in found["said"]
    assert not found["finished"]
    assert found["lost"] == []


def test_with_room_again_the_same_bytes_are_made(ended, built):
    for stage in STAGES:
        (first,), (again,) = (place.glob(f"{stage}-????????") for place in (built, ended[1]))
        for name in ("float.tflite", "model.tflite"):
            if (first / name).is_file():
                assert (again / name).read_bytes() == (first / name).read_bytes(), (stage, name)


def test_the_limit_that_stands_for_a_full_disk_is_one():
    code = "import tempfile; f = tempfile.TemporaryFile(); f.write(b'x' * 4096); f.flush()"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
    done = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert "File too large" in done.stderr
