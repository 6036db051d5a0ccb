"""What a Raspberry Pi's system says of itself: the files that programs look for in /proc and /sys.

An emulator shows a program this machine's own files where it is given no others.  The libraries
inside a TFLite runtime choose their kernels by them, and where an Arm program reads of an x86
processor, ai-edge-litert crashes (seen with QEMU 7.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CORES = 4


@dataclass(frozen=True)
class Cache:
    """A processor's cache: its level, what it holds, how large it is, and how it is laid out."""

    level: int
    holds: str
    kib: int
    sets: int
    ways: int
    shared: bool = False


@dataclass(frozen=True)
class Board:
    """A Raspberry Pi.

    Attributes:
      name: As in its device tree.
      cpu: Its processor, as QEMU calls it.
      part: Arm's number of that processor, with variant and revision.
      code: The revision code that Raspberry Pi gave the board.
      features: What its kernel says that the processor can do.
      mhz: Its highest clock.
    """

    name: str
    cpu: str
    part: tuple[str, str, int]
    code: str
    features: str
    mhz: int
    caches: tuple[Cache, ...]


BOARDS = {
    "pi4": Board(
        name="Raspberry Pi 4 Model B Rev 1.4",
        cpu="cortex-a72",
        part=("0xd08", "0x0", 3),
        code="c03114",
        features="fp asimd evtstrm crc32 cpuid",
        mhz=1800,
        caches=(
            Cache(1, "Data", 32, 256, 2),
            Cache(1, "Instruction", 48, 256, 3),
            Cache(2, "Unified", 1024, 1024, 16, shared=True),
        ),
    ),
    "pi5": Board(
        name="Raspberry Pi 5 Model B Rev 1.0",
        cpu="cortex-a76",
        part=("0xd0b", "0x4", 1),
        code="c04170",
        features=(
            "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm"
            " lrcpc dcpop asimddp"
        ),
        mhz=2400,
        caches=(
            Cache(1, "Data", 64, 256, 4),
            Cache(1, "Instruction", 64, 256, 4),
            Cache(2, "Unified", 512, 1024, 8),
            Cache(3, "Unified", 2048, 2048, 16, shared=True),
        ),
    ),
}


def files(board: Board) -> dict[str, str]:
    """Return the content of each file by its path below the root."""
    tree = board.name + "\0"
    return {
        "proc/cpuinfo": _cpuinfo(board),
        "proc/device-tree/model": tree,
        "sys/firmware/devicetree/base/model": tree,
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "51121\n",
        "sys/devices/system/cpu/kernel_max": "255\n",
        **{
            f"sys/devices/system/cpu/{name}": f"0-{CORES - 1}\n"
            for name in ("possible", "present", "online")
        },
        **{
            f"sys/devices/system/cpu/cpu{core}/{path}": f"{value}\n"
            for core in range(CORES)
            for path, value in _core(board, core)
        },
    }


def write(board: Board, root: Path) -> None:
    """Write the files below `root`."""
    for path, content in files(board).items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def _cpuinfo(board: Board) -> str:
    part, variant, revision = board.part
    entry = {
        "BogoMIPS": "108.00",
        "Features": board.features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": variant,
        "CPU part": part,
        "CPU revision": revision,
    }
    cores = [{"processor": core, **entry} for core in range(CORES)]
    last = {"Revision": board.code, "Serial": "10000000deadbeef", "Model": board.name}
    blocks = ["".join(f"{key}\t: {value}\n" for key, value in one.items()) for one in cores]
    return "\n".join([*blocks, "".join(f"{key}\t: {value}\n" for key, value in last.items())])


def _core(board: Board, core: int) -> Iterator[tuple[str, object]]:
    """Yield what /sys says of one core."""
    everyone = f"0-{CORES - 1}"
    yield "topology/physical_package_id", 0
    yield "topology/core_id", core
    for name in ("core_siblings_list", "package_cpus_list", "cluster_cpus_list"):
        yield f"topology/{name}", everyone
    for name in ("thread_siblings_list", "core_cpus_list"):
        yield f"topology/{name}", core
    for name in ("cpuinfo_max_freq", "scaling_cur_freq"):
        yield f"cpufreq/{name}", 1000 * board.mhz
    yield "cpufreq/cpuinfo_min_freq", 600_000
    yield "cpufreq/scaling_governor", "ondemand"
    for index, cache in enumerate(board.caches):
        place = f"cache/index{index}"
        yield f"{place}/level", cache.level
        yield f"{place}/type", cache.holds
        yield f"{place}/size", f"{cache.kib}K"
        yield f"{place}/shared_cpu_list", everyone if cache.shared else core
        yield f"{place}/coherency_line_size", 64
        yield f"{place}/number_of_sets", cache.sets
        yield f"{place}/ways_of_associativity", cache.ways
