from __future__ import annotations

import base64
import json
import os
import platform
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import flatbuffers
import numpy as np
import PIL
import pytest
from ai_edge_litert import schema_py_generated as schema
from beside import beside
from tiny_model import _code, _tensor, card_for, tiny_model, with_card

INSTALL = "pip install ai-edge-litert numpy pillow"  # what the tests' own Python needs


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    """The module, on a machine whose /proc and /etc are empty."""
    module = beside("doctor")
    monkeypatch.setattr(module, "ROOT", str(tmp_path / "root"))
    monkeypatch.delenv("TFEDGE_NO_PROBE", raising=False)
    return module


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Put modules before the installed ones, here and in a child: {name: its source}."""
    folder = tmp_path / "packages"

    def write(**modules):
        for name, source in modules.items():
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text("__version__ = '9.9'\n")
            (folder / name / "interpreter.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")

    return write


def interpreter_that(statement):
    return f"import os\nclass Interpreter:\n    def __init__(self, **given):\n        {statement}\n"


def write(folder: Path) -> Path:
    flatbuffer = tiny_model()
    file = folder / "model.tflite"
    file.write_bytes(with_card(flatbuffer, card_for(flatbuffer)))
    return file


# --- a board that is well


def test_this_machine_is_well_and_says_what_it_is(doctor):
    facts, ok = doctor.examine()
    assert (ok, facts["findings"], facts["interpreter"]) == (True, [], "works")
    assert facts["python"] == platform.python_version()
    assert facts["machine"] == platform.machine()
    assert facts["bits"] == (64 if sys.maxsize > 2**32 else 32)
    assert facts["glibc"] == platform.libc_ver()[1]
    assert (facts["numpy"], facts["pillow"]) == (np.__version__, PIL.__version__)
    assert facts["runtime"] == f"ai-edge-litert {facts['runtimes']['ai-edge-litert']}"
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["install"] == INSTALL


def test_all_of_it_is_json(doctor):
    facts, _ = doctor.examine()
    assert json.loads(json.dumps(facts)) == facts


def test_board_system_and_memory_are_read_where_linux_has_them(doctor, tmp_path):
    root = tmp_path / "root"
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "proc/device-tree/model").write_bytes(b"Raspberry Pi Zero 2 W Rev 1.0\0")
    (root / "proc/meminfo").write_text("MemTotal:  436992 kB\nMemAvailable: 262144 kB\n")
    (root / "etc/os-release").write_text('NAME="x"\nPRETTY_NAME="Debian 13 (trixie)"\n')
    facts, _ = doctor.examine()
    assert facts["board"] == "Raspberry Pi Zero 2 W Rev 1.0"
    assert facts["system"] == "Debian 13 (trixie)"
    assert (facts["memory_mib"], facts["memory_free_mib"]) == (426, 256)


def test_what_linux_does_not_say_is_absent(doctor):
    facts, ok = doctor.examine()
    assert ok
    assert not {"board", "system", "memory_mib", "memory_free_mib"} & set(facts)


def test_the_given_model_is_what_the_interpreter_is_made_for(doctor, tmp_path):
    facts, ok = doctor.examine(write(tmp_path))
    assert (ok, facts["interpreter"]) == (True, "works")


def test_a_model_that_cannot_be_used_is_found(doctor, tmp_path):
    file = write(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    facts, ok = doctor.examine(file)
    assert (ok, facts["interpreter"]) == (False, "fails")
    (finding,) = facts["findings"]
    assert finding.startswith(f"{file}: has no card or was cut off; copy it again")


def test_the_model_of_its_own_is_a_relu_of_the_runtimes_own_schema(doctor):
    none = None
    buffers, graph, model = [schema.BufferT()], schema.SubGraphT(), schema.ModelT()
    float32 = schema.TensorType.FLOAT32
    graph.name, graph.inputs, graph.outputs = "main", [0], [1]
    graph.tensors = [_tensor(buffers, name, float32, (1,), none, none) for name in "xy"]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph.operators = [operator]
    model.version, model.subgraphs, model.buffers = 3, [graph], buffers
    model.operatorCodes = [_code(schema.BuiltinOperator.RELU, version=1)]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    assert zlib.decompress(base64.b64decode(doctor._TINY)) == bytes(builder.Output())


# --- a runtime that is not


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGILL", "SIGABRT"])
def test_a_runtime_that_kills_python_is_told_from_outside(doctor, packages, name):
    packages(ai_edge_litert=interpreter_that(f"import signal; os.kill(os.getpid(), signal.{name})"))
    facts, ok = doctor.examine()
    assert (ok, facts["interpreter"]) == (False, "fails")
    assert facts["findings"] == [f"making an interpreter kills Python ({name}); {INSTALL}"]
    assert "runtime" not in facts


@pytest.mark.slow
def test_a_runtime_that_imports_but_makes_no_interpreter_is_found(doctor, packages):
    # As ai-edge-litert 1.0.1 does with numpy 2.
    said = "<built-in method CreateWrapperFromBuffer> returned a result with an exception set"
    packages(ai_edge_litert=interpreter_that(f"raise SystemError({said!r})"))
    facts, ok = doctor.examine()
    assert not ok
    (finding,) = facts["findings"]
    assert finding == f"ai-edge-litert 9.9 cannot make an interpreter ({said}); {INSTALL}"


@pytest.mark.slow
def test_a_runtime_that_answers_wrongly_is_found(doctor, packages):
    packages(
        ai_edge_litert="import numpy as np\n"
        "class Interpreter:\n"
        "    def __init__(self, **given): pass\n"
        "    def __getattr__(self, name): return lambda *given: [{'index': 0}]\n"
        "    def get_tensor(self, index): return np.float32([7])\n"
    )
    facts, ok = doctor.examine()
    assert not ok
    assert facts["findings"][0].startswith("ai-edge-litert 9.9 answers [7.0] instead of [0.5]; pip")


@pytest.mark.slow
def test_a_child_that_ends_without_a_word_is_found(doctor, packages):
    packages(ai_edge_litert=interpreter_that("os._exit(3)"))
    facts, ok = doctor.examine()
    assert not ok
    assert facts["findings"][0].startswith("making an interpreter fails (nothing was said); pip")


@pytest.mark.slow
def test_a_child_that_ends_with_an_error_passes_its_last_line_on(doctor, packages):
    packages(ai_edge_litert=interpreter_that("raise KeyError('odd')"))
    facts, ok = doctor.examine()
    assert not ok
    assert facts["findings"][0].startswith("making an interpreter fails (KeyError: 'odd'); pip")


def test_numpy_2_under_tflite_runtime_is_found(doctor, packages, monkeypatch):
    packages(tflite_runtime=interpreter_that("pass"))
    monkeypatch.setenv("TFEDGE_RUNTIME", "tflite-runtime")
    monkeypatch.setattr(np, "__version__", "2.1.0")
    monkeypatch.setenv("TFEDGE_NO_PROBE", "1")
    monkeypatch.syspath_prepend(os.environ["PYTHONPATH"].split(":")[0])
    facts, ok = doctor.examine()
    assert not ok
    assert facts["findings"] == [
        'tflite-runtime cannot work with numpy 2.1.0: pip install "numpy<2"'
    ]


def test_no_runtime_at_all_says_what_to_install(doctor, monkeypatch):
    monkeypatch.setattr(doctor.infer, "RUNTIMES", ("no-such-runtime",))
    facts, ok = doctor.examine()
    assert (ok, facts["runtimes"]) == (False, {})
    assert facts["findings"] == [f"no TFLite runtime is installed; {INSTALL}"]


def test_where_no_runtime_is_built_that_is_the_remedy(doctor, monkeypatch):
    monkeypatch.setattr(doctor.infer, "RUNTIMES", ("no-such-runtime",))
    monkeypatch.setattr(doctor.platform, "machine", lambda: "riscv64")
    facts, ok = doctor.examine()
    assert (ok, facts["install"]) == (False, "")
    assert facts["findings"][0].startswith(
        "no TFLite runtime is installed; no TFLite runtime is built for riscv64: take a Pi 3"
    )


# --- where no child can be started


def test_without_a_child_the_interpreter_is_made_here(doctor, monkeypatch):
    monkeypatch.setenv("TFEDGE_NO_PROBE", "1")
    monkeypatch.setattr(doctor.subprocess, "run", None)
    facts, ok = doctor.examine()
    assert (ok, facts["interpreter"]) == (True, "works")


def test_a_board_that_starts_no_child_says_how_to_do_without(doctor, tmp_path, monkeypatch):
    # As an emulated board has it: its Python is not a program that the kernel runs.
    foreign = tmp_path / "python3"
    foreign.write_bytes(b"\x7fELF")
    foreign.chmod(0o755)
    monkeypatch.setattr(doctor.sys, "executable", str(foreign))
    facts, ok = doctor.examine()
    assert not ok
    assert facts["findings"] == [
        "no child process starts (Exec format error); set TFEDGE_NO_PROBE=1"
    ]


# --- Pillow, the Edge TPU


def test_without_pillow_it_says_how_to_install_it(doctor, monkeypatch):
    find = doctor.importlib.util.find_spec
    absent = lambda name: None if name == "PIL" else find(name)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", absent)
    facts, ok = doctor.examine()
    assert (ok, facts["pillow"], facts["interpreter"]) == (False, "missing", "works")
    assert facts["findings"] == ["reading pictures needs Pillow; pip install pillow"]


def test_a_pillow_that_is_too_old_is_found(doctor, monkeypatch):
    monkeypatch.setattr(PIL, "__version__", "5.4.1")  # Mendel's
    facts, ok = doctor.examine(None)
    assert (ok, facts["pillow"]) == (False, "5.4.1")
    assert facts["findings"] == ['Pillow 5.4.1 is too old; pip install "pillow>=8"']


def test_a_pillow_that_lacks_a_library_is_found(doctor, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)  # importing it raises ImportError
    version, finding = doctor._pillow(32)
    assert version == "broken"
    assert "sudo apt install python3-pil, or that library" in finding


def test_without_an_edge_tpus_library_nothing_is_wrong(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "LIBRARY", "libedgetpu_that_is_not_there.so.1")
    assert doctor.edge_tpus() == ({"library": "missing"}, "")


def test_a_file_that_is_no_library_is_found(doctor, tmp_path, monkeypatch):
    file = tmp_path / "libedgetpu.so.1"
    file.write_bytes(b"not an ELF file at all, but long enough to be looked at" * 10)
    monkeypatch.setattr(doctor, "LIBRARY", str(file))
    facts, finding = doctor.edge_tpus()
    assert facts == {"library": "broken"}
    assert "invalid ELF header" in finding
    assert finding.endswith("install it and libusb-1.0-0 again")


def test_another_library_of_that_name_is_found(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "LIBRARY", "libm.so.6")
    facts, finding = doctor.edge_tpus()
    assert facts == {"library": "broken"}
    assert finding == "libm.so.6 is not the Edge TPU's library; install that again"


@pytest.mark.parametrize("count", [0, 2])
def test_the_librarys_devices_are_counted(doctor, tmp_path, monkeypatch, count):
    source, file = tmp_path / "tpu.c", tmp_path / "libedgetpu.so.1"
    source.write_text(
        "#include <stddef.h>\nstatic int freed, device[2];\n"
        f"void *edgetpu_list_devices(size_t *count) {{ *count = {count}; return device; }}\n"
        "void edgetpu_free_devices(void *devices) { if (devices == device) freed++; }\n"
        "int times_freed(void) { return freed; }\n"
    )
    compiler = shutil.which("cc") or shutil.which("gcc")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", file, source], check=True)
    monkeypatch.setattr(doctor, "LIBRARY", str(file))
    assert doctor.edge_tpus() == ({"library": "loads", "devices": count}, "")
    assert doctor.ctypes.CDLL(str(file)).times_freed() == 1


# --- what to install

DESKTOP = ((3, 11), "x86_64", 64, (2, 36))


@pytest.mark.parametrize(
    ("system", "board", "line"),
    [
        ("Trixie", ((3, 13), "aarch64", 64, (2, 41)), "ai-edge-litert numpy pillow"),
        ("Bookworm", ((3, 11), "aarch64", 64, (2, 36)), "ai-edge-litert numpy pillow"),
        ("Bullseye", ((3, 9), "aarch64", 64, (2, 31)), "ai-edge-litert==1.4.0 numpy pillow"),
        ("Ubuntu 26.04", ((3, 14), "aarch64", 64, (2, 42)), "ai-edge-litert numpy pillow"),
        ("Coral's Mendel", ((3, 7), "aarch64", 64, (2, 28)), 'tflite-runtime "numpy<2" pillow'),
        ("old Ubuntu", ((3, 10), "x86_64", 64, (2, 26)), "ai-edge-litert==1.4.0 numpy pillow"),
        ("a desktop", DESKTOP, "ai-edge-litert numpy pillow"),
        ("Bookworm, 32 bits", ((3, 11), "armv7l", 32, (2, 36)), 'tflite-runtime "numpy<2"'),
        ("the same, 64-bit kernel", ((3, 11), "aarch64", 32, (2, 36)), 'tflite-runtime "numpy<2"'),
        ("Bullseye, 32 bits", ((3, 9), "armv7l", 32, (2, 31)), 'tflite-runtime "numpy<2"'),
    ],
)
def test_each_system_gets_the_line_that_works_there(doctor, system, board, line):
    assert doctor.install(*board) == (f"pip install {line}", ""), system


@pytest.mark.parametrize(
    ("board", "reason"),
    [
        (
            ((3, 13), "armv7l", 32, (2, 41)),
            "built for 32 bits, Python 3.13 and glibc 2.41",
        ),
        (
            ((3, 11), "armv7l", 32, (2, 31)),
            "built for 32 bits, Python 3.11 and glibc 2.31: take",
        ),
        (((3, 15), "aarch64", 64, (2, 43)), "built for 64 bits, Python 3.15 and glibc 2.43"),
        (((3, 11), "armv6l", 32, (2, 36)), "built for armv6l: take a Pi 3, a Zero 2 or a later"),
        (((3, 11), "aarch64", 64, ()), "built for a system without glibc: take Debian"),
    ],
)
def test_where_pip_finds_nothing_it_says_what_to_take_instead(doctor, board, reason):
    line, otherwise = doctor.install(*board)
    assert line == ""
    assert reason in otherwise


def test_a_32_bit_board_without_a_runtime_is_sent_to_apt_for_numpy(doctor, monkeypatch):
    monkeypatch.setattr(doctor.infer, "RUNTIMES", ("no-such-runtime",))
    monkeypatch.setattr(doctor.struct, "calcsize", lambda kind: 4)
    monkeypatch.setattr(doctor.sys, "version_info", (3, 11, 2))
    monkeypatch.setattr(doctor.platform, "machine", lambda: "aarch64")
    facts, _ = doctor.examine()
    assert facts["install"] == 'pip install tflite-runtime "numpy<2"'
    assert facts["findings"][0].endswith("sudo apt install python3-numpy python3-pil")


@pytest.mark.parametrize(("said", "version"), [("glibc 2.36", (2, 36)), ("musl 1.2.5", ())])
def test_the_c_library_is_asked_for_its_version(doctor, monkeypatch, said, version):
    monkeypatch.setattr(doctor.os, "confstr", lambda name: said)
    assert doctor.glibc() == version
