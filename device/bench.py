"""Time a model on the board that runs it, part by part, and say whether the figures can be trusted.

`infer.py MODEL [PICTURE] --bench N` prints what `run` returns.  A Pi that is too warm or starved of
current runs slower and says so; figures from then are marked.  Every source below is optional: what
this board cannot tell is absent, never 0.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import threading
import time

try:
    import fcntl
except ImportError:  # not on Windows, which has no I2C either
    fcntl = None

import infer
import numpy as np

ROOT = "/"  # of /sys, /proc and /dev
PARTS = ("decode", "preprocess", "invoke", "postprocess", "total")
NOT_MEASURED = "not measured"
ENERGY_S = 2  # the least time that energy is measured over
SAMPLE_S = 0.1  # between two readings of power; each starts a process on a Pi 5

# `vcgencmd get_throttled`: bits 0 to 3 are so now, 16 to 19 the same since the board was started.
_THROTTLED = ("under-voltage", "clock capped", "throttled", "too hot")
_SINCE_BOOT = 16
_CPU = "sys/devices/system/cpu/cpu0/cpufreq/"
_RAPL = "sys/class/powercap/intel-rapl:0/"
_INA219_SHUNT_OHM = 0.1  # what the usual modules carry, at their usual address
_INA219_ADDRESS, _I2C_SLAVE = 0x40, 0x0703  # the latter is the ioctl of linux/i2c-dev.h
# Other chips have that address too; this one's first register says: not in reset, bit 14 unused,
# measures volts and amperes all the time.
_INA219_MASK, _INA219_RUNS = 0xC007, 0x0007
# How it shows that a source is not there, or answers something else.
_ABSENT = (OSError, ValueError, IndexError, struct.error, subprocess.SubprocessError)


def run(model, runs, path=None, inputs=()):
    """Time `runs` answers of `model`, after a tenth as many for warming up.

    Args:
      path: A picture to decode anew each time, or a .npy of what the model takes, read once; None
        for a made-up input.
      inputs: Of a network with exits, the inputs whose exits are counted: names as on the command
        line.  Where a folder is named by a class, that is the right answer.

    Returns:
      {load_ms, first_ms, decode_p50_ms, ..., total_p99_ms, memory_mib, memory_peak_mib, xnnpack,
      before, after, valid, invalid_because, energy_mj, energy_source}.  The parts of one answer
      add up to its total; decode is there where a picture is.  Of a network with exits also what
      `exits` returns.

    Raises:
      ImageError: `path` cannot be read.
      ModelError: It holds what the model does not take.
    """
    read, decodes = _source(model, path)
    before = board()
    x, start = read(), time.perf_counter()
    model.classify(x)
    figures = {"load_ms": model.load_ms, "first_ms": 1e3 * (time.perf_counter() - start)}
    times = _times(model, read, runs + runs // 10)[-runs:]
    after = board()
    for q in (50, 90, 95, 99):
        values = 1e3 * np.percentile(times, q, axis=0)
        named = list(zip(PARTS, values.tolist()))
        figures.update((f"{part}_p{q}_ms", value) for part, value in named[not decodes :])
    figures = {key: round(value, 4) for key, value in figures.items()}
    figures.update(_memory(), xnnpack=xnnpack(model), before=before, after=after)
    problem = invalid_because(before, after)
    figures.update({"valid": False, "invalid_because": problem} if problem else {"valid": True})
    if hasattr(model, "left"):
        figures["exits"] = exits(model, x, runs, inputs)
    joules, source = energy(lambda: model.classify(read()))
    figures.update({} if joules is None else {"energy_mj": round(1e3 * joules, 4)})
    figures["energy_source"] = source
    return figures


def exits(model, x, runs, inputs=()):
    """Time each exit of a `Staged`, and count which of them answers.

    Returns:
      {exit_0: {p50_ms, p99_ms, share, accuracy}, ..., mean_ms, inputs, accuracy}.  The times are
      of answers at that exit to `x`, which is in memory; mean_ms is that of the answers to
      `inputs`, without reading them.  What `inputs` cannot tell is absent.
    """
    figures = {}
    for number, name in enumerate(model.names):
        times = []
        with model.only(number):
            for turn in range(runs + runs // 10):
                start = time.perf_counter()
                model.classify(x)
                times[turn:] = [1e3 * (time.perf_counter() - start)]
        p50, p99 = np.percentile(times[-runs:], (50, 99)).tolist()
        figures[name] = {"p50_ms": round(p50, 4), "p99_ms": round(p99, 4)}
    answers = np.array(list(_answers(model, inputs)), np.float64).reshape(-1, 3)
    if not len(answers):
        return figures
    taken, took, right = answers.T
    for number, name in enumerate(model.names):
        figures[name]["share"] = round(float((taken == number).mean()), 4)
        figures[name].update(_accuracy(right[taken == number]))
    mean_ms = round(1e3 * float(took.mean()), 4)
    return {**figures, "mean_ms": mean_ms, "inputs": len(answers), **_accuracy(right)}


def board():
    """Return what is known of {temperature_c, clock_mhz, governor, throttled} now."""
    state = {}
    for key, file, read in (
        ("temperature_c", "sys/class/thermal/thermal_zone0/temp", lambda text: int(text) / 1e3),
        ("clock_mhz", _CPU + "scaling_cur_freq", lambda text: int(text) / 1e3),
        ("governor", _CPU + "scaling_governor", str),
    ):
        with contextlib.suppress(*_ABSENT):
            state[key] = read(_text(file))
    with contextlib.suppress(*_ABSENT):
        state["throttled"] = hex(int(_vcgencmd("get_throttled").partition("=")[2], 16))
    return state


def invalid_because(before, after):
    """Say why figures taken between two states of the board tell nothing of it; "" if they do."""
    flags = [int(state.get("throttled", "0"), 16) for state in (before, after)]
    # What has occurred since the start counts if it had not occurred when the run began.
    during = flags[0] | flags[1] | (flags[1] & ~flags[0]) >> _SINCE_BOOT
    found = [name for bit, name in enumerate(_THROTTLED) if during >> bit & 1]
    if not found:
        return ""
    return f"{', '.join(found)}; cool the board, or take its own power supply, and run again"


def xnnpack(model):
    """Say whether XNNPACK took (part of) the graph; None where the runtime cannot tell."""
    details = getattr(model._interpreter, "_get_ops_details", None)
    if details is None or getattr(model, "delegate", "cpu") != "cpu":
        return None
    return any(node["op_name"] == "DELEGATE" for node in details())


def energy(work):
    """Return (joules a call of `work`, where from), or (None, "not measured").

    All that the board draws meanwhile counts, what it draws idle included.  It has a pass of its
    own, so that reading the power does not slow down what is timed.
    """
    for source, watts in (
        (f"INA219 on I2C, its shunt taken as {_INA219_SHUNT_OHM} ohm", _ina219_watts),
        ("the Pi 5's own rails, without USB and losses", _pmic_watts),
    ):
        if _readable(watts):
            mean, calls, seconds = _sampled(watts, work)
            return mean * seconds / calls, source
    if _readable(_rapl_joules):
        before, wraps_at = _rapl_joules()
        calls, _ = _repeated(work)
        return (_rapl_joules()[0] - before) % wraps_at / calls, "RAPL, the processor's package"
    return None, NOT_MEASURED


def _source(model, path):
    """Return (a function that reads what the model takes, whether it decodes a picture)."""
    entry = model.card["input"]
    if path is None:
        made_up = np.full(model.shape, 128, model.dtype)
        return lambda: made_up, False
    if entry["kind"] == "image" and not os.fspath(path).lower().endswith((".npy", ".npz")):
        read = lambda: infer.read_image(path, model.shape, entry["resize"], entry["fit"])
        return read, True
    items = infer._beside("feeds", "--bench of arrays").arrays(model, os.fspath(path))
    _, read = next(items, (path, infer.ImageError(f"{path}: holds no input")))
    if isinstance(read, infer.ImageError):
        raise read
    x = read()
    return lambda: x, False


def _answers(model, inputs):
    """Yield (exit, seconds, whether it is right or NaN where that is not known) of each input."""
    console = infer._beside("console")
    for path in infer.paths(inputs, console.suffixes(model)):
        wanted = os.path.basename(os.path.dirname(os.path.abspath(path)))
        for _, read in console.items(model, path):
            with contextlib.suppress(infer.ImageError):  # a bad picture is none of them
                if isinstance(read, infer.ImageError):
                    raise read
                x, start = read(), time.perf_counter()
                (label, _), *_ = model.classify(x)
                seconds = time.perf_counter() - start
                yield model.answered, seconds, label == wanted if wanted in model.labels else np.nan


def _accuracy(right):
    """Return {accuracy} over those of which it is known."""
    known = right[~np.isnan(right)]
    return {"accuracy": round(float(known.mean()), 4)} if len(known) else {}


def _times(model, read, count):
    """Return the seconds of `count` answers, float64 [count, parts].

    What is timed is the very `classify` that answers: its `quantise` and its `invoke` note the time
    when they are done.
    """
    stamps = []

    def stamped(function):
        def timed(*given):
            result = function(*given)
            stamps.append(time.perf_counter())
            return result

        return timed

    read, answer = stamped(read), stamped(model.classify)
    model.quantise, model.invoke = stamped(model.quantise), stamped(model.invoke)
    try:
        for _ in range(count):
            stamps.append(time.perf_counter())
            answer(read())
    finally:
        del model.quantise, model.invoke  # the class's own come forth again
    parts = np.diff(np.reshape(stamps, (count, len(PARTS))))
    return np.column_stack([parts, parts.sum(axis=1)])


def _memory():
    """Return what this process holds of the memory, in MiB, and the most that it held."""
    memory = {}
    with contextlib.suppress(*_ABSENT):
        status = _text("proc/self/status")
        for key, name in (("memory_mib", "VmRSS"), ("memory_peak_mib", "VmHWM")):
            memory[key] = round(int(re.findall(rf"(?m)^{name}:\s*(\d+) kB", status)[0]) / 1024, 2)
    return memory


def _sampled(watts, work):
    """Return (mean of `watts()` while `work` is repeated, calls, seconds)."""
    samples, done = [watts()], threading.Event()

    def sample():
        while not done.wait(SAMPLE_S):
            with contextlib.suppress(*_ABSENT):  # a reading that failed is one fewer
                samples.append(watts())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        calls, seconds = _repeated(work)
    finally:
        done.set()
        thread.join()
    samples = samples[1:] or samples  # the first is from before
    return sum(samples) / len(samples), calls, seconds


def _repeated(work):
    """Call `work` for `ENERGY_S`, once at least; return (calls, seconds)."""
    start, calls, seconds = time.perf_counter(), 0, 0.0
    while not calls or seconds < ENERGY_S:
        work()
        calls, seconds = calls + 1, time.perf_counter() - start
    return calls, seconds


def _readable(source):
    try:
        source()
    except _ABSENT:
        return False
    return True


def _rapl_joules():
    """Return (joules that the package has used, where that counter starts again)."""
    return [int(_text(_RAPL + name)) / 1e6 for name in ("energy_uj", "max_energy_range_uj")]


def _pmic_watts():
    """Return what the rails that a Pi 5's power chip measures carry together."""
    rails = {}
    said = _vcgencmd("pmic_read_adc")  # VDD_CORE_A current(7)=1.0A ... VDD_CORE_V volt(15)=0.8V
    for rail, unit, value in re.findall(r"(\w+)_([AV])\s+\w+\(\d+\)=(\d+\.\d+)\2", said):
        rails.setdefault(rail, {})[unit] = float(value)
    watts = [rail["A"] * rail["V"] for rail in rails.values() if len(rail) > 1]
    if not watts:
        raise ValueError("no rail with both volts and amperes")
    return sum(watts)


def _ina219_watts():
    """Return what an INA219 in the supply line measures."""
    if fcntl is None:
        raise OSError("no I2C here")
    with open(os.path.join(ROOT, "dev/i2c-1"), "r+b", buffering=0) as bus:
        fcntl.ioctl(bus, _I2C_SLAVE, _INA219_ADDRESS)
        return _ina219_power(bus)


def _ina219_power(bus):
    """Return volts times amperes from the chip's registers (its data sheet, section 8.6)."""

    def register(number, form):
        bus.write(bytes([number]))
        return struct.unpack(form, bus.read(2))[0]

    if register(0, ">H") & _INA219_MASK != _INA219_RUNS:
        raise ValueError("no INA219, or one that is switched off")
    amperes = register(1, ">h") * 10e-6 / _INA219_SHUNT_OHM
    return (register(2, ">H") >> 3) * 4e-3 * abs(amperes)  # below 0 if wired the other way round


def _vcgencmd(question):
    """Return what a Raspberry Pi's firmware answers."""
    command = ["vcgencmd", question]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=True
    )
    return done.stdout.decode()


def _text(file):
    with open(os.path.join(ROOT, file)) as stream:
        return stream.read().strip()
