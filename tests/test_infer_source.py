from __future__ import annotations

import ast
import shutil
import subprocess
import sys

import pytest
from tiny_board import DEVICE, write, write_golden

FILES = sorted(DEVICE.glob("*.py"))
# Packages that only the option which names them imports.
ELSEWHERE = {"feeds.py": {"cv2", "picamera2", "infer"}}


def tree_of(file, **options):
    return ast.parse(file.read_text(), **options)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_is_python_3_7(file):
    tree = tree_of(file, feature_version=(3, 7))
    # What 3.8 and later added to the modules in use, and to str, dict and int.
    later = {
        "removeprefix",
        "removesuffix",
        "cached_property",
        "cache",
        "pairwise",
        "is_relative_to",
    }
    later |= {"metadata", "randbytes", "bit_count", "as_file", "files", "walrus", "dist"}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    strict = {
        word.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "zip"
        for word in node.keywords
    }
    assert not used & later
    assert "math.prod" not in file.read_text()
    assert not strict
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_imports_the_standard_library_numpy_and_pillow_only(file):
    names = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    alone = {"numpy", "PIL"} | ({"infer"} if file.name != "infer.py" else set())
    assert names - set(sys.stdlib_module_names) - ELSEWHERE.get(file.name, set()) <= alone


@pytest.mark.slow
def test_infer_alone_answers_pictures_and_says_which_file_an_option_needs(tmp_path, photos):
    shutil.copy(DEVICE / "infer.py", tmp_path)
    model = write(tmp_path)

    def run(*arguments):
        command = [sys.executable, tmp_path / "infer.py", model, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, input="\x89PNG")
        return done.returncode, done.stdout, done.stderr.splitlines()[-1]

    status, out, _ = run(photos)
    assert (status, out.count("\n")) == (0, 3)
    assert run()[::2] == (2, "infer.py: give a model, and a picture or folder, or --selftest")
    for other in ("x.npy", "a.npz"):
        assert run(other)[2].startswith("infer.py: arrays need console.py and feeds.py beside")
    shutil.copytree(DEVICE, tmp_path / "whole")
    command = [sys.executable, tmp_path / "whole" / "infer.py", model, photos]
    whole = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out == whole
    for option in ("--bench", "--serve", "--doctor", "--watch", "--json", "-"):
        status, out, message_line = run(photos, option)
        assert (status, out) == (2, "")
        needs = f"{option} needs console.py beside infer.py; copy it there"
        assert message_line == f"infer.py: {needs}"
    shutil.copy(DEVICE / "console.py", tmp_path)
    for arguments, message in {
        ("--bench", "1"): "--bench needs bench.py",
        ("--serve",): "--serve needs serve.py",
        ("--doctor",): "--doctor needs doctor.py",
        ("--watch", "."): "--watch or --camera needs feeds.py",
        ("x.npz",): "a file of arrays needs feeds.py",
        ("-",): "stdin needs feeds.py",
        ("a.jpg", "--delegate", "edgetpu"): "--delegate edgetpu needs edgetpu.py",
    }.items():
        status, out, message_line = run(*arguments)
        assert (status, out) == (2, "")
        assert message_line == f"infer.py: {message} beside infer.py; copy it there"


@pytest.mark.slow
def test_infer_alone_tests_itself_and_says_what_arrays_need(tmp_path):
    shutil.copy(DEVICE / "infer.py", tmp_path)

    def run(model):
        command = [sys.executable, tmp_path / "infer.py", model, "--selftest"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr.splitlines()[-1]

    status, out, _ = run(write_golden(tmp_path))
    assert (status, out.split(",")[0]) == (0, "passed")
    status, out, line = run(write(tmp_path, (5, 2), 3, input_scale=0.1, input_zero=0))
    assert (status, out) == (2, "")
    assert line == "infer.py: arrays need console.py and feeds.py beside infer.py; copy them there"


def test_the_files_beside_infer_share_its_classes(infer, tmp_path):
    feeds = infer._beside("feeds")
    assert feeds.infer is infer
    assert infer._beside("feeds") is feeds
