from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_board import pixels, write


def test_text_has_a_line_a_picture(answer, infer, model, photos):
    status, out, err = answer(model, photos / "a.jpg", photos / "c.PNG")
    assert (status, err) == (0, "")
    classifier = infer.Classifier(model)
    for line, name in zip(out.splitlines(), ["a.jpg", "c.PNG"], strict=True):
        path, label, share = line.split("\t")
        image = infer.read_image(path, (4, 4, 3))
        assert path == str(photos / name)
        assert (label, float(share)) == (
            classifier.classify(image)[0][0],
            pytest.approx(classifier.classify(image)[0][1], abs=1e-6),
        )


def test_a_folder_is_read_in_order_with_its_folders(answer, model, photos):
    status, out, _ = answer(model, photos)
    assert status == 0
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names == [str(photos / name) for name in ("a.jpg", "b/z.png", "c.PNG")]


def test_json_is_an_object_a_line(answer, model, photos):
    status, out, _ = answer(model, photos, "--top-k", 2, "--format", "json")
    assert status == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert records[0]["input"] == str(photos / "a.jpg")
    assert len(records) == 3
    for record in records:
        first, second = record["classes"]
        assert first["share"] >= second["share"] >= 0
        assert {first["label"], second["label"]} <= {"cat", "dog", "eel"}


def test_csv_has_a_heading_and_a_row_a_class(answer, tmp_path, photos):
    def change(card):
        card["labels"] = ['a "b"', "c,d", "e"]

    status, out, _ = answer(write(tmp_path, change=change), photos, "--format", "csv", "--top-k", 3)
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 9
    assert {row["label"] for row in rows} == {'a "b"', "c,d", "e"}
    assert sum(float(row["share"]) for row in rows[:3]) == pytest.approx(1, abs=1e-5)


def test_options_may_stand_between_inputs(answer, model, photos):
    status, out, _ = answer(model, photos / "a.jpg", "--top-k", "1", photos / "c.PNG")
    assert status == 0
    assert len(out.splitlines()) == 2


def test_a_npy_holds_one_item_or_a_stack(answer, infer, model, tmp_path):
    stack = np.stack([pixels(1), pixels(2)])
    np.save(tmp_path / "stack.npy", stack)
    np.save(tmp_path / "one.npy", stack[1])
    status, out, _ = answer(model, tmp_path / "stack.npy", tmp_path / "one.npy")
    assert status == 0
    rows = [line.split("\t") for line in out.splitlines()]
    classifier = infer.Classifier(model)
    expected = [classifier.classify(x)[0][0] for x in (*stack, stack[1])]
    assert [row[1] for row in rows] == expected
    assert [Path(row[0]).name for row in rows] == ["stack.npy[0]", "stack.npy[1]", "one.npy"]


def test_a_model_of_arrays_takes_float_npys(answer, tmp_path, photos):
    model = write(tmp_path, (5, 2))
    np.save(tmp_path / "x.npy", np.ones((3, 5, 2), np.float32))
    status, out, _ = answer(model, tmp_path / "x.npy")
    assert status == 0
    assert len({line.split("\t", 1)[1] for line in out.splitlines()}) == 1
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 2)), "or a stack of them: got float64 (5, 2)"),
        (np.zeros((2, 5), np.float32), "got float32 (2, 5)"),
        (np.array([None, {}]), "must be a .npy of float32 (5, 2)"),
    ],
)
def test_an_array_that_does_not_fit_is_named_and_the_others_answered(
    answer, tmp_path, array, message
):
    model = write(tmp_path, (5, 2))
    np.save(tmp_path / "bad.npy", array)
    np.save(tmp_path / "good.npy", np.ones((5, 2), np.float32))
    status, out, err = answer(model, tmp_path / "bad.npy", tmp_path / "good.npy")
    assert status == 2
    assert err.startswith(f"infer.py: {tmp_path}/bad.npy: must be a .npy of float32 (5, 2)")
    assert message in err
    assert out.startswith(f"{tmp_path}/good.npy\t")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01", b"PK\x03\x04", b"text"])
def test_a_damaged_npy_is_named(answer, model, tmp_path, content):
    (tmp_path / "bad.npy").write_bytes(content)
    status, out, err = answer(model, tmp_path / "bad.npy")
    assert (status, out) == (2, "")
    assert err.startswith(f"infer.py: {tmp_path}/bad.npy: must be a .npy of uint8 (4, 4, 3)")
    assert "\n" not in err


def test_gaps_in_an_array_are_named_and_the_others_of_its_file_answered(answer, tmp_path):
    stack = np.ones((3, 5, 2), np.float32)
    stack[1, 4, 1] = np.nan
    np.save(tmp_path / "x.npy", stack)
    status, out, err = answer(write(tmp_path, (5, 2)), tmp_path / "x.npy")
    assert status == 2
    assert [line.split("\t")[0][-3:] for line in out.splitlines()] == ["[0]", "[2]"]
    assert err == f"infer.py: {tmp_path}/x.npy[1]: it holds NaN; fill the gaps first"


def test_a_picture_for_a_model_of_arrays_is_refused(answer, tmp_path, photos):
    status, out, err = answer(write(tmp_path, (5, 2)), photos / "a.jpg")
    assert (status, out) == (2, "")
    assert "a.jpg: must be a .npy of float32 (5, 2)" in err


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(answer, model, photos):
    (photos / "b.jpg").write_bytes((photos / "a.jpg").read_bytes()[:200])
    status, out, err = answer(model, photos)
    assert status == 2
    assert len(out.splitlines()) == 3
    assert err.startswith(f"infer.py: {photos}/b.jpg: cannot be read as a picture: ")


def test_a_folder_without_pictures_is_said(answer, model, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = answer(model, tmp_path / "empty")
    assert status == 2
    assert f"{tmp_path}/empty: holds no pictures; name arrays one by one" in err


def test_a_folder_of_arrays_is_read_by_a_model_of_arrays(answer, tmp_path):
    folder = tmp_path / "windows"
    folder.mkdir()
    np.save(folder / "b.npy", np.ones((5, 2), np.float32))
    np.savez(folder / "a.npz", x=np.ones((2, 5, 2), np.float32))
    np.save(folder / "odd.npy", np.ones((7, 2), np.float32))
    (folder / "notes.txt").write_text("no array")
    status, out, err = answer(write(tmp_path, (5, 2)), folder)
    assert status == 2
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names == [f"{folder}/a.npz[0]", f"{folder}/a.npz[1]", f"{folder}/b.npy"]
    assert err.startswith(f"infer.py: {folder}/odd.npy: must be a .npy of float32 (5, 2)")


def test_a_folder_without_arrays_is_told_so(answer, tmp_path, photos):
    status, _, err = answer(write(tmp_path, (5, 2)), photos)
    assert status == 2
    assert f"{photos}: holds no arrays; this model takes .npy and .npz" in err


def test_in_a_file_every_input_has_its_line(answer, tmp_path, model, photos):
    (photos / "b.jpg").write_bytes(b"no picture")
    for form, gap in (("text", "\t\t"), ("csv", ",,")):
        file = tmp_path / form
        done = ("--threshold", 1, "--format", form, "--output", file)
        assert answer(model, photos / "a.jpg", photos / "b.jpg", *done)[0] == 2
        lines = file.read_text().splitlines()
        assert lines[-2:] == [f"{photos}/a.jpg{gap}", f"{photos}/b.jpg{gap}"]


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_zipped_stack_may_have_either_order(answer, tmp_path, order):
    x = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=np.asarray(x, order=order))
    np.save(tmp_path / "y.npy", x)
    model = write(tmp_path, (5, 2))
    _, zipped, _ = answer(model, tmp_path / "x.npz")
    _, plain, _ = answer(model, tmp_path / "y.npy")
    assert zipped.replace("x.npz", "y.npy") == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a model, and a picture, folder or .npy, - for stdin, or an option"),
        (["a.jpg", "--top-k", "0"], "N must be 1 or more"),
        (["a.jpg", "--threshold", "1.5"], "SHARE from 0 to 1"),
        (["a.jpg", "--threads", "-1"], "N must be 1 or more"),
        (["--bench", "ten"], "invalid int value: 'ten'"),
        (["--bench", "0"], "N must be 1 or more"),
        (["--serve", "--watch", ".", "--selftest"], "--selftest and --serve are each a run"),
        (["--selftest", "--bench", "3"], "--selftest and --bench are each a run of its own"),
        (["--doctor", "--selftest"], "--selftest and --doctor are each a run of its own"),
        (["a.jpg", "--selftest"], "--selftest takes no inputs; leave out a.jpg"),
        (["--watch", "w", "--selftest"], "--selftest takes no inputs; leave out w"),
        (["a.jpg", "b.jpg", "--bench", "3"], "--bench takes one picture or .npy, or none; leave"),
        (["-", "--bench", "3"], "--bench takes one picture or .npy, or none; leave out -"),
        (["--watch", "w", "--bench", "3"], "--bench takes one picture or .npy, or none; leave"),
        (["a.jpg", "--state", "s"], "--state is of --watch DIR"),
        (["a.jpg", "--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_a_wrong_command_is_a_usage_message_and_2(infer, capsys, model, arguments, message):
    with pytest.raises(SystemExit) as stop:
        infer.main([str(model), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
