import json
import subprocess
from importlib.metadata import version

import pytest
import runtime_operators
from conftest import REPO
from real_runtimes import environment_with, python_with

from tfedge.boards import runtimes
from tfedge.boards.runtimes import FILE, RUNTIMES, among, first_with, has, listed, newest

# TensorFlow's own table of which release came with a version: the file
# tensorflow/lite/tools/versioning/runtime_version.cc as of commit 00b1ec2ad4b0.
SINCE = [
    ("SQUEEZE", 2, "2.5"),
    ("BROADCAST_TO", 3, "2.5"),
    ("ADD", 4, "2.6"),
    ("MUL", 5, "2.6"),
    ("PAD", 4, "2.6"),
    ("STRIDED_SLICE", 6, "2.6"),
    ("CAST", 2, "2.7"),
    ("DEQUANTIZE", 5, "2.7"),
    ("CAST", 3, "2.8"),
    ("TILE", 3, "2.8"),
    ("CAST", 4, "2.9"),
    ("CONV_2D", 6, "2.9"),
    ("ARG_MAX", 3, "2.9"),
    ("ARG_MIN", 3, "2.9"),
]

# What lite/core/kernels/register.cc registers as of commit 0314b97f5952, about the time of 2.14.
REGISTERED = {
    "ABS": 5,
    "CONV_2D": 7,
    "DEPTHWISE_CONV_2D": 7,
    "FULLY_CONNECTED": 10,
    "CONCATENATION": 4,
    "ADD": 5,
    "MUL": 7,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 4,
    "STRIDED_SLICE": 8,
    "TRANSPOSE_CONV": 4,
    "HARD_SWISH": 1,
    "QUANTIZE": 3,
    "PRELU": 1,
}


@pytest.mark.parametrize(("operator", "version", "since"), SINCE)
def test_a_version_is_there_since_the_release_that_tensorflow_says(operator, version, since):
    order = [f"tflite-runtime 2.{minor}" for minor in range(5, 15)]
    start = order.index(f"tflite-runtime {since}")
    assert [has(name, operator, version) for name in order] == [
        number >= start for number in range(len(order))
    ]


@pytest.mark.parametrize(("operator", "version"), REGISTERED.items())
def test_2_14_has_what_its_source_registers(operator, version):
    assert newest("tflite-runtime 2.14", operator) == version


def test_an_operators_first_version_may_be_gone():
    assert not has("tflite-runtime 2.14", "BROADCAST_TO", 1)
    assert has("tflite-runtime 2.14", "BROADCAST_TO", 2)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["tflite-runtime", "ai-edge-litert"])
def test_the_runtimes_here_take_just_what_the_table_says(tmp_path, package):
    # Each interpreter is asked for every operator in 20 versions.
    names = runtime_operators.builtin_names()
    content, places = runtime_operators.template()
    (tmp_path / "probe.tflite").write_bytes(content)
    task = json.dumps({"places": places, "numbers": sorted(names)})
    script = REPO / "benchmarks/runtime_operators.py"
    command = [*python_with(package), str(script), "--probe", str(tmp_path / "probe.tflite"), task]
    done = subprocess.run(
        command, env=environment_with(package), capture_output=True, text=True, check=True
    )
    taken = json.loads(done.stdout)
    name = "tflite-runtime 2.14"
    if package == "ai-edge-litert":
        name = f"ai-edge-litert {'.'.join(version(package).split('.')[:2])}"
    table = runtimes.versions()[name]
    assert {names[int(number)]: tuple(ends) for number, ends in taken.items()} == table


def test_every_runtime_that_is_known_was_measured():
    assert list(runtimes.versions()) == list(RUNTIMES)
    assert runtimes.written(runtimes.versions()) == FILE.read_text("utf-8")


def test_an_operator_that_came_late_is_first_in_the_runtime_that_brought_it():
    assert first_with("GELU", 1) == "tflite-runtime 2.8"
    assert first_with("FULLY_CONNECTED", 12) == "ai-edge-litert 1.0"
    assert first_with("FULLY_CONNECTED", 99) == ""
    assert newest("tflite-runtime 2.7", "GELU") == 0


def test_neighbours_are_written_as_a_range():
    assert listed(among("tflite-runtime", "2.7", "2.9")) == "tflite-runtime 2.7 to 2.9"
    mixed = ["ai-edge-litert 1.0", "tflite-runtime 2.14", "tflite-runtime 2.9"]
    assert listed(mixed) == "tflite-runtime 2.9, tflite-runtime 2.14, ai-edge-litert 1.0"
    assert listed(["ai-edge-litert 1.4", "ai-edge-litert 2.0"]) == "ai-edge-litert 1.4 to 2.0"
