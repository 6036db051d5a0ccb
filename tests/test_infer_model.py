from __future__ import annotations

import io
import json
import zipfile

import pytest
from tiny_board import write
from tiny_model import card_for, tiny_model, with_card


def test_a_model_comes_apart_into_what_was_put_together(infer):
    flatbuffer = tiny_model()
    card = card_for(flatbuffer)
    parts = infer.split_model(with_card(flatbuffer, card, {"more": b"x" * 1000}))
    assert parts[0] == flatbuffer
    assert json.loads(parts[1].pop("card.json")) == card
    assert parts[1] == {"labels.txt": b"cat\ndog\neel\n", "more": b"x" * 1000}


def test_wherever_it_is_cut_a_model_is_refused_in_one_line(infer):
    whole = with_card(tiny_model(), card_for(tiny_model()))
    for count in range(0, len(whole) - 1, 29):
        with pytest.raises(infer.ModelError, match="copy it again") as caught:
            infer.split_model(whole[:count], "m.tflite")
        assert "\n" not in str(caught.value)


def test_whatever_byte_is_changed_a_model_is_refused_or_as_it_was(infer):
    flatbuffer = tiny_model()
    whole = with_card(flatbuffer, card_for(flatbuffer))
    parts, refused = infer.split_model(whole), 0
    for place in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[place] ^= 0x41
        try:
            found = infer.split_model(bytes(changed))
        except infer.ModelError:
            refused += 1
            continue
        assert found[0] == flatbuffer
        assert found[1].get("card.json") == parts[1]["card.json"]
        assert place >= len(flatbuffer)  # such as a date in the zip's directory
    assert refused >= len(flatbuffer) // 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip_that_would_fill_the_memory_is_not_unpacked(infer, kind):
    flatbuffer, out = tiny_model(), io.BytesIO()
    out.write(with_card(flatbuffer, card_for(flatbuffer)))
    with zipfile.ZipFile(out, "a", kind) as archive:
        archive.writestr("bomb", bytes(65 << 20))
    if kind == zipfile.ZIP_DEFLATED:
        with pytest.raises(infer.ModelError, match="no card or was cut off"):
            infer.split_model(out.getvalue())
    else:  # only deflate can be unpacked bit by bit; the rest is left alone
        assert "bomb" not in infer.split_model(out.getvalue())[1]


def test_a_size_that_lies_does_not_unpack_more_than_it_says(infer):
    flatbuffer, out = tiny_model(), io.BytesIO()
    out.write(with_card(flatbuffer, card_for(flatbuffer)))
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1 << 20))
    lying = out.getvalue().replace((1 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(infer.ModelError, match="no card or was cut off"):
        infer.split_model(lying)


def test_a_size_that_lies_does_not_make_room_for_a_file_that_is_not_packed(infer):
    flatbuffer, out = tiny_model(), io.BytesIO()
    out.write(with_card(flatbuffer, card_for(flatbuffer)))
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("bomb", bytes(1 << 20))
    lying = bytearray(out.getvalue())
    entry = lying.rindex(b"PK\1\2")  # the last file's; its size is behind the packed one
    assert int.from_bytes(lying[entry + 20 : entry + 24], "little") == 1 << 20
    lying[entry + 24 : entry + 28] = bytes(4)
    with pytest.raises(infer.ModelError, match="no card or was cut off"):
        infer.split_model(bytes(lying))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(format=2), "its card is newer than infer.py"),
        (lambda card: card["output"].update(kind="boxes"), "its card is newer than infer.py"),
        (lambda card: card.pop("labels"), "cannot be read: 'labels'"),
        (lambda card: card["input"].update(kind="sound"), "cannot be read: 'sound'"),
        (lambda card: card["input"].update(mean=[1, 2]), "cannot be read"),
        (lambda card: card["labels"].append("eel"), r"another model's.*\[1, 3\].*tfedge attach"),
        (lambda card: card["input"].update(shape=[4, 5, 3]), "another model's"),
        (lambda card: card["flatbuffer"].update(sha256="0"), "was changed since its card was"),
        (lambda card: card.pop("flatbuffer"), "has no card or was cut off"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(infer, tmp_path, change, message):
    with pytest.raises(infer.ModelError, match=f"model.tflite: .*{message}"):
        infer.Classifier(write(tmp_path, change=change))


def test_a_model_that_the_runtime_refuses_is_one_line(infer, tmp_path):
    flatbuffer = b"\0\0\0\0TFL3" + bytes(64)
    file = tmp_path / "m.tflite"
    file.write_bytes(with_card(flatbuffer, card_for(flatbuffer)))
    with pytest.raises(infer.ModelError, match=r"m.tflite: ai-edge-litert .* cannot run it"):
        infer.Classifier(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a .tflite file, or was damaged; copy it again"),
        (b"just some text, and no model", "is not a .tflite file"),
        (tiny_model(), "has no card or was cut off; copy it again, or put a card in with: "),
        (with_card(tiny_model(), card_for(tiny_model()))[:-9], "has no card or was cut off"),
        (
            with_card(tiny_model(), card_for(tiny_model())).replace(b"tiny", b"Tiny", 1),
            "was changed",
        ),
    ],
)
def test_a_file_that_is_no_model_of_ours_is_one_line_and_2(answer, tmp_path, content, message):
    file = tmp_path / "m.tflite"
    file.write_bytes(content)
    status, out, err = answer(file, "a.jpg")
    assert (status, out) == (2, "")
    assert err.startswith(f"infer.py: {file}: {message}")
    assert "\n" not in err


def test_a_missing_model_is_one_line_and_2(answer, tmp_path):
    status, out, err = answer(tmp_path / "no.tflite", "a.jpg")
    assert (status, out) == (2, "")
    said = "cannot be read: No such file or directory; look at the path"
    assert err == f"infer.py: {tmp_path}/no.tflite: {said}"


def test_a_folder_for_a_model_is_told_so(answer, tmp_path):
    status, _, err = answer(tmp_path, "a.jpg")
    assert status == 2
    assert err == f"infer.py: {tmp_path}: cannot be read: Is a directory; look at the path"
