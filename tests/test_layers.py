"""Rooms import only from rooms below their own, modules in no circle, the device from none."""

import ast
import sys
from functools import cache

import pytest
from conftest import REPO

ROOMS = [
    {"errors", "paths", "declarations", "figures", "progress"},
    {"data"},
    {"networks"},
    {"training", "tflite"},
    {"boards"},
    {"engines"},
    {"report"},
    {"plan"},
    {"search"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}
FILES = sorted(p for p in (REPO / "tfedge").rglob("*.py") if p.name != "__init__.py")


@cache
def imports(file):
    """Return every module that `file` imports, dotted, also inside functions."""
    return tuple(_imports(file))


def _imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(file):
    return ".".join(file.relative_to(REPO).with_suffix("").parts)


MODULES = {module_of(file): file for file in FILES}


def ours(file):
    return {name for name in imports(file) if name in MODULES}


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_point_to_rooms_below(file):
    room = module_of(file).split(".")[1]
    reached = {name.split(".")[1] for name in ours(file)} - {room}
    same_level_is_fine = {"errors", "paths"} if RANK[room] == 0 else set()
    assert {r for r in reached - same_level_is_fine if RANK[r] >= RANK[room]} == set()


def test_no_two_modules_import_each_other_even_in_a_circle():
    graph = {name: ours(file) for name, file in MODULES.items()}
    done: set[str] = set()
    while ready := {name for name in graph if name not in done and graph[name] <= done}:
        done |= ready
    assert set(graph) - done == set()


def test_every_room_says_what_lives_there():
    for room in {file.parent for file in FILES} - {REPO / "tfedge"}:
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text())), room


def test_the_device_runner_stands_alone():
    allowed = {"numpy", "PIL", "ai_edge_litert", "tflite_runtime", "tensorflow"}
    found = {name.split(".")[0] for name in imports(REPO / "device/infer.py")}
    assert found <= allowed | set(sys.stdlib_module_names)


def test_one_module_imports_each_keras():
    for name, room in {
        "tf_keras": "tfedge.networks.backend",
        "keras": "tfedge.networks.keras3",
    }.items():
        assert [module_of(file) for file in FILES if name in imports(file)] == [room]


def test_files_stay_short_enough_to_read():
    files = [*FILES, *(REPO / "device").glob("*.py"), *(REPO / "models").glob("*.py")]
    assert [f for f in files if len(f.read_text().splitlines()) > 400] == []
