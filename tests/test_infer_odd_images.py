"""One run over a folder of sixty odd pictures: a line for each, whatever it is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from odd_images import write_all
from tiny_board import SCRIPT, messages, write

pytestmark = pytest.mark.slow
# Of the largest that is decoded, 4 bytes a pixel: as read, as white, and of both put together.
MOST_MIB = 3 * 4 * 2**25 / 2**20 + 100


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A model, the folder, and the names in it of what is a picture and of what is none."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "in").mkdir()
    good, bad = write_all(folder / "in")
    assert len(good) + len(bad) == 60
    return write(folder, (16, 16, 3)), folder / "in", good, bad


def run(*arguments):
    """Run the script; return its status, stdout, messages and peak memory in MiB."""
    code = "import resource, subprocess, sys; status = subprocess.call(sys.argv[1:])\n"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n"
    command = [sys.executable, "-c", code + "sys.exit(status % 256)", sys.executable, SCRIPT]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    *lines, peak = messages(done.stderr)
    return done.returncode, done.stdout, lines, int(peak) / 1024


def test_as_text_each_has_an_answer_or_a_message(odd):
    model, folder, good, bad = odd
    status, out, err, peak_mib = run(model, folder)
    assert status == 2
    answered = {line.split("\t")[0] for line in out.splitlines()}
    assert answered == {f"{folder}/{name}".replace("\t", " ") for name in good}
    said = sorted(line.split(": cannot be read as a picture: ")[0] for line in err)
    assert said == sorted(f"infer.py: {folder}/{name}" for name in bad)
    assert peak_mib < MOST_MIB


def test_as_json_each_has_a_record(odd):
    model, folder, good, bad = odd
    status, out, _, peak_mib = run(model, folder, "--json")
    assert status == 2
    records = {record["input"]: record for record in map(json.loads, out.splitlines())}
    assert len(records) == len(out.splitlines()) == 60
    assert {name for name in good if "classes" in records[f"{folder}/{name}"]} == good
    assert {name for name in bad if "error" in records[f"{folder}/{name}"]} == bad
    assert peak_mib < MOST_MIB
