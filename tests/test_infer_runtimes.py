from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from tiny_board import script


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Have importlib find no runtime but those that the test writes as {module: source}."""

    def put(**sources):
        folder = tmp_path / "packages"
        for name in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
            for loaded in [each for each in sys.modules if each.split(".")[0] == name]:
                monkeypatch.delitem(sys.modules, loaded)
        for name, source in sources.items():
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text(source)
            (folder / name / "interpreter.py").write_text("class Interpreter: pass")
        monkeypatch.setattr(sys, "path", [str(folder)])
        monkeypatch.setattr(sys, "path_importer_cache", {})

    return put


def test_no_runtime_says_what_to_install(infer, packages):
    packages()
    with pytest.raises(
        infer.ModelError, match=r"no TFLite runtime found.*pip install ai-edge-lite"
    ):
        infer.load_runtime()


def test_tflite_runtime_with_numpy_2_says_what_to_install(infer, packages, monkeypatch):
    packages(tflite_runtime="raise SystemError('must not be imported')")
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(infer.ModelError, match=r'with numpy 2\.1\.0: pip install "numpy<2"'):
        infer.load_runtime()


def test_tflite_runtime_with_numpy_1_is_taken(infer, packages, monkeypatch):
    packages(tflite_runtime="__version__ = '2.14.0'", tensorflow="")
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert infer.load_runtime()[0] == "tflite-runtime 2.14.0"


def test_a_runtime_that_does_not_load_gives_way_to_the_next(infer, packages, monkeypatch):
    broken = "raise ImportError('libc.so.6: version GLIBC_2.34 not found')"
    packages(ai_edge_litert=broken, tflite_runtime="")
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert infer.load_runtime()[0] == "tflite-runtime"
    monkeypatch.setenv("TFEDGE_RUNTIME", "ai-edge-litert")
    with pytest.raises(infer.ModelError, match=r"does not load; install it again.*GLIBC_2.34"):
        infer.load_runtime()


def test_a_forced_runtime_that_is_missing_says_what_to_install(infer, packages, monkeypatch):
    packages(ai_edge_litert="")
    monkeypatch.setenv("TFEDGE_RUNTIME", "tflite-runtime")
    with pytest.raises(infer.ModelError, match="pip install tflite-runtime"):
        infer.load_runtime()


def test_an_unknown_forced_runtime_is_refused(answer, model, monkeypatch):
    monkeypatch.setenv("TFEDGE_RUNTIME", "torch")
    status, _, err = answer(model, "a.jpg")
    assert status == 2
    assert "TFEDGE_RUNTIME: must be one of ai-edge-litert, tflite-runtime, tensorflow" in err


@pytest.mark.slow
def test_tensorflow_answers_too(model, photos):
    environment = {**os.environ, "TFEDGE_RUNTIME": "tensorflow"}
    done = script(model, photos / "a.jpg", env=environment)
    assert (done.returncode, done.stdout) == (0, script(model, photos / "a.jpg").stdout)
