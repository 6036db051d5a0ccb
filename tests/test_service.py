from __future__ import annotations

import ast
import configparser
import re
import shlex
import signal
import sys

import pytest
from beside import beside
from conftest import REPO
from test_layers import imports

FOLDER = REPO / "device"
README = (FOLDER / "README.md").read_text()
BESIDE = ("bench", "doctor", "serve")


class Repeated(dict):
    """Keys that a unit gives more than once, as DeviceAllow is, add up."""

    def __setitem__(self, key, value):
        if isinstance(value, list) and key in self:
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


@pytest.fixture(scope="module")
def unit():
    parser = configparser.RawConfigParser(
        strict=False, interpolation=None, delimiters=("=",), dict_type=Repeated
    )
    parser.optionxform = str
    # A line that ends in a backslash goes on, in a unit's way and not in configparser's.
    parser.read_string((FOLDER / "tfedge.service").read_text().replace("\\\n", ""))
    return parser


@pytest.fixture(scope="module")
def command(unit):
    return shlex.split(unit["Service"]["ExecStart"])


def test_it_is_started_again_whenever_it_fails_or_hangs(unit):
    service = unit["Service"]
    assert service["Restart"] == "on-failure"
    assert int(unit["Unit"]["StartLimitIntervalSec"]) == 0  # not only the first five times
    assert int(service["RestartSec"]) >= 1
    assert int(service["WatchdogSec"]) > 2 * beside("serve")._NAP_S


def test_what_systemd_waits_for_is_what_the_service_tells(unit):
    told = (FOLDER / "serve.py").read_text()
    assert unit["Service"]["Type"] == "notify"
    for word in ("NOTIFY_SOCKET", "READY=1", "WATCHDOG=1", "STOPPING=1", "WATCHDOG_USEC"):
        assert word in told


def test_a_reload_sends_the_signal_that_the_service_takes(unit):
    program, number, process = unit["Service"]["ExecReload"].split()
    assert (program, process) == ("/bin/kill", "$MAINPID")
    assert getattr(signal, f"SIG{number[1:]}") is signal.SIGHUP


def test_it_is_not_root_and_cannot_become_root(unit):
    service = unit["Service"]
    assert service["User"] not in ("root", "0")
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["RestrictSUIDSGID"] == "yes"


def test_the_file_system_is_read_only_but_for_what_it_writes(unit, command):
    service = unit["Service"]
    assert (service["ProtectSystem"], service["ProtectHome"]) == ("strict", "yes")
    writable = service["ReadWritePaths"]
    assert command[command.index("--output") + 1].startswith(f"{writable}/")
    made = [f"/var/lib/{name}" for name in service["StateDirectory"].split()]
    assert {writable, command[command.index("--watch") + 1]} == set(made)
    assert not command[2].startswith(writable)  # nor may it change its own model


def test_of_the_devices_only_cameras_and_the_edge_tpu_are_there(unit):
    text = (FOLDER / "tfedge.service").read_text()
    assert unit["Service"]["DevicePolicy"] == "closed"
    allowed = re.findall(r"(?m)^DeviceAllow=char-(\S+) rw$", text)
    # As the kernel's drivers register them: V4L2, media controller, dma-buf heaps, usbfs, gasket.
    assert allowed == ["video4linux", "media", "dma_heap", "usb_device", "apex"]
    assert len(allowed) == text.count("DeviceAllow=")


def test_the_readme_puts_each_file_where_the_unit_looks_for_it(unit, command):
    python, script, model = command[:3]
    assert f"useradd --system --user-group {unit['Service']['User']}" in README
    for path in (python.partition("/bin/")[0], script.rpartition("/")[0]):
        assert path in README
    assert f"mv /opt/tfedge/new.tflite {model}" in README
    assert command[command.index("--output") + 1] in README
    assert command[command.index("--watch") + 1] in README
    assert "systemctl reload tfedge" in README
    for file in FOLDER.glob("*.py"):
        assert file.name in README, file.name


def test_what_the_readme_names_as_options_infer_py_has(infer, capsys, command):
    with pytest.raises(SystemExit):
        infer.main(["--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    known |= {"--serve", "--watch", "--output", "--json", "--doctor", "--camera", "--delegate"}
    lines = re.findall(r"infer\.py (.*)", README)
    used = {word for line in lines for word in re.findall(r"(?<!\S)--[a-z-]+", line)}
    assert used | {word for word in command if word.startswith("--")} <= known
    assert {"--doctor", "--selftest", "--bench"} <= used


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("doctor", "reading pictures needs Pillow"),
        ("doctor", "no TFLite runtime is installed"),
        ("doctor", "making an interpreter kills Python"),
        ("serve", "goes on with the old model"),
        ("bench", "under-voltage"),
        ("infer", "was changed since its card was written"),
        ("infer", "has no card or was cut off"),
        ("infer", "cannot work with numpy"),
    ],
)
def test_a_message_that_the_readme_explains_is_one_that_the_file_gives(file, words):
    assert words in README
    assert words in (FOLDER / f"{file}.py").read_text()


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_is_python_3_7_and_needs_numpy_at_most(name):
    tree = ast.parse((FOLDER / f"{name}.py").read_text(), feature_version=(3, 7))
    imported = {module.partition(".")[0] for module in imports(FOLDER / f"{name}.py")}
    assert imported <= {"infer", "numpy", "PIL"} | set(sys.stdlib_module_names)
    later = {"removeprefix", "removesuffix", "prod", "cached_property", "cache", "pairwise"}
    assert not {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & later
