import subprocess

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from real_runtimes import environment_with, python_with
from tiny_conv import G, Op, T, model_of

from tfedge.boards import memory
from tfedge.tflite.arena import planned
from tfedge.tflite.facts import facts

RUN = """
import sys
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter
import numpy as np
with open(sys.argv[1], "rb") as file:
    model = Interpreter(model_content=file.read(), num_threads=1)
model.allocate_tensors()
(given,) = model.get_input_details()
model.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
model.invoke()
with open("/proc/self/status") as status:
    print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


def of(*graphs):
    return facts(model_of(*graphs), "it")


def convolutions(side, channels):
    """Return int8 [1, side, side, 3] -> two 3x3 convolutions of so many channels."""
    scale = ((0.05,), (0,))
    tensors = [T("image", "int8", (1, side, side, 3), None, *scale)]
    steps = []
    for number, given in enumerate((3, channels)):
        kernel = np.ones((channels, 3, 3, given), np.int8)
        many = ((0.01,) * channels, (0,) * channels)
        options = schema.Conv2DOptionsT(padding=schema.Padding.SAME, strideW=1, strideH=1)
        options.dilationWFactor = options.dilationHFactor = 1
        first = len(tensors)
        tensors += [
            T(f"kernel{number}", "int8", kernel.shape, kernel, *many),
            T(f"bias{number}", "int32", (channels,), np.ones(channels, np.int32),
              (0.0005,) * channels, many[1]),
            T(f"made{number}", "int8", (1, side, side, channels), None, *scale),
        ]  # fmt: skip
        steps.append(Op("CONV_2D", (first - 1, first, first + 1), (first + 2,), 3, options))
    return G("main", tuple(tensors), tuple(steps), (0,), (len(tensors) - 1,))


def test_weights_count_twice_and_a_process_has_its_own():
    known = of(convolutions(4, 2))
    rest = memory.process_bytes(known, xnnpack=True) - memory.PROCESS_MIB * memory.MIB
    arena = planned(known.subgraphs[0])
    pointers = 2 * 16 * 9 * 8  # two convolutions, 16 pixels, 9 places, 8 bytes
    assert rest == 2 * known.sizes.total + arena + pointers


@pytest.mark.slow
@pytest.mark.parametrize("package", ["tflite-runtime", "ai-edge-litert"])
@pytest.mark.parametrize(("side", "channels"), [(32, 8), (256, 8), (512, 32)])
def test_a_process_takes_about_what_is_estimated(tmp_path, package, side, channels):
    content = model_of(convolutions(side, channels))
    (tmp_path / "it.tflite").write_bytes(content)
    (tmp_path / "run.py").write_text(RUN)
    command = [*python_with(package), str(tmp_path / "run.py"), str(tmp_path / "it.tflite")]
    done = subprocess.run(
        command, env=environment_with(package), capture_output=True, text=True, check=True
    )
    taken = int(done.stdout.split()[-1]) / 1024
    known = facts(content, "it")
    told = memory.process_bytes(known, xnnpack=package == "ai-edge-litert") / memory.MIB
    assert 0.9 * taken < told < 1.6 * taken
