import json
import sys

import numpy as np
import pytest
from conftest import STRIPES
from small_data import stripes
from test_comparison import depthwise_net

from tfedge.cli import main
from tfedge.report import comparison

MADE = {"tfedge": "0", "pipeline": "p", "stage": "s", "key": "0" * 64}
LAYER = {"kind": "Conv2D", "arrived_db": 30.0, "lost": 0, "channels": 8}
FOUND = {
    "float": {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.95, "count": 100},
    "quantised": {"accuracy": 0.6, "accuracy_low": 0.5, "accuracy_high": 0.7, "count": 100},
    "agreement": 0.625,
    "split": "test",
    "inputs": 32,
    "left_out": 2,
    "layers": [
        LAYER | {"layer": "b", "fused": ["b", "b_relu"], "own_db": 2.5, "order": 2, "lost": 3},
        LAYER | {"layer": "a", "fused": ["a"], "own_db": 40.0, "order": 1, "weights_db": 45.0},
    ],
}


def small_net(data, widths=(8, 8)):
    """Train for a few steps, so that classes are told apart."""
    from models.small import stack
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = stack(data.shape, len(data.labels), widths)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(data.normalise(data.train.inputs), data.train.classes, epochs=15, verbose=0)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A float network as .h5 and .tflite, the int8 file with its card, and data."""
    from tfedge.networks.saving import save_model
    from tfedge.tflite.conversion import to_float, to_int8
    from tfedge.tflite.packing import pack

    place, data = tmp_path_factory.mktemp("compare"), stripes()
    model = small_net(data)
    save_model(model, place / "model.h5")
    (place / "float.tflite").write_bytes(to_float(model))
    int8 = to_int8(model, data.normalise(data.tune.inputs), data.limits())
    (place / "model.tflite").write_bytes(pack(int8, data, MADE, golden=0))
    (place / "bare.tflite").write_bytes(int8)
    (place / "other.tflite").write_bytes(to_float(depthwise_net()))
    (place / "broken.h5").write_bytes(b"no network")
    np.savez(place / "data.npz", x_test=data.test.inputs, y_test=data.test.classes)
    return place


def run(folder, *arguments, exact="float.tflite", int8="model.tflite", data="data.npz"):
    files = [str(folder / exact), str(folder / int8), "--data", str(folder / data)]
    return main(["compare", *files, *arguments])


def said(capsys, *arguments):
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_figures_are_those_of_both_files_over_the_data(folder, capsys):
    from ai_edge_litert.interpreter import Interpreter

    found = said(capsys, folder)
    data, answers = stripes(), {}
    for word, file in (("float", "float.tflite"), ("quantised", "bare.tflite")):
        run_ = Interpreter(str(folder / file))
        run_.allocate_tensors()
        given, made = run_.get_input_details()[0], run_.get_output_details()[0]
        answers[word] = []
        for x in data.test.inputs:
            fed = x / np.float32(255) if word == "float" else (x.astype(np.int16) - 128)
            run_.set_tensor(given["index"], fed[None].astype(given["dtype"]))
            run_.invoke()
            answers[word].append(run_.get_tensor(made["index"])[0].argmax())
        right = np.mean(np.array(answers[word]) == data.test.classes)
        assert found[word]["accuracy"] == pytest.approx(right)
    agreement = np.mean(np.array(answers["float"]) == answers["quantised"])
    assert found["agreement"] == pytest.approx(agreement)
    assert (found["split"], found["inputs"], found["left_out"]) == ("test", 32, 0)


@pytest.mark.slow
def test_a_keras_file_compares_as_its_float_tflite_does_and_knows_the_classes(folder, capsys):
    bare = said(capsys, folder)
    assert run(folder, "--json", exact="model.h5") == 0
    keras = json.loads(capsys.readouterr().out)
    kinds = {layer["layer"]: layer["kind"] for layer in keras["layers"]}
    assert kinds["conv2d"] == "Conv2D"
    assert kinds["dense"] == "Dense"
    others = {layer["layer"]: layer["own_db"] for layer in bare["layers"]}
    for layer in keras["layers"]:
        if layer["kind"] != "InputLayer":
            assert layer["own_db"] == pytest.approx(others[layer["layer"]], abs=0.01)


@pytest.mark.slow
def test_table_and_picture(folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert run(folder, "--plot", str(tmp_path / "x.svg"), "--count", "4") == 0
    out = capsys.readouterr().out
    assert "agreement  " in out
    assert "Layers were compared on 4 inputs." in out
    assert "conv2d_1" in out
    assert (tmp_path / "x.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.slow
def test_a_pipeline_gives_its_test_split(folder, tmp_path, capsys):
    file = str(STRIPES / "stripes.toml")
    files = [str(folder / "float.tflite"), str(folder / "model.tflite")]
    arguments = ["--set", "data.count=300", "--build-dir", str(tmp_path), "--json"]
    assert main(["compare", *files, "--data", file, *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["split"] == "test"
    assert found["float"]["count"] < 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"exact": "no.h5"}, "no.h5: No such file or directory"),
        ({"int8": "no.tflite"}, "no.tflite: No such file or directory"),
        ({"int8": "bare.tflite"}, "bare.tflite: has no card"),
        ({"exact": "bare.tflite"}, "the float file: is quantised in"),
        ({"exact": "other.tflite"}, "takes (8, 8, 3), the quantised file (8, 8, 1)"),
        ({"exact": "broken.h5"}, "broken.h5: is no Keras model, or is damaged"),
    ],
)
def test_files_that_cannot_be_compared_are_named_with_what_to_do(folder, capsys, files, message):
    assert run(folder, **files) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_missing_matplotlib_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(comparison.UserError, match=r"needs matplotlib\n.*pip install matplotlib"):
        comparison.plot(FOUND)


def test_the_picture_shows_every_layer_and_repeats():
    pytest.importorskip("matplotlib")
    picture = comparison.plot(FOUND)
    assert picture == comparison.plot(FOUND)
    assert b"<!-- a -->" in picture
    assert b"<!-- b -->" in picture


def test_the_table_has_the_worst_first_and_says_what_it_left_out():
    text = comparison.table(FOUND)
    lines = text.splitlines()
    assert lines[0] == "float      90.00 % (85.00 to 95.00), 100 inputs of test"
    assert lines[2] == "agreement  62.50 %"
    rows = [line.split() for line in lines]
    assert ["b", "+", "b_relu", "Conv2D", "2.5", "30.0", "3", "of", "8"] in rows
    assert ["a", "Conv2D", "40.0", "30.0", "45.0"] in rows
    assert text.index("b + b_relu") < text.index("a   ")
    assert "2 operators have no partner" in text
    assert all(len(line) <= 100 for line in lines)


def test_help_says_what_float_is(capsys):
    assert main(["compare", "-h"]) == 0
    out = capsys.readouterr().out
    assert "compare [OPTIONS] FLOAT INT8" in out
    assert "model.h5" in out
