"""Conversion without training, through the command line, of a network that int8 ruins."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO
from hard_model import READER, SCALED, hard_model
from small_data import stripes

from tfedge.cli import main
from tfedge.tflite.facts import facts

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untimed")]

DATA = {"train": 1024, "tune": 400, "test": 1000}
HEAD = """
[data]
use = "npz"
path = "stripes.npz"

[network]
use = "import"
file = "hard.h5"

[small]
use = "convert"
of = "network"
"""
TAIL = """
[tested]
use = "evaluate"
of = "small"
against = "network"
cost = []
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the hard network, its data, and a pipeline that `convert` may be added to."""
    place = tmp_path_factory.mktemp("hard")
    data = stripes(**DATA)
    hard_model(data).save(place / "hard.h5")
    arrays = {"labels": np.array(data.labels)}
    for name in DATA:
        split = getattr(data, name)
        arrays |= {f"x_{name}": split.inputs, f"y_{name}": split.classes}
    np.savez(place / "stripes.npz", **arrays)
    return place


def build(folder, capsys, settings="", expected=0, tail=TAIL):
    """Build with `settings` in the convert stage; return the report, or what was said."""
    file = folder / "hard.toml"
    file.write_text(HEAD + settings + "\n" + tail)
    capsys.readouterr()
    assert main(["build", str(file), "--build-dir", str(folder / "build"), "--json"]) == expected
    said = capsys.readouterr()
    return json.loads(said.out) if expected == 0 else said.err


def stage(report, name):
    return next(stage for stage in report["stages"] if stage["name"] == name)


def file_of(folder):
    return folder / "build/hard/hard.tflite"


@pytest.fixture
def accuracy(folder, capsys):
    """Of the float network on the test split."""
    return build(folder, capsys)["test"]["against"]["accuracy"]


def test_plain_calibration_loses_more_than_20_points(folder, capsys, accuracy):
    assert build(folder, capsys)["test"]["accuracy"] < accuracy - 0.20


def test_auto_repairs_it_to_within_a_point_and_a_half(folder, capsys, accuracy):
    report = build(folder, capsys, 'repair = "auto"')
    assert report["test"]["accuracy"] >= accuracy - 0.015
    small = stage(report, "small")
    assert "equalise" in small["repairs"]
    assert small["trials"]["none"] < max(small["trials"].values())
    found = facts(file_of(folder).read_bytes(), "it")
    assert found.float_tensors == ()


def test_fallback_keeps_only_the_layers_at_fault_in_float(folder, capsys, accuracy):
    report = build(folder, capsys, 'max_drop = 0.01\nfallback = "float"')
    assert report["test"]["accuracy"] >= accuracy - 0.015
    small = stage(report, "small")
    assert set(small["kept_out"]) == {SCALED, READER}
    assert small["extra_bytes"] > 0
    assert small["host_time_ratio"] > 0
    (note,) = small["notes"]
    assert SCALED in note
    assert f"{small['extra_bytes']:+,} bytes" in note
    ends = facts(file_of(folder).read_bytes(), "it")
    assert {tensor.dtype for tensor in (*ends.inputs, *ends.outputs)} == {"int8"}


def test_a_drop_that_is_not_allowed_names_the_layer_and_exits_with_1(folder, capsys):
    said = build(folder, capsys, "max_drop = 0.01", expected=1, tail="")
    assert "hard.toml [small] max_drop" in said
    assert f"the layers that lose most: {SCALED}" in said
    assert 'write repair = "auto"' in said
    assert "Traceback" not in said


def test_a_drop_that_no_fallback_mends_fails_too(folder, capsys):
    # The reader's weights are int8 in this form as well, and those are what is at fault.
    said = build(folder, capsys, 'max_drop = 0.01\nfallback = "int16x8"', expected=1, tail="")
    assert 'fallback = "float"' in said


@pytest.mark.parametrize(
    ("form", "ends", "some"),
    [
        ("int16x8", "int16", {"int8", "int16"}),
        ("dynamic", "float32", {"float32"}),  # only kernels of 1024 weights and more become int8
        ("float16", "float32", {"float16", "float32"}),
        ("float32", "float32", {"float32"}),
    ],
)
def test_each_form_is_what_it_says_and_passes_its_selftest(folder, capsys, form, ends, some):
    report = build(folder, capsys, f'form = "{form}"')
    found = facts(file_of(folder).read_bytes(), "it")
    assert {tensor.dtype for tensor in (*found.inputs, *found.outputs)} == {ends}
    dtypes = {tensor.dtype for subgraph in found.subgraphs for tensor in subgraph.tensors}
    assert some <= dtypes
    assert ("float32" in dtypes) == ("float32" in some)
    if form in ("float16", "float32"):
        assert report["test"]["agreement"] >= 0.99
    command = [sys.executable, REPO / "device/infer.py", file_of(folder), "--selftest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(",")[0]) == (0, "passed"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('form = "float16"\nrepair = "auto"', "repair: is for int8, not for float16"),
        ('fallback = "float"', "fallback: needs max_drop"),
        ('form = "int4"', "form: must be one of int8"),
    ],
)
def test_wishes_that_contradict_are_refused_before_anything_runs(folder, capsys, settings, words):
    assert words in build(folder, capsys, settings, expected=2)


def test_the_worst_layer_of_compare_is_the_scaled_one(folder, capsys):
    build(folder, capsys)
    network = next((folder / "build/hard").glob("network-*")) / "model.h5"
    command = ["compare", str(network), str(file_of(folder)), "--json"]
    assert main([*command, "--data", str(folder / "stripes.npz")]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][0]["layer"] == SCALED
