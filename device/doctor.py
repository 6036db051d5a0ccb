"""Say what this board has for running a model, what it lacks, and what to type about that.

`infer.py [MODEL] --doctor` prints what `examine` returns.  A runtime may import well and still die
when it makes its first interpreter, because its numpy or its processor is another one.  So one is
made, in a child process: this file, run by itself.
"""

from __future__ import annotations

import base64
import ctypes
import importlib.util
import json
import os
import platform
import re
import signal
import struct
import subprocess
import sys
import zlib

try:
    from importlib import metadata
except ImportError:  # Python 3.7
    metadata = None

import infer
import numpy as np

ROOT = "/"  # of /proc and /etc
NO_PROBE = "TFEDGE_NO_PROBE"  # set to 1 where no child can be started, as on an emulated board
LIBRARY = "libedgetpu.so.1"
MISSING, BROKEN = "missing", "broken"

_ARM32 = 32
_PILLOW = 8  # the first whose `open` can be told which formats to look for
# What pip finds (Python from, to, glibc at least), on 64 bits (x86, Arm) and on 32 bits (Arm v7).
_WHEELS = {
    64: (
        ((3, 10), (3, 14), (2, 27), "ai-edge-litert numpy pillow"),
        ((3, 9), (3, 12), (2, 17), "ai-edge-litert==1.4.0 numpy pillow"),
        ((3, 7), (3, 8), (2, 17), 'tflite-runtime "numpy<2" pillow'),
    ),
    _ARM32: (
        ((3, 7), (3, 10), (2, 17), 'tflite-runtime "numpy<2"'),
        ((3, 11), (3, 11), (2, 34), 'tflite-runtime "numpy<2"'),
    ),
}
_APT = "numpy and Pillow for 32 bits come from apt: sudo apt install python3-numpy python3-pil"
_PROBE_S = 300  # a child that has not answered by then hangs
# relu(x), float32 [1]: a whole .tflite in 296 bytes.
_TINY = (
    b"eNptj7EOwiAURY/WwVTSkJShgx/RxH8wHTo4+AOODjrr//Y/8AJPQxohZ7jwziUMwPU8n6Aj4HHsdbJTQgmOYhGN2Ihy"
    b"m3bJgbQ6hp9d3GDuJGZxyR48bvcn5vrstrLIXmv9zu6/8CdvxWidS4yx9t7VrLMfpUm36n+ter3NH6r5vjzXfwCHSgwb"
)


def examine(path=None):
    """Look at this board; return (facts, whether nothing is wrong).

    Args:
      path: A model that the interpreter is made for, or None for a tiny one of its own.

    Returns:
      Facts are all JSON.  "findings" is a line for each thing that is wrong, with its remedy;
      "install" the pip line that this board needs, "" where there is none for it.
    """
    if path and not os.path.isfile(path):
        raise infer.ModelError(f"{path}: there is no such file; look at the path")
    bits = 8 * struct.calcsize("P")  # of this Python: a 64-bit kernel runs 32-bit systems too
    machine, libc = platform.machine(), glibc()
    line, otherwise = install(sys.version_info[:2], machine, bits, libc)
    facts = {"python": platform.python_version(), "machine": machine, "bits": bits}
    facts["glibc"] = ".".join(map(str, libc)) or MISSING
    facts.update(_board())
    facts["cores"] = len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))
    facts["numpy"] = np.__version__
    facts["pillow"], pillow = _pillow(bits)
    facts["runtimes"] = {name: _version(name) for name in infer.RUNTIMES if _present(name)}
    facts["edgetpu"], edge_tpu = edge_tpus()
    if facts["runtimes"]:
        answer = (probe if os.environ.get(NO_PROBE) == "1" else _probed_in_a_child)(path)
    else:
        answer = {"problem": "no TFLite runtime is installed"}
    if "problem" in answer:
        from_apt = f"; {_APT}" if line and bits == _ARM32 else ""
        remedy = (line or otherwise) + from_apt
        answer["finding"] = f"{answer.pop('problem')}; {remedy}"
    interpreter = answer.pop("finding", "")
    facts.update(answer, interpreter="fails" if interpreter else "works")
    findings = [each for each in (interpreter, pillow, edge_tpu) if each]
    facts.update(findings=findings, install=line)
    return facts, not findings


def install(python, machine, bits, libc):
    """Return (the pip line for such a board, "") or ("", what to do as there is none).

    Args:
      python: (major, minor), as `libc`, glibc's version, is: () where there is another libc.
      machine: As the kernel names it.
      bits: Of Python, 64 or 32.
    """
    if not libc:
        return "", "no TFLite runtime is built for a system without glibc: take Debian or its like"
    known = r"aarch64|x86_64" if bits != _ARM32 else r"aarch64|armv[78].*"
    if not re.fullmatch(known, machine):
        return "", f"no TFLite runtime is built for {machine}: take a Pi 3, a Zero 2 or a later one"
    for first, last, least, names in _WHEELS[bits]:
        if first <= python <= last and libc >= least:
            return f"pip install {names}", ""
    said = f"no TFLite runtime is built for {bits} bits, Python {python[0]}.{python[1]}"
    said += f" and glibc {libc[0]}.{libc[1]}"
    return "", f"{said}: take Python 3.10 to 3.14 on a 64-bit system"


def glibc():
    """Return the C library's version, (2, 36), or () where it is another one."""
    try:
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
    except (AttributeError, ValueError, OSError):
        return ()
    return tuple(map(int, version.split(".")[:2])) if name == "glibc" else ()


def edge_tpus():
    """Return ({library, devices}, what is wrong with the library or "")."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        if str(error).startswith(f"{LIBRARY}: cannot open"):
            return {"library": MISSING}, ""
        problem = f"the Edge TPU's library does not load ({infer._line(error)})"
        return {"library": BROKEN}, f"{problem}; install it and libusb-1.0-0 again"
    count = ctypes.c_size_t()
    try:
        library.edgetpu_list_devices.restype = ctypes.c_void_p
        devices = library.edgetpu_list_devices(ctypes.byref(count))
        library.edgetpu_free_devices(ctypes.c_void_p(devices))
    except AttributeError:
        return {"library": BROKEN}, f"{LIBRARY} is not the Edge TPU's library; install that again"
    return {"library": "loads", "devices": count.value}, ""


def probe(path=None):
    """Make an interpreter and run it; return {"runtime": its name and version} if that went well.

    Otherwise return {"finding": a line that says what to do} or {"problem": one that does not yet}.
    """
    try:
        if path:
            model = infer.Classifier(path)
            model.classify(np.full(model.shape, 128, model.dtype))
            return {"runtime": model.runtime}
        runtime, interpreter = infer.load_runtime()
    except infer.ModelError as error:
        return {"finding": str(error)}
    try:
        made = interpreter(model_content=zlib.decompress(base64.b64decode(_TINY)))
        made.allocate_tensors()
        made.set_tensor(made.get_input_details()[0]["index"], np.float32([0.5]))
        made.invoke()
        answer = made.get_tensor(made.get_output_details()[0]["index"]).tolist()
    except (ValueError, RuntimeError, SystemError) as error:
        return {"problem": f"{runtime} cannot make an interpreter ({infer._line(error)})"}
    if answer != [0.5]:
        return {"problem": f"{runtime} answers {answer} instead of [0.5]"}
    return {"runtime": runtime}


def _probed_in_a_child(path):
    """Return what `probe` does, or how the child died that ran it."""
    command = [sys.executable, os.path.abspath(__file__)] + ([os.fspath(path)] if path else [])
    try:
        child = subprocess.run(command, capture_output=True, check=False, timeout=_PROBE_S)
    except OSError as error:
        return {"finding": f"no child process starts ({infer._line(error)}); set {NO_PROBE}=1"}
    except subprocess.TimeoutExpired:
        return {"problem": f"making an interpreter hangs: no answer in {_PROBE_S} s"}
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        return {"problem": f"making an interpreter kills Python ({name})"}
    try:
        return json.loads(child.stdout.decode().splitlines()[-1])
    except (ValueError, IndexError):
        said = child.stderr.decode(errors="replace").strip().splitlines() or ["nothing was said"]
        return {"problem": f"making an interpreter fails ({said[-1][:300]})"}


def _board():
    """Return {board, system, memory_mib, memory_free_mib}, what is known of it."""
    known = {
        "board": ("proc/device-tree/model", r"([^\0]+)", str),
        "system": ("etc/os-release", r'(?m)^PRETTY_NAME="?([^"\n]+)', str),
        "memory_mib": ("proc/meminfo", r"MemTotal:\s*(\d+)", lambda kb: int(kb) // 1024),
        "memory_free_mib": ("proc/meminfo", r"MemAvailable:\s*(\d+)", lambda kb: int(kb) // 1024),
    }
    facts = {}
    for key, (file, pattern, read) in known.items():
        try:
            with open(os.path.join(ROOT, file), encoding="utf-8", errors="replace") as stream:
                found = re.search(pattern, stream.read())
        except OSError:
            continue
        if found:
            facts[key] = read(found.group(1))
    return facts


def _pillow(bits):
    """Return (Pillow's version, "") or ("missing" or "broken", what to do)."""
    remedy = "sudo apt install python3-pil" if bits == _ARM32 else "pip install pillow"
    if importlib.util.find_spec("PIL") is None:
        return MISSING, f"reading pictures needs Pillow; {remedy}"
    try:
        import PIL
        import PIL.Image  # a wheel from elsewhere may lack a library, such as libopenjp2.so.7
    except ImportError as error:
        return BROKEN, f"Pillow does not load ({infer._line(error)}); {remedy}, or that library"
    if int(PIL.__version__.split(".")[0]) < _PILLOW:
        return PIL.__version__, f'Pillow {PIL.__version__} is too old; pip install "pillow>=8"'
    return PIL.__version__, ""


def _present(runtime):
    return importlib.util.find_spec(runtime.replace("-", "_")) is not None


def _version(package):
    try:
        return metadata.version(package)
    except (AttributeError, ImportError):  # no `metadata`, or none of this package
        return "of unknown version"


if __name__ == "__main__":
    print(json.dumps(probe(*sys.argv[1:])))
