from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from test_metadata import answers
from tiny_conv import G, Op, T, conv_model, model_of
from tiny_model import card_for, golden_file, tiny_model, with_card

from tfedge.errors import UserError
from tfedge.tflite import card as cards
from tfedge.tflite.card import Card, Input, Maker

PIXELS = Input("image", (4, 4, 3), (0, 0, 0), (255, 255, 255), "bilinear", "stretch")
MADE = Maker("0.1.0", "pets", "int8", "ab" * 32)
CARD = Card(
    ("cat", "dog", "Igel ä"), PIXELS, MADE, ("00" * 32,), {"tune": {"accuracy": 0.5, "count": 4}}
)


def golden() -> dict[str, bytes]:
    inputs = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    return {cards.GOLDEN: cards.golden_npz(inputs, np.int8([[1, -2, 3]]))}


def changed(blob: bytes, change: Any) -> bytes:
    """Return the file with its card.json as `change` leaves or returns it."""
    card, files = json.loads(unzip(blob)["card.json"]), unzip(blob)
    made = change(card)
    written = made if isinstance(made, bytes) else json.dumps(made or card).encode()
    out = io.BytesIO()
    out.write(cards.strip(blob))
    with zipfile.ZipFile(out, "a") as archive:
        for name, content in {**files, "card.json": written}.items():
            archive.writestr(name, content)
    return out.getvalue()


def unzip(blob: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_what_was_written_is_read():
    blob = cards.write(conv_model(), CARD, golden())
    card, files = cards.read(blob, "m.tflite")
    assert dataclasses.replace(card, flatbuffer=None) == CARD
    assert files == {"labels.txt": "cat\ndog\nIgel ä\n".encode(), **golden()}


def test_the_json_is_the_one_that_is_agreed_with_the_board():
    flatbuffer = conv_model()
    written = json.loads(unzip(cards.write(flatbuffer, CARD))["card.json"])
    expected = card_for(flatbuffer)
    expected.update(
        labels=["cat", "dog", "Igel ä"],
        golden={"count": 1, "tensors": ["00" * 32]},
        made_by={"tfedge": "0.1.0", "pipeline": "pets", "stage": "int8", "key": "ab" * 32},
        measured={"tune": {"accuracy": 0.5, "count": 4}},
        flatbuffer=written["flatbuffer"],
    )
    assert written == expected


def test_an_array_has_no_word_on_resizing():
    steps = Input("array", (16, 3), (0, 0, 0), (1, 1, 1))
    written = json.loads(
        unzip(cards.write(conv_model(), dataclasses.replace(CARD, input=steps)))["card.json"]
    )
    assert set(written["input"]) == {"kind", "shape", "mean", "std"}


def test_the_card_knows_the_very_flatbuffer_that_is_in_the_file():
    blob = cards.write(conv_model(), CARD, golden())
    written = json.loads(unzip(blob)["card.json"])["flatbuffer"]
    flatbuffer = blob[: written["bytes"]]
    assert hashlib.sha256(flatbuffer).hexdigest() == written["sha256"]
    assert blob[written["bytes"] :].startswith(b"PK")
    assert cards.strip(blob) == flatbuffer


def test_a_card_that_another_hand_wrote_is_read():
    flatbuffer = tiny_model()
    inputs, outputs = np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 3), np.int8)
    blob = with_card(flatbuffer, card_for(flatbuffer), {"golden.npz": golden_file(inputs, outputs)})
    card, files = cards.read(blob, "m")
    assert card.labels == ("cat", "dog", "eel")
    assert card.input == PIXELS
    assert set(files) == {"labels.txt", "golden.npz"}
    assert cards.strip(blob) == flatbuffer


def test_the_model_with_its_card_answers_as_before_bit_for_bit():
    blob = cards.write(conv_model(), CARD, golden())
    np.testing.assert_array_equal(answers(blob), answers(conv_model()))


def test_the_same_card_makes_the_same_bytes(monkeypatch):
    once = cards.write(conv_model(), CARD, golden())
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert cards.write(conv_model(), CARD, golden()) == once


def test_writing_what_was_read_changes_nothing():
    blob = cards.write(conv_model(), CARD, golden())
    assert cards.write(cards.strip(blob), *cards.read(blob, "m")) == blob


def test_numpy_loads_the_golden_vectors():
    inputs = np.zeros((2, 100, 3), np.float32)
    outputs = np.int8([[1, -128], [127, 0]])
    blob = cards.golden_npz(inputs[:, ::2], outputs)  # no copy that is in order
    with np.load(io.BytesIO(blob)) as loaded:
        assert set(loaded) == {"inputs", "outputs"}
        assert loaded["inputs"].dtype == np.float32
        np.testing.assert_array_equal(loaded["inputs"], inputs[:, ::2])
        np.testing.assert_array_equal(loaded["outputs"], outputs)
    assert len(blob) < inputs[:, ::2].nbytes


def test_nothing_behind_the_model_is_compressed_as_mediapipe_demands():
    blob = cards.write(conv_model(), CARD, golden())
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (dataclasses.replace(CARD, labels=("a\nb",)), "line break"),
        (dataclasses.replace(CARD, input=dataclasses.replace(PIXELS, kind="sound")), "'sound'"),
        (dataclasses.replace(CARD, input=dataclasses.replace(PIXELS, mean=(0,))), "expected 3"),
        (
            dataclasses.replace(CARD, input=dataclasses.replace(PIXELS, shape=(4, 3))),
            "expected height, width",
        ),
    ],
)
def test_a_card_that_contradicts_itself_is_not_written(card, message):
    with pytest.raises(ValueError, match=message):
        cards.write(conv_model(), card)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(format=2), "has format 2, this tfedge reads 1"),
        (lambda card: card.pop("labels") and None, "its card cannot be read .KeyError: 'labels'"),
        (lambda card: b"{", "its card cannot be read .JSONDecodeError"),
        (lambda card: [1], "its card cannot be read .TypeError"),
        (lambda card: card["input"].update(std=[1]), "its card cannot be read .ValueError"),
        (lambda card: card["flatbuffer"].update(bytes=7), "expected 7 bytes of sha256"),
        (lambda card: card["flatbuffer"].update(sha256="0" * 64), "of sha256 000000000000, got"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused_by_name(change, message):
    blob = changed(cards.write(conv_model(), CARD), change)
    with pytest.raises(UserError, match=f"m.tflite: .*{message}"):
        cards.read(blob, "m.tflite")


def test_a_file_without_a_card_says_how_to_put_one_in():
    assert cards.find(conv_model(), "m.tflite") is None
    with pytest.raises(
        UserError, match=r"(?s)m.tflite: has no card.*tfedge attach m.tflite --from"
    ):
        cards.read(conv_model(), "m.tflite")


def test_a_changed_model_is_not_taken_for_the_cards():
    blob = bytearray(cards.write(conv_model(), CARD))
    blob[300] ^= 1
    with pytest.raises(UserError, match="not the one its card was made for"):
        cards.read(bytes(blob), "m")


def test_no_flipped_byte_goes_unnoticed_where_it_matters():
    blob, random = cards.write(conv_model(), CARD, golden()), np.random.default_rng(0)
    wanted = cards.read(blob, "m")
    for place in random.integers(0, len(blob), 400):
        damaged = bytearray(blob)
        damaged[place] ^= int(random.integers(1, 256))
        try:
            card, files = cards.read(bytes(damaged), "m")
        except UserError:
            continue
        # What the zip says of its entries' dates and systems is all that may differ.
        assert card == wanted[0]
        assert set(files.values()) == set(wanted[1].values())


def test_a_model_that_lost_its_card_gets_the_originals():
    original = cards.write(conv_model(), CARD, golden())
    for lost in (conv_model(), cards.strip(original)):
        blob = cards.transplant(lost, original, "edge.tflite", "m.tflite")
        card, files = cards.read(blob, "edge.tflite")
        assert dataclasses.replace(card, flatbuffer=None) == CARD
        assert files == cards.read(original, "m.tflite")[1]
        np.testing.assert_array_equal(answers(blob), answers(conv_model()))


def test_another_models_card_is_not_attached():
    original = cards.write(conv_model(), CARD)
    for other, message in (
        (tiny_model((4, 4, 1)), r"input is int8 \[1, 4, 4, 1\].*m.tflite is int8 \[1, 4, 4, 3\]"),
        (tiny_model(classes=5), r"output is int8 \[1, 5\]"),
        (tiny_model(input_scale=0.5), "input .*scale 0.5"),
    ):
        with pytest.raises(UserError, match=f"edge.tflite: its {message}"):
            cards.transplant(other, original, "edge.tflite", "m.tflite")
    relu = G(
        "f",
        (T("x", "float32", (1, 4, 4, 3)), T("y", "int8", (1, 3))),
        (Op("A", (0,), (1,)),),
        (0,),
        (1,),
    )
    with pytest.raises(UserError, match="its input is float32"):
        cards.transplant(model_of(relu), original, "edge.tflite", "m.tflite")


def test_attaching_to_or_from_a_file_that_is_no_model_names_that_file():
    original = cards.write(conv_model(), CARD)
    with pytest.raises(UserError, match=r"edge.tflite: not a \.tflite file"):
        cards.transplant(b"GIF89a", original, "edge.tflite", "m.tflite")
    with pytest.raises(UserError, match=r"m.tflite: has no card"):
        cards.transplant(conv_model(), conv_model(), "edge.tflite", "m.tflite")
