from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_model import (
    OUTPUT_SCALE,
    OUTPUT_ZERO,
    card_for,
    golden_file,
    tiny_model,
    with_card,
)

SCRIPT = Path(__file__).parent.parent / "device" / "infer.py"


def write(folder: Path, shape=(4, 4, 3), classes=3, *, files=None, change=None, **scale) -> Path:
    """Write a tiny model with its card, which `change` may alter, and return its path."""
    flatbuffer = tiny_model(shape, classes, **scale)
    card = card_for(flatbuffer, shape, classes)
    if change:
        change(card)
    file = folder / "model.tflite"
    file.write_bytes(with_card(flatbuffer, card, files))
    return file


def interpreted(flatbuffer: bytes, tensor: np.ndarray) -> np.ndarray:
    """Run a model with the runtime alone: the tests' own road."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=flatbuffer)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def pixels(seed=0, shape=(4, 4, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_golden(folder: Path, *, tensor_off=0, output_off=0) -> Path:
    """Write a model with two golden vectors, right but for what is said to be off."""
    inputs, flatbuffer = np.stack([pixels(1), pixels(2)]), tiny_model()
    tensors = (inputs.astype(int) - 128).astype(np.int8)[:, None]
    outputs = np.stack([interpreted(flatbuffer, tensor) for tensor in tensors])
    outputs[1, 0] += output_off
    hashes = [hashlib.sha256((tensor + tensor_off).tobytes()).hexdigest() for tensor in tensors]

    def change(card):
        card["golden"] = {"count": 2, "tensors": hashes}

    return write(folder, files={"golden.npz": golden_file(inputs, outputs)}, change=change)


def script(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def model(tmp_path):
    return write(tmp_path)


@pytest.fixture
def photos(tmp_path):
    """Three pictures in two folders, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for seed, name in enumerate(["c.PNG", "b/z.png", "a.jpg"]):
        Image.fromarray(pixels(seed, (9, 7, 3))).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def answer(infer, capfd):
    """Run main; return its status and what it wrote to stdout and stderr, without the runtime's."""

    def run(*arguments):
        status = infer.main([str(each) for each in arguments])
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if not line.startswith("INFO:")]
        return status, out, "\n".join(lines)

    return run


# --- the numbers


def test_pixels_of_a_plain_model_are_quantised_by_subtracting_128(infer, model):
    image = pixels()
    tensor = infer.Classifier(model).quantise(image)
    assert tensor.dtype == np.int8
    assert np.array_equal(tensor, (image.astype(int) - 128)[None])


@pytest.mark.parametrize(
    ("mean", "std", "scale", "zero"),
    [
        ([0, 0, 0], [255, 255, 255], 0.006, -100),
        ([127.5] * 3, [127.5] * 3, 0.0079, 3),
        ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4], 0.0187, -14),
        ([0, 10, 0], [1, 1, 1], 0.3, 0),  # much of it is beyond int8
    ],
)
def test_every_pixel_value_is_quantised_as_the_formula_says(
    infer, tmp_path, mean, std, scale, zero
):
    def change(card):
        card["input"].update(mean=mean, std=std)

    shape = (256, 1, 3)
    file = write(tmp_path, shape, change=change, input_scale=scale, input_zero=zero)
    image = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    exact = (image - np.float64(mean)) / std / scale + zero
    tensor = infer.Classifier(file).quantise(image)
    assert np.abs(tensor - exact.clip(-128, 127))[0].max() <= 0.5001
    assert tensor.shape == (1, *shape)


def test_a_picture_need_not_lie_in_order_in_memory(infer, model):
    classifier, image = infer.Classifier(model), pixels()
    turned = np.asfortranarray(image)
    flipped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    for each in (turned, flipped):
        assert np.array_equal(classifier.raw(each), classifier.raw(image))


def test_arrays_are_normalised_and_quantised(infer, tmp_path):
    def change(card):
        card["input"].update(mean=[1, -2], std=[0.5, 4])

    file = write(tmp_path, (5, 2), change=change, input_scale=0.04, input_zero=10)
    x = np.random.default_rng(0).normal(0, 2, (5, 2)).astype(np.float32)
    x[0] = [np.inf, -np.inf]
    exact = ((x.astype(float) - [1, -2]) / [0.5, 4]) / 0.04 + 10
    tensor = infer.Classifier(file).quantise(x)
    assert np.abs(tensor[0] - exact.clip(-128, 127)).max() <= 0.5001


def test_the_answer_is_the_runtimes_dequantised_and_shared_out(infer, model):
    classifier, image = infer.Classifier(model), pixels(5)
    raw = interpreted(tiny_model(), (image.astype(int) - 128).astype(np.int8)[None])
    logits = (raw.astype(float) - OUTPUT_ZERO) * OUTPUT_SCALE
    shares = np.exp(logits) / np.exp(logits).sum()
    assert np.array_equal(classifier.raw(image), raw)
    assert classifier.raw(image).dtype == np.int8
    assert classifier.logits(image).dtype == np.float32
    assert classifier.logits(image) == pytest.approx(logits, rel=1e-6)
    best = sorted(zip(["cat", "dog", "eel"], shares, strict=True), key=lambda pair: -pair[1])
    found = classifier.classify(image, 3)
    assert [label for label, _ in found] == [label for label, _ in best]
    assert [share for _, share in found] == pytest.approx([share for _, share in best], rel=1e-5)
    assert classifier.classify(image, 2) == found[:2]
    assert classifier.classify(image, 99) == found


def test_answers_do_not_change_once_given(infer, model):
    classifier = infer.Classifier(model)
    first = classifier.raw(pixels(1))
    kept, tensor = first.copy(), classifier.quantise(pixels(1))
    again = tensor.copy()
    classifier.raw(pixels(2))
    assert np.array_equal(first, kept)
    assert np.array_equal(tensor, again)


def test_a_classifier_says_what_it_is(infer, model):
    classifier = infer.Classifier(str(model))
    assert classifier.labels == ["cat", "dog", "eel"]
    assert classifier.shape == (4, 4, 3)
    assert classifier.card["made_by"]["pipeline"] == "tiny"
    assert classifier.runtime.startswith("ai-edge-litert 2.")


@pytest.mark.parametrize("wanted", [0, 1, 10_000])
def test_threads_are_no_more_than_the_usable_cores(infer, model, wanted):
    usable = len(os.sched_getaffinity(0))
    assert infer.Classifier(model, wanted).threads == min(wanted or 4, usable)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"expected uint8 \(4, 4, 3\), got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), r"expected uint8 \(4, 4, 3\), got float32 \(4, 4, 3\)"),
    ],
)
def test_a_wrong_shape_or_type_is_refused(infer, model, x, message):
    with pytest.raises(infer.ModelError, match=message):
        infer.Classifier(model).raw(x)


def test_nan_is_refused(infer, tmp_path):
    with pytest.raises(infer.ModelError, match="NaN"):
        infer.Classifier(write(tmp_path, (5, 2))).raw(np.full((5, 2), np.nan, np.float32))


# --- the file


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


# --- the command line


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
    assert err == f"infer.py: {tmp_path}/no.tflite: cannot be read: No such file or directory"


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


def nan_stack() -> np.ndarray:
    return np.full((2, 5, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 2)), "or a stack of them: got float64 (5, 2)"),
        (np.zeros((2, 5), np.float32), "got float32 (2, 5)"),
        (nan_stack(), "it holds NaN; fill the gaps first"),
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
    assert f"{tmp_path}/empty: cannot be read as a picture: Is a directory" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a picture, folder or .npy, - for paths on stdin, --selftest or --bench"),
        (["a.jpg", "--top-k", "0"], "N must be 1 or more"),
        (["a.jpg", "--threads", "-1"], "N must be 1 or more"),
        (["--bench", "ten"], "invalid int value: 'ten'"),
        (["a.jpg", "--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_a_wrong_command_is_a_usage_message_and_2(infer, capsys, model, arguments, message):
    with pytest.raises(SystemExit) as stop:
        infer.main([str(model), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_bench_gives_the_percentiles_of_each_part(answer, model, photos):
    status, out, _ = answer(model, photos, "--bench", 30, "--format", "json", "--threads", 1)
    assert status == 0
    figures = json.loads(out)
    assert (figures["runs"], figures["threads"]) == (30, 1)
    assert figures["load_ms"] > figures["first_ms"] > 0
    for part in ("preprocess", "invoke", "total"):
        places = [figures[f"{part}_p{q}_ms"] for q in (50, 90, 95, 99)]
        assert places == sorted(places)
        assert 0 < places[0] < 100
    assert figures["total_p50_ms"] > figures["invoke_p50_ms"]


def test_bench_needs_no_input_and_prints_a_figure_a_line(answer, model, tmp_path):
    status, out, _ = answer(model, "--bench", 1)
    assert status == 0
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names[:5] == ["runtime", "threads", "runs", "load_ms", "first_ms"]
    assert len(names) == 5 + 3 * 4
    assert answer(write(tmp_path, (5, 2)), "--bench", 1)[0] == 0


def test_bench_of_a_picture_that_cannot_be_read_is_2(answer, model):
    status, out, err = answer(model, "no.jpg", "--bench", 1)
    assert (status, out) == (2, "")
    assert "no.jpg: cannot be read" in err


def test_selftest_passes_where_all_is_as_on_the_workstation(answer, tmp_path):
    status, out, err = answer(write_golden(tmp_path), "--selftest")
    assert (status, err) == (0, "")
    assert out.startswith("passed, ai-edge-litert 2.")


def test_selftest_tells_wrong_preprocessing(answer, tmp_path):
    status, out, _ = answer(write_golden(tmp_path, tensor_off=1), "--selftest")
    assert status == 1
    assert [line.split("; ")[0] for line in out.splitlines()] == [
        "golden vector 0: preprocessing is wrong",
        "golden vector 1: preprocessing is wrong",
    ]


def test_selftest_tells_a_wrong_runtime_bit_by_bit(answer, tmp_path):
    file = write_golden(tmp_path, output_off=1)
    status, out, _ = answer(file, "--selftest", "--format", "json")
    assert status == 1
    record = json.loads(out)
    assert record["selftest"] == "failed"
    (finding,) = record["findings"]
    assert finding.startswith("golden vector 1: the runtime is wrong by 1; take another than ai-")


@pytest.mark.parametrize(("off", "good"), [(1, True), (2, False)])
def test_selftest_lets_other_runtimes_be_off_by_one(infer, tmp_path, off, good):
    classifier = infer.Classifier(write_golden(tmp_path, output_off=off))
    classifier.runtime = "tflite-runtime 2.14.0"
    assert (classifier.selftest() == []) is good


@pytest.mark.parametrize("content", [None, b"", golden_file(pixels()[None], np.zeros((1, 2)))])
def test_selftest_without_golden_vectors_is_2(answer, tmp_path, content):
    def change(card):
        card["golden"] = {"count": 1, "tensors": ["0" * 64]}

    files = {} if content is None else {"golden.npz": content}
    status, out, err = answer(write(tmp_path, files=files, change=change), "--selftest")
    assert (status, out) == (2, "")
    assert err == "infer.py: the model has no golden vectors; build it again with tfedge"


# --- the runtimes


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Have importlib find no runtime but those that the test writes as {module: source}."""

    def put(**sources):
        folder = tmp_path / "packages"
        for name in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
            for loaded in [each for each in sys.modules if each.split(".")[0] == name]:
                monkeypatch.delitem(sys.modules, loaded)
        for name, source in sources.items():
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text(source)
            (folder / name / "interpreter.py").write_text("class Interpreter: pass")
        monkeypatch.setattr(sys, "path", [str(folder)])
        monkeypatch.setattr(sys, "path_importer_cache", {})

    return put


def test_no_runtime_says_what_to_install(infer, packages):
    packages()
    with pytest.raises(
        infer.ModelError, match=r"no TFLite runtime found.*pip install ai-edge-lite"
    ):
        infer.load_runtime()


def test_tflite_runtime_with_numpy_2_says_what_to_install(infer, packages, monkeypatch):
    packages(tflite_runtime="raise SystemError('must not be imported')")
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(infer.ModelError, match=r'with numpy 2\.1\.0: pip install "numpy<2"'):
        infer.load_runtime()


def test_tflite_runtime_with_numpy_1_is_taken(infer, packages, monkeypatch):
    packages(tflite_runtime="__version__ = '2.14.0'", tensorflow="")
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert infer.load_runtime()[0] == "tflite-runtime 2.14.0"


def test_a_runtime_that_does_not_load_gives_way_to_the_next(infer, packages, monkeypatch):
    broken = "raise ImportError('libc.so.6: version GLIBC_2.34 not found')"
    packages(ai_edge_litert=broken, tflite_runtime="")
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert infer.load_runtime()[0] == "tflite-runtime"
    monkeypatch.setenv("TFEDGE_RUNTIME", "ai-edge-litert")
    with pytest.raises(infer.ModelError, match=r"does not load; install it again.*GLIBC_2.34"):
        infer.load_runtime()


def test_a_forced_runtime_that_is_missing_says_what_to_install(infer, packages, monkeypatch):
    packages(ai_edge_litert="")
    monkeypatch.setenv("TFEDGE_RUNTIME", "tflite-runtime")
    with pytest.raises(infer.ModelError, match="pip install tflite-runtime"):
        infer.load_runtime()


def test_an_unknown_forced_runtime_is_refused(answer, model, monkeypatch):
    monkeypatch.setenv("TFEDGE_RUNTIME", "torch")
    status, _, err = answer(model, "a.jpg")
    assert status == 2
    assert "TFEDGE_RUNTIME: must be one of ai-edge-litert, tflite-runtime, tensorflow" in err


@pytest.mark.slow
def test_tensorflow_answers_too(model, photos):
    environment = {**os.environ, "TFEDGE_RUNTIME": "tensorflow"}
    done = script(model, photos / "a.jpg", env=environment)
    assert (done.returncode, done.stdout) == (0, script(model, photos / "a.jpg").stdout)


# --- the process


def test_paths_come_from_stdin_and_answers_as_they_are_ready(model, photos):
    command = [sys.executable, SCRIPT, model, "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for name in ("c.PNG", "a.jpg"):
            process.stdin.write(f"{photos / name}\n\n")
            process.stdin.flush()
            assert process.stdout.readline().startswith(f"{photos / name}\t")
        out, _ = process.communicate()
    assert (process.returncode, out) == (0, "")


def test_a_closed_pipe_ends_it_quietly(model, photos):
    command = [sys.executable, SCRIPT, model, "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdin.write(f"{photos / 'a.jpg'}\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(f"{photos / 'a.jpg'}\n" * 3)
        process.stdin.close()
        err = process.stderr.read()
    assert process.returncode == 141  # as a shell says of SIGPIPE
    assert [line for line in err.splitlines() if not line.startswith("INFO:")] == []


def test_a_full_disk_is_one_line_and_2(model, photos):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, SCRIPT, model, photos]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "infer.py: No space left on device"


def test_ctrl_c_ends_it_without_a_traceback(model, photos):
    command = [sys.executable, SCRIPT, model, "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdin.write(f"{photos / 'a.jpg'}\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_name_or_label_that_cannot_be_printed_is_escaped(tmp_path):
    def change(card):
        card["labels"] = ["猫", "犬", "鰻"]

    model = write(tmp_path, change=change)
    file = tmp_path / os.fsdecode(b"\xff.png")
    with file.open("wb") as stream:
        Image.fromarray(pixels()).save(stream, "PNG")
    done = script(model, file, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    name, label, _ = done.stdout.split("\t")
    assert name.endswith("\\udcff.png")
    assert label in ("\\u732b", "\\u72ac", "\\u9c3b")


def test_without_numpy_it_says_how_to_install_it():
    done = subprocess.run(
        [sys.executable, "-S", SCRIPT, "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "infer.py: needs numpy; install it: pip install numpy\n"


def test_arrays_need_no_pillow_and_nothing_of_tfedge(tmp_path):
    model = write(tmp_path)
    np.save(tmp_path / "x.npy", pixels())
    (tmp_path / "PIL.py").write_text("raise ImportError('no Pillow')\n")
    (tmp_path / "tfedge.py").write_text("raise ImportError('nothing of ours')\n")
    done = script(model, tmp_path / "x.npy", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)


# --- old Pythons


def test_it_is_python_3_7():
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 7))
    # What 3.8 and later added to the modules in use, and to str, dict and int.
    later = {"removeprefix", "removesuffix", "prod", "cached_property", "cache", "pairwise"}
    later |= {"metadata", "randbytes", "bit_count", "as_file", "files", "walrus", "is_relative_to"}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    strict = {
        word.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "zip"
        for word in node.keywords
    }
    assert not used & later
    assert not strict
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)]


def test_it_imports_the_standard_library_numpy_and_pillow_only():
    tree = ast.parse(SCRIPT.read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert names - set(sys.stdlib_module_names) == {"numpy", "PIL"}
