import pytest

from tfedge.errors import UserError
from tfedge.plan.refs import REQUIRED, Ref, blaming


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from math import sqrt\n"
        "WIDTH: int = 8\n"
        "def network(shape, classes, width, depth=2, *, act='relu', big=2**70, last):\n"
        "    return width\n"
        "class Stage: pass\n"
    )
    return tmp_path


def test_a_function_beside_the_pipeline_is_found_and_loaded(mine):
    assert Ref.parse("mine.py:network", mine).load()(0, 0, 5, last=1) == 5


def test_a_file_that_tfedge_brings_is_found_from_anywhere(tmp_path):
    assert Ref.parse("models/resnet.py:resnet8", tmp_path).file.name == "resnet.py"


def test_a_module_is_found_by_its_dotted_name(tmp_path):
    from json import dumps

    assert Ref.parse("json:dumps", tmp_path).load() is dumps


def test_parameters_come_from_the_source_with_their_defaults(mine):
    assert Ref.parse("mine.py:network", mine).parameters(skip=2) == {
        "width": REQUIRED,
        "depth": 2,
        "act": "relu",
        "big": None,  # an expression: its value is not known without running the file
        "last": REQUIRED,
    }


def test_an_imported_function_has_unknown_parameters(mine):
    assert Ref.parse("mine.py:sqrt", mine).parameters(skip=0) is None


def test_reading_a_ref_does_not_run_the_file(tmp_path):
    (tmp_path / "loud.py").write_text("raise RuntimeError\ndef network(): pass\n")
    assert Ref.parse("loud.py:network", tmp_path).name == "network"


def test_an_edit_anywhere_in_the_file_changes_the_fingerprint(mine):
    ref = Ref.parse("mine.py:network", mine)
    before = ref.fingerprint()
    (mine / "mine.py").write_text((mine / "mine.py").read_text() + "# another helper\n")
    assert ref.fingerprint() != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine.py", "'mine.py' does not name a function\n  write path.py:name"),
        ("mine.py:a-b", "does not name a function"),
        ("nosuch.py:f", "no such file or module: 'nosuch.py'\n  looked for "),
        ("nosuch.module:f", "no such file or module: 'nosuch.module'"),
        ("mine.py:netwrk", "mine.py has no 'netwrk'\n  did you mean 'network'?"),
    ],
)
def test_a_ref_that_leads_nowhere_says_why(mine, text, message):
    with pytest.raises(UserError) as caught:
        Ref.parse(text, mine, "[a] model")
    assert message in str(caught.value)
    assert str(caught.value).startswith("[a] model: ")


def test_a_file_with_a_syntax_error_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    with pytest.raises(UserError, match=r"broken\.py: is not valid Python"):
        Ref.parse("broken.py:f", tmp_path)


def test_a_dataclass_with_postponed_annotations_loads(tmp_path):
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from typing import ClassVar\n@dataclass\nclass Stage:\n    x: int = 1\n"
        "    v: ClassVar[int] = 2\n"
    )
    assert Ref.parse("own.py:Stage", tmp_path).load()().x == 1


def test_what_a_users_function_raises_names_their_line(tmp_path):
    (tmp_path / "mine.py").write_text("def net(x):\n    y = 1\n    return y / x\n")
    with pytest.raises(UserError, match=r"mine\.py:3: ZeroDivisionError: division by zero"):
        Ref.parse("mine.py:net", tmp_path).guarded()(0)
    assert Ref.parse("mine.py:net", tmp_path).guarded()(1) == 1


def test_a_file_that_cannot_be_imported_names_its_line(tmp_path):
    (tmp_path / "mine.py").write_text("import nosuchmodule\ndef net(x): ...\n")
    with pytest.raises(UserError, match=r"mine\.py:1: ModuleNotFoundError: No module named"):
        Ref.parse("mine.py:net", tmp_path).load()


def test_what_goes_wrong_outside_the_users_file_keeps_its_traceback(tmp_path):
    with pytest.raises(KeyError), blaming(tmp_path / "mine.py"):
        raise KeyError


def test_a_function_that_takes_other_arguments_is_named(tmp_path):
    (tmp_path / "mine.py").write_text("def net(shape): ...\n")
    with pytest.raises(
        UserError, match=r"mine\.py net\(\): is called with 2 values in their order"
    ):
        Ref.parse("mine.py:net", tmp_path).guarded()(1, 2)
