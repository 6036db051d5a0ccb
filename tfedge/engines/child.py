"""Run in a process of its own: one engine, one file, one number of threads.

    python child.py convert ENGINE FROM.tflite TO
    python child.py serve ENGINE FILE THREADS INPUTS.npy

The first writes the file that the engine takes, by the engine's own importer.  The second opens it
and answers the lines on stdin, a JSON object each; see `serve`.  Either may answer ``missing``, the
name of a package that is not installed, or ``failed``, the engine's own words.  It imports nothing
of tfedge and runs on Python 3.8 and later, as the oldest of the engines do.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from typing import Any, Callable

import numpy as np

BLOCK_S = 0.02
"""How long an engine is called in a turn, unless a call takes longer."""
MOST_CALLS = 100
_LONGEST = 300


class LiteRT:
    """Google's runtime of today, and TensorFlow Lite as it was packaged before."""

    needs = ("ai_edge_litert",)
    package = "ai-edge-litert"

    def __init__(self, file: str, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._open(Interpreter, file, threads)

    def _open(self, interpreter: Any, file: str, threads: int) -> None:
        self._interpreter = interpreter(model_path=file, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._given = self._interpreter.get_input_details()[0]["index"]
        self._made = self._interpreter.get_output_details()[0]["index"]
        self.again: Callable[[], object] = self._interpreter.invoke

    def answer(self, x: np.ndarray) -> np.ndarray:
        self._interpreter.reset_all_variables()  # an LSTM's state outlives its input
        self._interpreter.set_tensor(self._given, x)
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._made))


class TfliteRuntime(LiteRT):
    """The same interface under the name that it had to 2.14."""

    needs = ("tflite_runtime",)
    package = "tflite-runtime"

    def __init__(self, file: str, threads: int) -> None:
        from tflite_runtime.interpreter import Interpreter

        self._open(Interpreter, file, threads)


class OnnxRuntime:
    """ONNX Runtime's kernels for processors; the file is made by tf2onnx."""

    needs = ("onnxruntime", "tf2onnx")
    package = "onnxruntime"

    def __init__(self, file: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(file, options, providers=providers)
        self._binding = self._session.io_binding()
        self._given = self._session.get_inputs()[0].name
        self._made = self._session.get_outputs()[0].name

    def answer(self, x: np.ndarray) -> np.ndarray:
        self._binding.bind_cpu_input(self._given, x)
        self._binding.bind_output(self._made)
        self.again()
        return np.asarray(self._binding.copy_outputs_to_cpu()[0])

    def again(self) -> None:
        self._session.run_with_iobinding(self._binding)

    @staticmethod
    def convert(file: str, to: str) -> None:
        import onnxruntime  # noqa: F401 - before a minute's work, not after it
        import tf2onnx.convert

        tf2onnx.convert.from_tflite(file, output_path=to)


class OpenVino:
    """OpenVINO on the processor, which reads .tflite itself."""

    needs = ("openvino",)
    package = "openvino"

    def __init__(self, file: str, threads: int) -> None:
        import openvino

        # float32 stays that: by default a processor with bfloat16 computes in it.
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._request = openvino.compile_model(file, "CPU", settings).create_infer_request()
        self.again: Callable[[], object] = self._request.infer

    def answer(self, x: np.ndarray) -> np.ndarray:
        self._request.infer([x])
        return np.array(self._request.get_output_tensor(0).data)


class Tvm:
    """Apache TVM: its TFLite frontend, compiled for this processor by LLVM, not tuned."""

    needs = ("tvm", "tflite")
    package = "apache-tvm"

    def __init__(self, file: str, threads: int) -> None:  # noqa: ARG002 - see TVM_NUM_THREADS
        import tvm

        self._new = tvm.runtime.tensor
        machine = tvm.relax.VirtualMachine(tvm.runtime.load_module(file), tvm.cpu())
        self._main = machine["main"]

    def answer(self, x: np.ndarray) -> np.ndarray:
        self._x = self._new(x)
        made = self._main(self._x)
        return np.asarray((made if hasattr(made, "numpy") else made[0]).numpy())

    def again(self) -> None:
        self._main(self._x)

    @staticmethod
    def convert(file: str, to: str) -> None:
        import tflite
        import tvm
        from tvm.relax.frontend.tflite import from_tflite

        with open(file, "rb") as stream:  # noqa: PTH123 - as the rest of it, without pathlib
            model = tflite.Model.GetRootAsModel(stream.read(), 0)
        processor = tvm.get_global_func("target.llvm_get_system_cpu")()
        target = tvm.target.Target({"kind": "llvm", "mcpu": processor})
        tvm.compile(from_tflite(model), target=target).export_library(to)


class ExecuTorch:
    """PyTorch's runtime for devices, which takes what torch.export and its own exporter made."""

    needs = ("executorch", "torch")
    package = "executorch"

    def __init__(self, file: str, threads: int) -> None:
        import torch
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        self._tensor = torch.from_numpy
        portable_lib._unsafe_reset_threadpool(threads)
        try:
            self._program = Runtime.get().load_program(file)
        except RuntimeError as error:
            raise RuntimeError(f"{error}; it takes .pte files, which torch.export makes") from error
        self._method = self._program.load_method("forward")

    def answer(self, x: np.ndarray) -> np.ndarray:
        self._x = [self._tensor(x)]
        return np.array(self._method.execute(self._x)[0].numpy())

    def again(self) -> None:
        self._method.execute(self._x)


ENGINES: dict[str, Any] = {
    "litert": LiteRT,
    "tflite-runtime": TfliteRuntime,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "tvm": Tvm,
    "executorch": ExecuTorch,
}


def main(arguments: list[str]) -> None:
    """Do what the module's docstring says; every answer is a line on the stdout of the start."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print is not an answer
    sys.stdout = sys.stderr

    def tell(**answer: object) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    # Whatever an engine raises is its message.
    sys.excepthook = lambda _, error, __: tell(failed=said(error))
    work, engine, *rest = arguments
    kind = ENGINES[engine]
    try:
        if work == "convert":
            kind.convert(*rest)
            tell(done=True)
        else:
            serve(kind, rest, tell)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in kind.needs:
            raise
        tell(missing=package)


def serve(kind: Any, arguments: list[str], tell: Callable[..., None]) -> None:
    """Open an engine, say its version, and answer each line on stdin until there is none.

    ``{"answer": FILE}`` writes what it makes of all inputs to that .npy, ``{"turn": SECONDS}``
    calls it for about so long and tells the ``seconds`` that each call took.
    """
    file, threads, inputs = arguments
    opened = kind(file, int(threads))
    given = np.load(inputs)
    opened.answer(given[0])
    tell(version=importlib.metadata.version(kind.package))
    for line in sys.stdin:
        asked = json.loads(line)
        if "answer" in asked:
            np.save(asked["answer"], np.stack([np.array(opened.answer(x)) for x in given]))
            tell(done=True)
        else:
            tell(seconds=turn(opened.again, asked["turn"]))


def turn(call: Callable[[], object], lasting: float) -> list[float]:
    """Return how long each call takes, from 1 to `MOST_CALLS` of them in about `lasting` seconds.

    The first is not counted: it finds the caches full of another engine's weights.
    """
    call()
    took: list[float] = []
    end = time.perf_counter() + lasting
    while not took or (time.perf_counter() < end and len(took) < MOST_CALLS):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return took


def said(error: BaseException) -> str:
    """Return an engine's message in one line."""
    words = " ".join(str(error).split())
    return (f"{type(error).__name__}: {words}" if words else type(error).__name__)[:_LONGEST]


if __name__ == "__main__":
    main(sys.argv[1:])
