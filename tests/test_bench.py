from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
from beside import beside
from PIL import Image
from tiny_model import card_for, tiny_model, with_card

PARTS = ("decode", "preprocess", "invoke", "postprocess")
PMIC = """\
 3V7_WL_SW_A current(0)=0.50000000A
  VDD_CORE_A current(7)=2.00000000A
   3V3_DAC_A current(17)=0.25000000A
 3V7_WL_SW_V volt(8)=4.00000000V
  VDD_CORE_V volt(15)=0.75000000V
   3V3_DAC_V volt(20)=nanV
     EXT5V_V volt(24)=5.10000000V
"""
PMIC_WATTS = 0.5 * 4 + 2 * 0.75  # the two rails of which both is known


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """The module, on a machine that has neither /sys nor /proc nor vcgencmd."""
    module = beside("bench")
    (tmp_path / "root").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(module, "ROOT", str(tmp_path / "root"))
    monkeypatch.setattr(module, "ENERGY_S", 0.02)
    monkeypatch.setattr(module, "SAMPLE_S", 0.005)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    return module


@pytest.fixture
def board(bench, tmp_path):
    """Write the files of a board below its root: {path: text}."""

    def write(**files):
        for name, text in files.items():
            file = tmp_path / "root" / NAMES[name]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")

    return write


NAMES = {
    "temperature": "sys/class/thermal/thermal_zone0/temp",
    "clock": "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
    "governor": "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "status": "proc/self/status",
    "rapl": "sys/class/powercap/intel-rapl:0/energy_uj",
    "rapl_wraps": "sys/class/powercap/intel-rapl:0/max_energy_range_uj",
}


@pytest.fixture
def vcgencmd(tmp_path, bench):
    """Put a vcgencmd on the PATH that answers each question with a text, or with one a call."""

    def install(**answers):
        script = ["#!/bin/sh"]
        for question, said in answers.items():
            for number, text in enumerate([said] if isinstance(said, str) else said):
                (tmp_path / f"{question}.{number}").write_text(f"{text}\n")
            # Its second answer and those after it are the last text.
            script.append(f'[ "$1" = {question} ] && cd {tmp_path} && {{ cat {question}.0')
            script.append(f"[ -e {question}.1 ] && mv {question}.1 {question}.0; exit 0; }}")
        script.append("echo 'error=1 error_msg=\"Command not registered\"'")
        file = tmp_path / "bin" / "vcgencmd"
        file.write_text("\n".join(script))
        file.chmod(0o755)

    return install


def write(folder: Path, shape=(4, 4, 3)) -> Path:
    flatbuffer = tiny_model(shape)
    file = folder / "model.tflite"
    file.write_bytes(with_card(flatbuffer, card_for(flatbuffer, shape)))
    return file


@pytest.fixture
def model(infer, tmp_path):
    return infer.Classifier(write(tmp_path))


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "picture.png"
    Image.fromarray(np.arange(27, dtype=np.uint8).reshape(3, 3, 3)).save(file)
    return file


def slowed(function, seconds):
    def slow(*given):
        result = function(*given)
        time.sleep(seconds)
        return result

    return slow


# --- times


def test_every_part_of_an_answer_to_a_picture_has_its_percentiles(bench, model, picture):
    figures = bench.run(model, 20, picture)
    for part in (*PARTS, "total"):
        values = [figures[f"{part}_p{q}_ms"] for q in (50, 90, 95, 99)]
        assert values == sorted(values), part
        assert values[0] > 0, part
    assert figures["load_ms"] == pytest.approx(model.load_ms, abs=1e-4)
    assert figures["first_ms"] > 0


@pytest.mark.parametrize("slow", PARTS)
def test_time_is_told_of_the_part_that_took_it(bench, infer, model, picture, monkeypatch, slow):
    # Sleeping takes at least as long as it is asked to: 3 ms against some microseconds.
    seconds = 0.003
    # What a part calls last: slow `logits` are late after the model has run.
    of, name = {
        "decode": (infer, "read_image"),
        "preprocess": (infer.Classifier, "quantise"),
        "invoke": (infer.Classifier, "invoke"),
        "postprocess": (infer.Classifier, "logits"),
    }[slow]
    monkeypatch.setattr(of, name, slowed(getattr(of, name), seconds))
    figures = bench.run(model, 5, picture)
    assert figures[f"{slow}_p50_ms"] >= 3
    assert max(PARTS, key=lambda part: figures[f"{part}_p50_ms"]) == slow
    assert figures["total_p50_ms"] >= 3


def test_the_parts_add_up_to_the_total(bench, model, picture):
    figures = bench.run(model, 1, picture)  # of one run, every percentile is that run
    parts = sum(figures[f"{part}_p50_ms"] for part in PARTS)
    assert parts == pytest.approx(figures["total_p50_ms"], abs=4 * 1e-4)


def test_a_tenth_as_many_runs_warm_up_and_are_not_counted(bench, infer, model, monkeypatch):
    calls = []

    def invoke(self, tensor, invoke=infer.Classifier.invoke):
        calls.append(tensor)
        return invoke(self, tensor)

    monkeypatch.setattr(infer.Classifier, "invoke", invoke)
    monkeypatch.setattr(bench, "energy", lambda work: (None, "not measured"))
    bench.run(model, 30)
    assert len(calls) == 1 + 3 + 30  # the very first one is told apart


def test_the_model_is_as_before_when_it_has_been_timed(bench, model):
    before = vars(model).copy()
    bench.run(model, 3)
    assert vars(model) == before


def test_without_a_picture_nothing_is_decoded(bench, model, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 4, 4, 3), np.uint8))
    np.savez(tmp_path / "x.npz", x=np.zeros((5, 4, 4, 3), np.uint8))
    for path in (None, tmp_path / "x.npy", tmp_path / "x.npz"):
        assert not [key for key in bench.run(model, 3, path) if key.startswith("decode")]


def test_the_first_of_a_stack_of_arrays_is_timed(bench, infer, tmp_path, monkeypatch):
    model = infer.Classifier(write(tmp_path, (5, 2)))
    stack = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", stack)
    seen = []

    def quantise(self, x, quantise=infer.Classifier.quantise):
        seen.append(x)
        return quantise(self, x)

    monkeypatch.setattr(infer.Classifier, "quantise", quantise)
    bench.run(model, 2, str(tmp_path / "x.npy"))
    assert all(np.array_equal(x, stack[0]) for x in seen)


@pytest.mark.parametrize("shape", [(9, 9, 3), (0, 4, 4, 3), (4, 3), ()])
def test_arrays_of_another_shape_are_refused(bench, infer, model, tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    says = r"x\.npy: (must be a \.npy of uint8 \(4, 4, 3\).* got uint8|holds no input)"
    with pytest.raises(infer.ImageError, match=says):
        bench.run(model, 3, tmp_path / "x.npy")


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY", b"no array"])
def test_a_file_that_is_no_array_is_named(bench, infer, model, tmp_path, content):
    if content is not None:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(infer.ImageError, match=r"x\.npy: must be a \.npy of uint8 .*: \w"):
        bench.run(model, 3, tmp_path / "x.npy")


def test_a_picture_that_is_none_is_named(bench, infer, model, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(infer.ImageError, match=r"a.jpg: cannot be read as a picture"):
        bench.run(model, 3, tmp_path / "a.jpg")


# --- what else is known


def test_on_a_bare_machine_what_it_cannot_tell_is_absent(bench, model):
    figures = bench.run(model, 3)
    assert (figures["before"], figures["after"], figures["valid"]) == ({}, {}, True)
    assert figures["energy_source"] == "not measured"
    assert not {"energy_mj", "memory_mib", "memory_peak_mib", "invalid_because"} & set(figures)


def test_memory_is_what_the_kernel_says(bench, model, board):
    board(status="VmPeak:\t  900000 kB\nVmHWM:\t   53248 kB\nVmRSS:\t   40960 kB")
    figures = bench.run(model, 3)
    assert (figures["memory_mib"], figures["memory_peak_mib"]) == (40, 52)


def test_memory_of_this_process_is_found_where_linux_has_it(bench, model, monkeypatch):
    monkeypatch.setattr(bench, "ROOT", "/")
    figures = bench.run(model, 3)
    assert 10 < figures["memory_mib"] <= figures["memory_peak_mib"]


def test_temperature_clock_and_governor_are_told(bench, board, vcgencmd):
    board(temperature=51121, clock=1800000, governor="ondemand")
    vcgencmd(get_throttled="throttled=0x50005")
    assert bench.board() == {
        "temperature_c": 51.121,
        "clock_mhz": 1800,
        "governor": "ondemand",
        "throttled": "0x50005",
    }


@pytest.mark.parametrize("said", ["", "throttled=", "VCHI initialization failed", "throttled=?"])
def test_a_firmware_that_answers_something_else_is_as_good_as_none(bench, vcgencmd, said):
    vcgencmd(get_throttled=said)
    assert bench.board() == {}


def test_a_sensor_that_cannot_be_read_is_absent(bench, board, tmp_path):
    board(temperature="")
    (tmp_path / "root" / NAMES["clock"]).mkdir(parents=True)
    assert bench.board() == {}


@pytest.mark.parametrize(
    ("before", "after", "because"),
    [
        (None, None, ""),
        ("0x0", "0x0", ""),
        ("0x50000", "0x50000", ""),  # long ago, not now
        ("0x4", "0x0", "throttled"),  # at the start
        ("0x0", "0x1", "under-voltage"),  # at the end
        ("0x0", "0x40000", "throttled"),  # in between, over again
        ("0x10000", "0xd0000", "throttled, too hot"),  # only what is new counts
        ("0x0", "0x20002", "clock capped"),
        (None, "0x8", "too hot"),
    ],
)
def test_a_run_is_invalid_if_the_board_was_slowed_down_in_it(bench, before, after, because):
    states = [{} if flags is None else {"throttled": flags} for flags in (before, after)]
    assert bench.invalid_because(*states).split(";")[0] == because


def test_a_run_says_why_it_is_invalid_and_what_to_do(bench, model, vcgencmd):
    vcgencmd(get_throttled=["throttled=0x0", "throttled=0x10000"])
    figures = bench.run(model, 3)
    assert figures["valid"] is False
    assert figures["invalid_because"].startswith("under-voltage; cool the board, or")
    assert (figures["before"]["throttled"], figures["after"]["throttled"]) == ("0x0", "0x10000")


def test_xnnpack_is_seen_in_the_real_runtimes_graph(bench, model):
    assert bench.run(model, 3)["xnnpack"] is True


def test_xnnpack_is_not_seen_where_the_runtime_was_told_to_do_without(bench, infer, model):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    model._interpreter = Interpreter(
        model_content=tiny_model(), experimental_op_resolver_type=plain
    )
    model._interpreter.allocate_tensors()
    assert bench.xnnpack(model) is False


def test_a_runtime_that_cannot_tell_of_xnnpack_says_so(bench, model, monkeypatch):
    monkeypatch.setattr(model, "delegate", "edgetpu", raising=False)
    assert bench.xnnpack(model) is None
    monkeypatch.setattr(model, "delegate", "cpu")
    monkeypatch.setattr(model, "_interpreter", object())
    assert bench.xnnpack(model) is None


# --- energy


class Ina219:
    """The chip's registers behind /dev/i2c-1: write a number, read 16 bits, most significant first.

    12.5 mV over the shunt and 5.1 V: 1250 steps of 10 uV, 1275 steps of 4 mV above 3 status bits.
    """

    def __init__(self, configuration=0x399F, shunt=1250, bus=1275 << 3 | 0b010):
        self.registers = [configuration, shunt & 0xFFFF, bus]

    def write(self, data):
        (self.number,) = data

    def read(self, count):
        return struct.pack(">H", self.registers[self.number])[:count]


def test_an_ina219s_registers_are_volts_times_amperes(bench):
    # 12.5 mV / 0.1 ohm = 0.125 A; 0.125 A * 5.1 V = 0.6375 W
    assert bench._ina219_power(Ina219()) == pytest.approx(0.6375)


def test_an_ina219_wired_the_other_way_round_measures_the_same(bench):
    assert bench._ina219_power(Ina219(shunt=-1250)) == pytest.approx(0.6375)


@pytest.mark.parametrize(
    "configuration",
    [0x1104, 0x0000, 0xFFFF, 0x3998],  # a PCA9685's mode, silence, a bus pulled up, switched off
)
def test_another_chip_at_that_address_is_not_believed(bench, configuration):
    with pytest.raises(ValueError, match="no INA219"):
        bench._ina219_power(Ina219(configuration))


def test_an_ina219_is_asked_on_the_first_i2c_bus(bench, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "_ina219_power", lambda bus: asked.append(bus.name) or 4.0)
    monkeypatch.setattr(bench.fcntl, "ioctl", lambda bus, *request: asked.append(request))
    device = tmp_path / "root" / "dev" / "i2c-1"
    device.parent.mkdir()
    device.touch()
    joules, source = bench.energy(lambda: time.sleep(0.01))
    assert asked[:2] == [(0x0703, 0x40), str(device)]
    assert source == "INA219 on I2C, its shunt taken as 0.1 ohm"
    assert joules >= 4.0 * 0.01


def test_a_file_that_is_no_i2c_bus_measures_nothing(bench, tmp_path):
    device = tmp_path / "root" / "dev" / "i2c-1"
    device.parent.mkdir()
    device.touch()
    assert bench.energy(lambda: None) == (None, "not measured")


def test_a_pi_5s_rails_are_summed_where_volts_and_amperes_are_known(bench, vcgencmd):
    vcgencmd(pmic_read_adc=PMIC)
    assert bench._pmic_watts() == pytest.approx(PMIC_WATTS)


def test_energy_is_power_times_the_time_of_an_answer(bench, vcgencmd):
    vcgencmd(pmic_read_adc=PMIC)
    calls = []
    start = time.perf_counter()
    joules, source = bench.energy(lambda: calls.append(time.sleep(0.005)))
    most = (time.perf_counter() - start) / len(calls)
    assert source.startswith("the Pi 5's own rails")
    assert PMIC_WATTS * 0.005 <= joules <= PMIC_WATTS * most


def test_a_pi_4_has_no_rails_to_measure(bench, vcgencmd):
    vcgencmd(get_throttled="throttled=0x0")
    assert bench.energy(lambda: None) == (None, "not measured")


@pytest.mark.parametrize(
    ("start", "end", "joules"),
    [(1_000_000, 4_000_000, 3.0), (9_500_000, 500_000, 1.0)],  # the second has started again
)
def test_rapls_counter_is_read_before_and_after(bench, board, tmp_path, start, end, joules):
    board(rapl=start, rapl_wraps=10_000_000)
    calls = []

    def work():
        calls.append(time.sleep(0.005))
        board(rapl=end)

    found, source = bench.energy(work)
    assert found * len(calls) == pytest.approx(joules)
    assert source == "RAPL, the processor's package"


def test_a_rapl_that_only_root_may_read_measures_nothing(bench, board, tmp_path):
    board(rapl="", rapl_wraps=10_000_000)
    assert bench.energy(lambda: None) == (None, "not measured")


def test_energy_of_a_run_is_in_millijoules(bench, model, vcgencmd):
    vcgencmd(pmic_read_adc=PMIC, get_throttled="throttled=0x0")
    figures = bench.run(model, 3)
    assert 0 < figures["energy_mj"] < 1e3 * PMIC_WATTS  # an answer takes less than a second
    assert figures["energy_source"].startswith("the Pi 5's own rails")


def test_a_measuring_that_fails_on_the_way_counts_what_it_has(bench, monkeypatch):
    readings = iter([2.0, 2.0])

    def watts():
        try:
            return next(readings)
        except StopIteration:
            raise OSError("gone") from None

    monkeypatch.setattr(bench, "_pmic_watts", watts)
    joules, _ = bench.energy(lambda: time.sleep(0.01))
    assert joules >= 2.0 * 0.01
