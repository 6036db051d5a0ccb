"""Hand a compiled model to an Edge TPU, or say in one line why that cannot be.

infer.py calls `load` for a file that Google's compiler made.  A library that is too old for the
runtime ends the process instead of raising an error, so a child process tries it first; where no
child can run, as under an emulator, TFEDGE_NO_PROBE=1 leaves that out.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys

import infer

NO_PROBE = "TFEDGE_NO_PROBE"
_LIBRARIES = {"darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
LIBRARY = _LIBRARIES.get(sys.platform, "libedgetpu.so.1")
_KINDS = {0: "pci", 1: "usb"}  # of edgetpu_c.h
_PROBE_S = 120  # the first model on a USB stick takes seconds
_NO_DELEGATE, _NO_MODEL = 3, 4  # how the child ends
_SEGFAULT = 11


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("path", ctypes.c_char_p))


def load(delegate, flatbuffer, path):
    """Return (what runs it, [the runtime's delegate]) for a compiled model, or a ModelError.

    Args:
      delegate: auto, edgetpu, edgetpu:usb, edgetpu:pci or edgetpu:N.
      path: The model's, for messages.
    """
    asked = re.match(r"(?:auto|edgetpu(?::(usb|pci|\d+))?)$", delegate)
    if not asked:
        said = "--delegate must be auto, cpu, edgetpu, edgetpu:usb, edgetpu:pci or edgetpu:N"
        raise infer.ModelError(f"{said}, got {delegate}")
    if infer._EDGETPU not in flatbuffer:
        said = f"{path}: is not compiled for an Edge TPU; run edgetpu_compiler and tfedge attach on"
        raise infer.ModelError(f"{said} the workstation, or take --delegate cpu")
    chosen = asked.group(1) or ""
    device = ":" + chosen if chosen.isdigit() else chosen
    try:
        _check(chosen, devices())
        if not os.environ.get(NO_PROBE):
            _probe(device, flatbuffer)
        try:
            return "edgetpu" + (f":{chosen}" if chosen else ""), [_delegate(device)]
        except ValueError as error:
            raise infer.ModelError(_taken(error)) from error
    except infer.ModelError as error:
        raise infer.ModelError(f"{path}: needs an Edge TPU: {error}") from error


def unused():
    """Say whether an Edge TPU is there that a model for the CPU leaves idle."""
    try:
        return bool(devices())
    except infer.ModelError:  # no library is the usual state of a board without one
        return False


def devices():
    """Return the kinds of the Edge TPUs that are there, such as ["usb", "usb"]."""
    try:
        library = ctypes.CDLL(LIBRARY)
        create, listed = library.tflite_plugin_create_delegate, library.edgetpu_list_devices
    except OSError as error:
        raise infer.ModelError(_unloadable(infer._line(error))) from error
    except AttributeError as error:
        said = f"{LIBRARY} is another library; install libedgetpu1-std anew"
        raise infer.ModelError(f"{said} ({infer._line(error)})") from error
    del create  # only that it is there counts
    count = ctypes.c_size_t(0)
    listed.restype = ctypes.POINTER(_Device)
    found = listed(ctypes.byref(count))
    kinds = [_KINDS.get(found[number].kind, "other") for number in range(count.value)]
    if found:
        library.edgetpu_free_devices(found)
    return kinds


def _unloadable(said):
    """Return what to do about a library that the loader refuses; `said` is how it puts that."""
    if "cannot open shared object file" in said or "image not found" in said:
        missing = said.split(":")[0]
        if missing == LIBRARY:
            return f"there is no {LIBRARY}; install Coral's libedgetpu1-std"
        return f"{LIBRARY} needs {missing}; install that, such as libusb-1.0-0 ({said})"
    if "ELF" in said or "file too short" in said:
        return f"{LIBRARY} is no library for this processor; install libedgetpu1-std anew ({said})"
    return f"{LIBRARY} does not load on this system; install one that was built for it ({said})"


def _check(chosen, found):
    """Refuse if what is `chosen`, a kind, a number or "", is not among the kinds `found`."""
    if not found:
        raise infer.ModelError("none is there; plug it in, and look for it with lsusb or lspci")
    numbers = [str(number) for number in range(len(found))]
    if chosen and chosen not in found + numbers:
        known = ", ".join(f"{number} ({kind})" for number, kind in zip(numbers, found))
        raise infer.ModelError(f"edgetpu:{chosen} is not there, but {known}; name one of these")


def _taken(error):
    said = "it is there but cannot be opened; end the program that has it, or let this user open"
    # The library mostly gives no reason at all.
    reason = str(error).partition("\n")[2].strip() or "the library says nothing"
    return f"{said} it (groups plugdev, apex) ({' '.join(reason.split())[:300]})"


def _probe(device, flatbuffer):
    """Let a child process load `flatbuffer` onto the device, and translate how it ends."""
    import subprocess

    command = [sys.executable, os.path.abspath(__file__), device]
    try:
        done = subprocess.run(
            command,
            input=flatbuffer,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_S,
        )
    except OSError as error:
        said = f"no child process starts to try it in; set {NO_PROBE}=1 to do without"
        raise infer.ModelError(f"{said} ({infer._line(error)})") from error
    except subprocess.TimeoutExpired as error:
        said = f"it has not answered for {_PROBE_S} s; unplug it and plug it in again"
        raise infer.ModelError(said) from error
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode == -_SEGFAULT:
        runtime, _ = infer.load_runtime()
        problem = f"{LIBRARY} is too old for {runtime}, and crashes; install a newer libedgetpu"
        raise infer.ModelError(f"{problem}, or tflite-runtime 2.5.0.post1 with Python 3.9 or older")
    if done.returncode == _NO_DELEGATE:
        raise infer.ModelError(_taken(said))
    if done.returncode == _NO_MODEL:
        problem = "its library cannot run this file; update libedgetpu, or compile the file again"
        raise infer.ModelError(f"{problem} ({' '.join(said.split())[:300]})")
    if done.returncode:
        problem = f"trying {LIBRARY} ended with status {done.returncode}; install it anew"
        raise infer.ModelError(f"{problem} ({' '.join(said.split())[:300]})")


def _delegate(device):
    """Return the runtime's delegate for `device`: "", usb, pci or :N."""
    _, interpreter = infer.load_runtime()
    return sys.modules[interpreter.__module__].load_delegate(LIBRARY, {"device": device})


def _try(device):
    """Load the model on stdin onto `device`; return the exit status.  A child process does this."""
    _, interpreter = infer.load_runtime()
    try:
        delegate = _delegate(device)
    except ValueError as error:
        print(error)
        return _NO_DELEGATE
    model = sys.stdin.buffer.read()
    try:
        interpreter(model_content=model, experimental_delegates=[delegate]).allocate_tensors()
    except (ValueError, RuntimeError) as error:
        print(error)
        return _NO_MODEL
    return 0


if __name__ == "__main__":
    sys.exit(_try(sys.argv[1]))
