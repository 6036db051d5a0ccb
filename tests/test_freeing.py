"""The [search] table: what of a pipeline is free, and every mistake in it."""

import tomllib

import pytest

from tfedge.errors import UserError
from tfedge.plan import freeing

STAGES = ["teacher", "student", "int8"]


def read(**given):
    return freeing.read(given, "p.toml [search]", STAGES)


def test_a_list_is_a_choice_and_two_ends_are_a_range():
    found = read(student={"width": [8, 12]}, int8={"share": {"low": 0.2, "high": 0.8}})
    width, share = found.freed
    assert (width.name, width.choices) == ("student.width", (8, 12))
    assert (share.name, share.low, share.high, share.whole) == ("int8.share", 0.2, 0.8, False)
    assert found.manner.trials == 40


def test_whole_ends_make_a_range_of_whole_numbers():
    (found,) = read(student={"width": {"low": 8, "high": 32, "step": 8}}).freed
    assert found.whole
    assert [value for value in range(40) if found.holds(value)] == [8, 16, 24, 32]


def test_true_is_not_one():
    (found,) = read(student={"skip": [True, False]}).freed
    assert [value for value in (True, False, 1, 0) if found.holds(value)] == [True, False]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "frees no setting"),
        ({"studnt": {"width": [8]}}, "did you mean 'student'"),
        ({"student": {"width": 8}}, "expected what it may be, got 8"),
        ({"student": {"width": []}}, "must hold different values"),
        ({"student": {"width": [8, 8]}}, "must hold different values"),
        ({"student": {"width": {"low": 8}}}, "high must be a number, got None"),
        ({"student": {"width": {"low": 9, "high": 8}}}, "low must be below high"),
        ({"student": {"width": {"low": 1, "hihg": 8}}}, "did you mean 'high'"),
        ({"student": {"width": {"low": 1, "high": 8, "step": 9}}}, "step must be from 0 to 7"),
        ({"student": {"width": {"low": 1, "high": 8, "step": 0.5}}}, "must be a whole number"),
        ({"student": {"rate": {"low": 0, "high": 1, "log": True}}}, "log needs a low above 0"),
        ({"student": {"rate": {"low": 0, "high": 1, "log": 1}}}, "log must be true or false"),
        ({"student": {"rate": {"low": 0, "high": float("inf")}}}, "high must be finite"),
        ({"student": [8]}, "is a stage"),
        ({"trials": 0, "student": {"width": [8]}}, "[search] trials: must be from 1"),
        ({"minimise": ["byte"], "student": {"width": [8]}}, "did you mean 'bytes'"),
        ({"minimise": [], "student": {"width": [8]}}, "must name one or several"),
        ({"rungs": [0.5, 0.2], "student": {"width": [8]}}, "must rise"),
        ({"sampler": "best", "student": {"width": [8]}}, "must be one of tpe, nsga2, random"),
    ],
)
def test_every_mistake_is_named(given, said):
    with pytest.raises(UserError) as caught:
        read(**given)
    assert said in str(caught.value)
    assert str(caught.value).startswith("p.toml [search]")


@pytest.mark.parametrize("value", [8, 0.5, True, "int8", [16, 32]])
def test_a_value_is_written_as_the_command_line_reads_it(value):
    place, _, text = freeing.change(freeing.Freed("student", "width", (value,)), value).partition(
        "="
    )
    found = tomllib.loads(f"value = {text}")["value"]
    assert (place, found, type(found)) == ("student.width", value, type(value))
