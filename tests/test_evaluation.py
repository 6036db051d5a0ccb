import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from small_data import stripes
from tiny_model import card_for, tiny_model, with_card

from tfedge.data.dataset import Split
from tfedge.data.examples import examples
from tfedge.data.sampling import calibration, stratified
from tfedge.errors import UserError
from tfedge.progress import Silent
from tfedge.tflite import card
from tfedge.tflite.evaluation import changes, evaluate
from tfedge.tflite.packing import pack, with_measured
from tfedge.tflite.reliability import reliability

MADE = {"tfedge": "0", "pipeline": "p", "stage": "s", "key": "0" * 64}


@pytest.fixture
def model(tmp_path):
    """A file of three classes and 4x4x3 pixels."""
    flatbuffer = tiny_model()
    file = tmp_path / "tiny.tflite"
    file.write_bytes(with_card(flatbuffer, card_for(flatbuffer, (4, 4, 3), 3), {}))
    return file


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 4, 4, 3)).astype(np.uint8)
    return Split(pixels, rng.integers(0, 3, 50))


def test_figures_are_those_counted_by_hand(model, split, infer):
    device = infer.Classifier(str(model))
    labels = tuple(device.labels)
    answers = np.array([device.logits(pixels).argmax() for pixels in split.inputs])
    exact = np.where(np.arange(50) < 40, answers, (answers + 1) % 3)
    reference = np.eye(3, dtype=np.float32)[exact]

    found = evaluate(model, split, labels, "test", Silent(), reference=reference)

    assert found["accuracy"] == pytest.approx(np.mean(answers == split.classes))
    assert found["agreement"] == pytest.approx(0.8)
    for row, column in np.ndindex(3, 3):
        count = np.sum((split.classes == row) & (answers == column))
        assert found["confusion"][row][column] == count
    for number, label in enumerate(labels):
        own = split.classes == number
        assert found["per_class"][label] == pytest.approx(np.mean(answers[own] == number))
    assert 0 < found["host_ms_p50"] <= found["host_ms_p90"]
    assert found["runtime"] == device.runtime
    lost = np.flatnonzero((exact == split.classes) & (answers != split.classes))
    assert found["changed"]["lost"] == len(lost) == len(found["changed"]["shown"])
    assert [one["input"] for one in found["changed"]["shown"]] == lost.tolist()
    assert found["changed"]["won"] == np.sum((exact != split.classes) & (answers == split.classes))
    assert found["reliability"] == reliability(
        np.array([device.logits(pixels) for pixels in split.inputs]), split.classes
    )
    assert found["float_reliability"] == reliability(reference, split.classes)


def test_what_was_lost_is_shown_of_every_class_in_its_turn():
    classes = np.repeat([0, 1], [100, 3])
    found = changes(np.full(103, 2), classes.copy(), classes)
    assert found["lost"] == 103
    assert found["won"] == 0
    shown = [one["true"] for one in found["shown"]]
    assert (shown.count(0), shown.count(1)) == (21, 3)
    assert found["shown"][0] == {"input": 0, "true": 0, "answered": 2}


def test_the_calibration_error_is_that_worked_by_hand():
    # Confidences 0.9 (twice, one right) and 0.6 (right): bins 13 and 9 of 15.
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    found = reliability(np.log(shares), np.array([0, 1, 1]))
    assert found["error"] == pytest.approx((2 * 0.4 + 1 * 0.4) / 3)
    assert [one["count"] for one in found["bins"]] == [1, 2]
    assert found["bins"][1]["confidence"] == pytest.approx(0.9)
    assert found["bins"][1]["accuracy"] == 0.5


def test_confidence_of_classes_that_do_not_compete_is_each_classs_own():
    logits = np.log(np.array([[0.9, 0.8]]) / np.array([[0.1, 0.2]]))
    (one,) = reliability(logits, np.array([0]), "sigmoid")["bins"]
    assert one["confidence"] == pytest.approx(0.9)


def test_data_of_other_classes_is_refused(model, split):
    with pytest.raises(UserError, match="the data has cat, cow, dog"):
        evaluate(model, split, ("cat", "cow", "dog"), "test", Silent())


def test_a_damaged_file_is_refused_in_one_line(model, split):
    model.write_bytes(model.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"tiny\.tflite: "):
        evaluate(model, split, ("a", "b", "c"), "test", Silent())


def packed(golden=2):
    data = stripes()
    flatbuffer = tiny_model(shape=(8, 8, 1), classes=4)
    return data, pack(flatbuffer, data, MADE, golden=golden)


def test_golden_vectors_are_inputs_of_tune_with_what_the_runtime_answers(tmp_path, infer):
    data, content = packed()
    file = tmp_path / "m.tflite"
    file.write_bytes(content)
    known, files = card.read(content, file)
    with np.load(io.BytesIO(files[card.GOLDEN])) as golden:
        inputs, outputs = golden["inputs"], golden["outputs"]
    assert inputs.shape == (2, 8, 8, 1)
    assert all(any(np.array_equal(x, y) for y in data.tune.inputs) for x in inputs)
    device = infer.Classifier(str(file))
    assert np.array_equal(outputs, [device.raw(x) for x in inputs])
    by_hand = [(x ^ 0x80).view(np.int8).tobytes() for x in inputs]  # [0, 1] in steps of 1/255
    assert known.golden == tuple(hashlib.sha256(tensor).hexdigest() for tensor in by_hand)


def test_the_same_model_packs_to_the_same_bytes():
    assert packed()[1] == packed()[1]


def test_a_file_may_go_without_golden_vectors():
    known, files = card.read(packed(golden=0)[1], "x")
    assert known.golden == ()
    assert card.GOLDEN not in files


def test_measured_figures_join_the_card_without_what_a_clock_said():
    _, content = packed()
    figures = {"split": "tune", "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6,
               "count": 96, "host_ms_p50": 0.1, "confusion": []}  # fmt: skip
    known, files = card.read(with_measured(content, figures, "x"), "x")
    kept = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "count": 96}
    assert known.measured == {"tune": kept}
    assert files == card.read(content, "x")[1]


def test_every_class_comes_before_a_second_of_any():
    classes = np.array([0, 0, 0, 1, 2, 1, 0])
    assert classes[stratified(classes, 3)].tolist() == [0, 1, 2]
    assert classes[stratified(classes, 5)].tolist() == [0, 1, 2, 0, 1]
    assert sorted(stratified(classes, 100)) == list(range(7))


def test_calibration_inputs_are_normalised_tune_inputs():
    data = stripes()
    samples = calibration(data, 8)
    tune = data.normalise(data.tune.inputs)
    assert len(samples) == 8
    assert all(any(np.array_equal(sample, x) for x in tune) for sample in samples)


SHAPE, LABELS, SIZING = (4, 4, 3), ("cat", "dog"), ("nearest", "stretch")


@pytest.fixture
def photos(tmp_path):
    for label, level in (("cat", 10), ("dog", 200)):
        for split in ("train", "test"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (4, 4), (level, level, level)).save(folder / "1.png")
    return tmp_path


def test_of_a_folder_with_splits_the_test_split_is_measured(photos):
    found, name = examples(photos, LABELS, SHAPE, SIZING)
    assert name == "test"
    assert found.inputs.shape == (2, 4, 4, 3)
    assert sorted(found.inputs[:, 0, 0, 0].tolist()) == [10, 200]
    assert found.classes.tolist() == [0, 1]


def test_of_a_folder_without_splits_everything_is_measured(photos):
    found, name = examples(photos / "train", LABELS, SHAPE, SIZING)
    assert name == "all"
    assert len(found.classes) == 2


def test_strange_folders_and_broken_photos_are_named_together(photos):
    (photos / "test/cow").mkdir()
    Image.new("RGB", (4, 4)).save(photos / "test/cow/1.png")
    (photos / "test/cat/2.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        examples(photos, LABELS, SHAPE, SIZING)
    assert "it knows cat, dog" in str(caught.value)
    assert "cow" in str(caught.value)
    assert "2.png" in str(caught.value)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no photo"):
        examples(tmp_path, LABELS, SHAPE, SIZING)


def npz(folder, **arrays):
    np.savez(folder / "x.npz", **arrays)
    return examples(folder / "x.npz", LABELS, (3, 2), ("", ""))[0]


def test_arrays_are_measured_by_number_or_by_name(tmp_path):
    x = np.ones((4, 3, 2))
    assert npz(tmp_path, x=x, y=np.array([0, 1, 1, 0])).classes.tolist() == [0, 1, 1, 0]
    named = npz(tmp_path, x_test=x, y_test=np.array(["dog", "cat", "dog", "dog"]))
    assert named.classes.tolist() == [1, 0, 1, 1]
    assert named.inputs.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((4, 3, 2))}, "has no 'y'\n  write x_test and y_test, or x and y"),
        ({"x": np.ones((4, 3)), "y": np.zeros(4, int)}, "x holds (3,), the model takes (3, 2)"),
        ({"x": np.ones((1, 3, 2)), "y": np.array([2])}, "y must be from 0 to 1, got 2 to 2"),
        ({"x": np.ones((4, 3, 2)), "y": np.zeros(3, int)}, "x has 4 rows and y 3"),
        ({"x": np.ones((0, 3, 2)), "y": np.zeros(0, int)}, "x has 0 rows and y 0"),
        ({"x": np.ones((1, 3, 2)), "y": np.array([0.5])}, "y is float64\n  write class numbers"),
        (
            {"x": np.ones((4, 3, 2)), "y": np.zeros((4, 1), int)},
            "y holds (4, 1)\n  write one class",
        ),
        ({"x": np.ones((1, 3, 2)), "y": np.array(["cow"])}, "'cow', which is no class"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, arrays, message):
    with pytest.raises(UserError) as caught:
        npz(tmp_path, **arrays)
    assert message in str(caught.value)


def test_pixels_must_be_bytes_and_photos_need_a_model_for_them(tmp_path, photos):
    np.savez(tmp_path / "x.npz", x=np.ones((2, 4, 4, 3)), y=np.array([0, 1]))
    with pytest.raises(UserError, match="x is float64, the model takes pixels"):
        examples(tmp_path / "x.npz", LABELS, SHAPE, SIZING)
    with pytest.raises(UserError, match="holds photos, the model takes arrays"):
        examples(photos, LABELS, (3, 2), ("", ""))
