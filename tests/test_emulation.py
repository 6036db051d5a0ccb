import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from tfedge.boards import debian, emulation, pi, wheels
from tfedge.boards.cache import cached, holds
from tfedge.boards.debian import BOOKWORM
from tfedge.boards.emulation import Userland
from tfedge.errors import UserError
from tfedge.progress import Silent


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """An otherwise empty PATH, and a function that puts a shell script on it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return add


def fill(folder):
    (folder / "file").write_text("whole")


def test_what_is_cached_is_made_once_and_found_again(cache):
    made = []

    def make(folder):
        made.append(folder)
        fill(folder)

    first = cached("thing", {"a": 1}, make)
    assert cached("thing", {"a": 1}, make) == first
    assert first.parent == cache
    assert (first / "file").read_text() == "whole"
    assert len(made) == 1


def test_whatever_decides_makes_another_folder(cache):
    folders = {cached("thing", {"a": a}, fill) for a in (1, 2, "2")}
    assert len(folders) == 3


def test_to_ask_what_is_kept_makes_nothing(cache):
    assert not holds("thing", {"a": 1})
    assert not cache.exists()
    cached("thing", {"a": 1}, fill)
    assert holds("thing", {"a": 1})
    assert not holds("thing", {"a": 2})


def test_a_userland_is_at_hand_once_all_that_it_fetches_is_kept(cache, tools, monkeypatch):
    tools("dpkg", "echo amd64")
    fetched = []

    def unpack(suite, architecture, packages, folder):
        fetched.append(architecture)

    monkeypatch.setattr(debian, "unpack", unpack)
    monkeypatch.setattr(wheels, "fetch", lambda *_: fetched.append("wheels"))
    monkeypatch.setattr(emulation, "_proved", lambda made: made)
    assert not emulation.at_hand()
    assert not cache.exists()
    emulation.userland(Silent())
    assert sorted(fetched) == ["amd64", "arm64", "wheels"]
    assert emulation.at_hand()
    shutil.rmtree(next(folder for folder in cache.glob("wheels-arm64-*") if folder.is_dir()))
    assert not emulation.at_hand()


def test_what_fails_halfway_leaves_nothing(cache):
    def fail(folder):
        fill(folder)
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError):
        cached("thing", {}, fail)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_what_a_killed_process_left_is_made_anew(cache):
    folder = cached("thing", {}, fill)
    (folder / "rubbish").touch()
    folder.rename(folder.with_suffix(".partial"))

    assert cached("thing", {}, fill) == folder
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_two_who_need_the_same_make_it_once(cache):
    made, found = [], []

    def slowly(folder):
        made.append(folder)
        time.sleep(0.1)
        fill(folder)

    def need():
        found.append((cached("thing", {}, slowly) / "file").read_text())

    threads = [threading.Thread(target=need) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["whole"] * 3
    assert len(made) == 1


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TFEDGE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="set TFEDGE_CACHE to a folder that can be written"):
        cached("thing", {}, fill)


def test_the_mirror_is_the_one_of_this_machines_apt_but_not_its_security_updates(tools):
    tools("apt-get", "echo 'Debian-Security|http://a/debian-security/|stable-security'\n"
          "echo 'Other|http://b/other/|stable'\necho 'Debian|http://c/debian/|stable'")  # fmt: skip
    assert debian.mirror() == "http://c/debian/"


def test_a_machine_without_apt_is_told_what_is_missing(tools):
    with pytest.raises(UserError, match="apt-get: is not on this machine"):
        debian.mirror()


def test_a_machine_without_a_debian_mirror_is_told_so(tools):
    tools("apt-get", "echo 'Ubuntu|http://a/ubuntu/|noble'")
    with pytest.raises(UserError, match="knows no Debian mirror"):
        debian.mirror()


def test_apts_own_words_say_why_it_failed(tools, tmp_path):
    for name in ("dpkg", "dpkg-deb", "tar"):
        tools(name, "exit 1")
    tools(
        "apt-get",
        "case $* in *indextargets*) echo '|http://c/debian/|stable'; exit;; esac\n"
        "echo 'W: never mind' >&2; echo 'E: Temporary failure resolving c' >&2; exit 100",
    )
    with pytest.raises(UserError, match=r"apt-get: E: Temporary failure resolving c\n.*network"):
        debian.unpack(BOOKWORM, "arm64", ["libc6"], tmp_path)


def test_a_processor_that_debian_has_no_emulator_for_here_is_named(tools):
    tools("dpkg", "echo riscv64")
    with pytest.raises(UserError, match="processor is riscv64"):
        debian.machine()


def test_wheels_for_no_newer_a_system_than_the_boards_are_asked_for():
    tags = wheels.platforms(BOOKWORM, "arm64")
    assert tags[0] == "manylinux_2_36_aarch64"
    assert "manylinux_2_17_aarch64" in tags
    assert "manylinux_2_35_aarch64" not in wheels.platforms(
        debian.Suite("bullseye", "3.9", 31), "arm64"
    )
    assert all(tag.endswith("_aarch64") for tag in tags)


def test_a_wheel_that_is_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(UserError, match="pip: No matching distribution found for ai-edge-litert"):
        wheels.fetch(BOOKWORM, "arm64", ["ai-edge-litert"], tmp_path)


@pytest.mark.parametrize("name", pi.BOARDS)
def test_a_boards_processor_is_described_four_times_and_in_arms_numbers(name):
    files = pi.files(pi.BOARDS[name])
    parts = {"pi4": "0xd08", "pi5": "0xd0b"}
    cpuinfo = files["proc/cpuinfo"]
    assert cpuinfo.count(f"CPU part\t: {parts[name]}\n") == 4
    assert cpuinfo.count("processor\t: ") == 4
    assert ("asimddp" in cpuinfo) == (name == "pi5")  # the dot products of int8
    assert files["proc/device-tree/model"].startswith(f"Raspberry Pi {name[-1]} Model B")


@pytest.mark.parametrize("board", pi.BOARDS.values(), ids=pi.BOARDS)
def test_caches_are_as_large_as_their_lines(board):
    files = pi.files(board)
    place = "sys/devices/system/cpu/cpu0/cache/index{}/{}"
    for index in range(len(board.caches)):
        sets, ways, line = (
            int(files[place.format(index, name)])
            for name in ("number_of_sets", "ways_of_associativity", "coherency_line_size")
        )
        assert files[place.format(index, "size")] == f"{sets * ways * line // 1024}K\n"


def test_the_command_names_processor_board_and_plugin():
    made = Userland(BOOKWORM, Path("/r"), Path("/s"), ("/q/qemu-aarch64",), Path("/b"))
    command = made.command("pi5", ["infer.py", "a b.jpg"], Path("/p,q.so"))
    assert command[0] == "env"
    assert "PYTHONPATH=/s" in command[: command.index("/q/qemu-aarch64")]
    assert command[command.index("-cpu") + 1] == "cortex-a76"
    assert command[command.index("-L") + 1] == "/b/pi5"
    assert command[command.index("-plugin") + 1] == "file=/p,,q.so"
    assert command[-4:] == ["/r/usr/bin/python3.11", "-B", "infer.py", "a b.jpg"]
    assert "-plugin" not in made.command("pi4", [])


def test_a_board_that_is_none_is_refused():
    made = Userland(BOOKWORM, Path("/r"), Path("/s"), ("qemu",), Path("/b"))
    with pytest.raises(UserError, match="did you mean 'pi4'"):
        made.command("p4", [])
