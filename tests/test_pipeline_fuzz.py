"""Whatever a pipeline's file says, it is planned, or a message says what to write instead."""

import json
import shutil
import tomllib

import pytest
from conftest import REPO, STRIPES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfedge.cli import main
from tfedge.plan.stages import STAGES

pytestmark = pytest.mark.slow

FILES = [STRIPES / "stripes.toml", *sorted((REPO / "pipelines").glob("*.toml"))]
PIPELINES = [tomllib.loads(file.read_text("utf-8")) for file in FILES]
for _tables in PIPELINES:
    _tables["data"] = PIPELINES[0]["data"]  # the others' is not here, and nothing else were read
TABLES = sorted({name for tables in PIPELINES for name in tables} | {"targets"})
KEYS = sorted({key for tables in PIPELINES for table in tables.values() for key in table})
WORDS = [*TABLES, *KEYS, *STAGES, "stripes.py:stripes", "stripes.py:gone", "models/small.py:stack"]
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
PLAIN = (
    st.booleans()
    | st.integers(-2, 40)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(0, 1)
    | st.floats()
    | st.sampled_from(WORDS)
    | TEXT
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner),
    max_leaves=5,
)


@st.composite
def tables(draw):
    """A pipeline that works, with a few of its tables, keys and values changed."""
    found = json.loads(json.dumps(draw(st.sampled_from(PIPELINES))))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(found)))
        change = draw(st.sampled_from(["value", "value", "value", "key", "drop", "table", "name"]))
        table = found[name]
        if change == "value" and isinstance(table, dict) and table:
            table[draw(st.sampled_from(sorted(table)))] = draw(VALUES)
        elif change == "key" and isinstance(table, dict):
            table[draw(st.sampled_from(KEYS) | TEXT)] = draw(VALUES)
        elif change == "drop" and isinstance(table, dict) and table:
            del table[draw(st.sampled_from(sorted(table)))]
        elif change == "table":
            found[draw(st.sampled_from(TABLES) | TEXT)] = draw(VALUES)
        elif change == "name" and len(found) > 1:
            found[draw(st.sampled_from(TABLES) | TEXT)] = found.pop(name)
    return found


def written(value):
    """Write a value as TOML does."""
    if isinstance(value, dict):
        inside = (f"{written(key)} = {written(one)}" for key, one in value.items())
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, float):
        return repr(value)  # nan and inf are written alike
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    for file in STRIPES.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    for tables in PIPELINES:
        if "file" in tables["teacher"]:
            (folder / tables["teacher"]["file"]).touch()
    return folder


def planned(folder, content, capsys):
    """Plan a file; check that it was planned, or refused in a few lines."""
    file = folder / "pipeline.toml"
    file.write_bytes(content)
    status = main(["plan", str(file), "--build-dir", str(folder / "build")])
    said = capsys.readouterr().err
    assert (status == 2) == said.startswith("tfedge: ")
    assert len(said.splitlines()) <= 4, said
    return status


FUZZING = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(FUZZING, max_examples=1500)
@given(tables())
def test_changed_tables_are_planned_or_refused_in_a_message(folder, capsys, found):
    lines = []
    for name, table in found.items():
        if isinstance(table, dict):
            lines.append(f"[{written(name)}]")
            lines += [f"{written(key)} = {written(value)}" for key, value in table.items()]
        else:
            lines.insert(0, f"{written(name)} = {written(table)}")
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    assert planned(folder, text, capsys) in (0, 2)


@settings(FUZZING, max_examples=500)
@given(st.sampled_from(FILES), st.data())
def test_a_damaged_text_is_planned_or_refused_in_a_message(folder, capsys, file, data):
    text = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 20))
        text[place : place + length] = data.draw(st.binary(max_size=8))
    assert planned(folder, bytes(text), capsys) in (0, 2)


def test_the_file_itself_is_planned(folder, capsys):
    assert planned(folder, FILES[0].read_bytes(), capsys) == 0
