from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tfedge.declarations import required, setting
from tfedge.errors import UserError
from tfedge.plan import settings
from tfedge.plan.refs import Ref
from tfedge.plan.settings import Names, Network, Options


@dataclass(frozen=True)
class Group:
    epochs: int = setting(20, "passes", low=1, high=100)
    rate: float = setting(0.5, "size", low=0.1, high=1)
    guide: Network = setting("", "a stage that helps")

    def check(self, where):
        if self.guide == "nobody":
            raise UserError(f"{where} guide", "is nobody")


@dataclass(frozen=True)
class Kind:
    of: Network = required("a stage")
    model: Ref = required("a function", given=2)
    options: Options = field(default_factory=lambda: Options({}))
    where: Path = setting(Path(), "a place")
    how: str = setting("slow", "a word", choices=("slow", "fast"))
    sizes: tuple[int, ...] = setting((1, 2), "numbers", low=1, high=9)
    pair: tuple[int, int] = setting((1, 2), "two numbers", low=1, high=9)
    layers: dict[str, float] = setting({}, "fractions", low=0, high=1)
    names: Names = setting((), "names", choices=("flip", "crop"))
    on: bool = setting(default=False, help="whether")
    group: Group = field(default=Group(epochs=5))


@pytest.fixture
def read(tmp_path):
    (tmp_path / "m.py").write_text(
        "def net(shape, classes, width=8, rates=(1, 2), drop=0.5): ...\n"
    )

    def read(**table):
        return settings.read(Kind, {"of": "a", "model": "m.py:net", **table}, "[x]", tmp_path)

    return read


def test_defaults_and_given_values_meet_in_one_object(read):
    kind = read(how="fast", epochs=7, sizes=[3], layers={"conv": 0})
    assert (kind.how, kind.sizes, kind.layers, kind.on) == ("fast", (3,), {"conv": 0.0}, False)
    assert kind.group == Group(epochs=7, rate=0.5)


def test_a_stage_has_its_own_defaults_for_a_group(read):
    assert read().group.epochs == 5
    assert {f.name: f.default for f in settings.fields_of(Kind)}["epochs"] == 5


def test_what_the_stage_does_not_know_goes_to_the_builder_with_its_other_defaults(read):
    assert read(width=16).options == {"width": 16, "rates": (1, 2), "drop": 0.5}


def test_a_relative_path_starts_at_the_pipeline_file(read, tmp_path):
    assert read(where="photos").where == tmp_path / "photos"
    assert read(where="/photos").where == Path("/photos")


def test_names_are_words_or_refs(read):
    word, ref = read(names=["flip", "m.py:net"]).names
    assert word == "flip"
    assert ref.name == "net"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"hov": "fast"},
            "unknown setting 'hov', and m.py:net takes no such argument\n  did you mean 'how'?",
        ),
        ({"widht": 3}, "did you mean 'width'?"),
        ({"width": "8"}, "[x] width: expected a whole number, got '8'"),
        ({"width": True}, "[x] width: expected a whole number, got True"),
        ({"rates": 3}, "[x] rates: expected"),
        ({"how": "quick"}, "[x] how: must be one of slow, fast, got 'quick'"),
        ({"epochs": 0}, "[x] epochs: must be from 1 to 100, got 0"),
        ({"epochs": 2.5}, "[x] epochs: expected a whole number, got 2.5"),
        ({"rate": float("nan")}, "[x] rate: must be from 0.1 to 1, got nan"),
        ({"rate": float("inf")}, "[x] rate: must be from 0.1 to 1, got inf"),
        ({"on": 1}, "[x] on: expected true or false, got 1"),
        ({"sizes": 3}, "[x] sizes: expected a list of a whole number, got 3"),
        ({"sizes": [0]}, "[x] sizes: must be from 1 to 9, got 0"),
        ({"pair": [1]}, "[x] pair: expected 2 of a whole number, got [1]"),
        ({"layers": 0.5}, "[x] layers: expected a table, got 0.5"),
        ({"layers": {"a": 2}}, "[x] layers: must be from 0 to 1, got 2.0"),
        ({"names": ["flop"]}, "[x] names: unknown name 'flop'\n  did you mean 'flip'?"),
        ({"model": "m.py:nett"}, "did you mean 'net'?"),
        ({"of": 3}, "[x] of: expected a stage's name, got 3"),
        ({"of": ""}, "[x] of: expected a stage's name, got ''"),
    ],
)
def test_each_mistake_names_its_key_and_what_was_received(read, table, message):
    with pytest.raises(UserError) as caught:
        read(**table)
    assert message in str(caught.value)


def test_a_missing_setting_is_named_with_its_help(tmp_path):
    with pytest.raises(UserError, match="'of' is missing\n  a stage"):
        settings.read(Kind, {}, "[x]", tmp_path)


def test_a_builder_argument_without_default_must_be_given(tmp_path):
    (tmp_path / "m.py").write_text("def net(shape, classes, width): ...\n")
    with pytest.raises(UserError, match=r"\[x\]: 'width' is missing\n  m\.py:net needs it"):
        settings.read(Kind, {"of": "a", "model": "m.py:net"}, "[x]", tmp_path)


def test_plain_values_hold_defaults_and_hash_what_refs_name(read):
    values = settings.plain(read(width=16))
    assert (values["epochs"], values["width"], values["how"]) == (5, 16, "slow")
    assert values["model"]["ref"] == "m.py:net"
    assert len(values["model"]["file"]) == 64


def test_inputs_are_the_settings_that_name_stages(read):
    assert settings.inputs_of(read()) == {"of": "a"}
    assert settings.wanted(read()) == {"of": ("network", "clustered network", "8-bit network")}


def test_an_input_may_stand_in_a_group(read):
    kind = read(guide="b")
    assert kind.group.guide == "b"
    assert settings.inputs_of(kind) == {"guide": "b", "of": "a"}
    assert settings.wanted(kind)["guide"] == ("network", "clustered network", "8-bit network")
    assert settings.input_names(Kind) == {"guide", "of"}


def test_a_group_checks_what_it_was_given(read):
    with pytest.raises(UserError, match=r"\[x\] guide: is nobody"):
        read(guide="nobody")
