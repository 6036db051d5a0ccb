"""`tfedge compare` with Keras files as users have them, and with networks that were repaired."""

import json

import numpy as np
import pytest
from hard_model import READER, SCALED, hard_model
from small_data import stripes

from tfedge.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untimed")]

MINE = """
import tensorflow as tf
from tf_keras import layers

class Halved(layers.Layer):
    def build(self, shape):
        self.half = self.add_weight("half", (shape[-1],), initializer="ones")
    def call(self, x):
        return tf.cond(tf.reduce_sum(self.half) > 0, lambda: x * self.half, lambda: x)
"""
HEAD = """
[data]
use = "npz"
path = "data.npz"

[network]
use = "import"
file = "{file}"
strict = false
{settings}

[small]
use = "convert"
of = "network"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a hard network and its data, grey and coloured."""
    folder = tmp_path_factory.mktemp("compare_keras")
    data = stripes(train=512, tune=200, test=200)
    hard_model(data).save(folder / "hard.h5")
    for name, colours in (("grey", [1]), ("colour", [1, 0.6, 0.2])):
        arrays = {"labels": np.array(data.labels)}
        for part in ("train", "tune", "test"):
            split = getattr(data, part)
            x = (split.inputs * np.float32(colours)).astype(np.uint8)
            arrays |= {f"x_{part}": x, f"y_{part}": split.classes}
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


@pytest.fixture
def build(place, tmp_path, capsys):
    """A function that imports and converts a file; returns the folder of each stage by name."""

    def run(file, settings="", more="", data="grey"):
        (tmp_path / "data.npz").write_bytes((place / f"{data}.npz").read_bytes())
        pipeline = tmp_path / "p.toml"
        pipeline.write_text(HEAD.format(file=file, settings=settings) + more)
        status = main(["build", str(pipeline), "--build-dir", str(tmp_path / "build")])
        assert status == 0, capsys.readouterr().err
        capsys.readouterr()
        folders = (tmp_path / "build" / "p").glob("*-????????")
        return {folder.name[:-9]: folder for folder in folders}

    return run


@pytest.fixture
def compared(tmp_path, capsys):
    """A function that compares two files; returns what was found, or said with status 2."""

    def run(exact, int8, *options, refused=False):
        command = ["compare", str(exact), str(int8), "--data", str(tmp_path / "data.npz")]
        status = main([*command, "--json", "--count", "8", *options])
        said = capsys.readouterr()
        assert status == (2 if refused else 0), said.err
        return said.err if refused else json.loads(said.out)

    return run


def coloured():
    """Return a network of three colours, fed with 0 to 1."""
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = given = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="first")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="second")(x))
    return keras.Model(given, layers.Dense(4, name="answer")(x))


def test_after_equalisation_the_convert_stages_network_is_the_one_to_compare_with(
    place, build, compared
):
    found = build(place / "hard.h5", more='repair = "equalise"')
    int8 = found["small"] / "model.tflite"
    good = compared(found["small"] / "model.h5", int8)
    assert good["agreement"] > 0.95
    assert min(layer["own_db"] for layer in good["layers"]) > 20
    weights = {
        layer["layer"]: layer["weights_db"] for layer in good["layers"] if "weights_db" in layer
    }
    assert min(weights.values()) > 20
    for older in (found["network"] / "model.h5", place / "hard.h5"):
        said = compared(older, int8, refused=True)
        assert "was equalised" in said
        assert SCALED in said
        assert READER in said
        assert "model.h5 of the convert stage" in said


def test_an_evaluate_stage_keeps_the_network_that_was_converted(place, build):
    more = 'repair = "equalise"\n[tested]\nuse = "evaluate"\nof = "small"\ncost = []\n'
    found = build(place / "hard.h5", more=more)
    kept = [(found[name] / "model.h5").read_bytes() for name in ("small", "tested")]
    assert kept[0] == kept[1]
    assert kept[0] != (found["network"] / "model.h5").read_bytes()


@pytest.mark.parametrize("settings", ["blue_first = true", 'takes = "caffe"'])
def test_a_file_of_swapped_colours_is_refused_and_its_imported_twin_taken(
    tmp_path, build, compared, settings
):
    coloured().save(tmp_path / "net.h5")
    found = build(tmp_path / "net.h5", settings, data="colour")
    int8 = found["small"] / "model.tflite"
    said = compared(tmp_path / "net.h5", int8, refused=True)
    assert "red and blue swapped" in said
    assert "model.h5 of its import stage" in said
    good = compared(found["network"] / "model.h5", int8)
    assert min(layer["arrived_db"] for layer in good["layers"]) > 15


def test_a_layer_of_the_users_own_is_named_and_given_by_an_option(
    tmp_path, build, compared, monkeypatch
):
    from tfedge.networks.backend import keras

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    scope = {"__name__": "mine"}
    exec(MINE, scope)
    keras.backend.clear_session()
    model = coloured()
    x = scope["Halved"](name="own")(model.get_layer("second").output)
    x = model.get_layer("answer")(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(model.inputs, x).save(tmp_path / "own.keras")
    found = build(
        tmp_path / "own.keras", 'custom = "mine.py:Halved"', 'form = "float32"', data="colour"
    )
    made = found["small"] / "model.tflite"
    said = compared(tmp_path / "own.keras", made, refused=True)
    assert "Halved" in said
    assert '--custom "' in said
    assert "custom = " not in said
    assert compared(tmp_path / "own.keras", made, "--custom", "mine.py:Halved")["agreement"] == 1


def test_code_in_a_file_runs_only_where_one_says_so(tmp_path, build, compared):
    from tfedge.networks.backend import keras

    model = coloured()
    x = keras.layers.Lambda(lambda x: x * 2.0, name="doubled")(model.get_layer("second").output)
    x = model.get_layer("answer")(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(model.inputs, x).save(tmp_path / "code.h5")
    found = build(tmp_path / "code.h5", "trust = true", data="colour")
    int8 = found["small"] / "model.tflite"
    said = compared(tmp_path / "code.h5", int8, refused=True)
    assert "layer 'doubled' (Lambda) holds code" in said
    assert "give --trust" in said
    assert compared(tmp_path / "code.h5", int8, "--trust")["agreement"] > 0.8


def test_a_savedmodel_folder_is_taken_as_import_takes_it(tmp_path, build, compared):
    coloured().save(tmp_path / "saved", save_format="tf")
    found = build(tmp_path / "saved", data="colour")
    int8 = found["small"] / "model.tflite"
    kinds = {layer["kind"] for layer in compared(tmp_path / "saved", int8)["layers"]}
    assert "Conv2D" in kinds
    said = compared(found["network"] / "model.h5", found["small"], refused=True)
    assert "is a folder\n  give the .tflite file in it" in said


def test_a_quantization_aware_network_still_compares_with_its_file(tmp_path, build, compared):
    coloured().save(tmp_path / "net.h5")
    more = (
        '[aware]\nuse = "qat"\nof = "network"\nepochs = 1\n[int8]\nuse = "convert"\nof = "aware"\n'
    )
    found = build(tmp_path / "net.h5", more=more, data="colour")
    good = compared(found["int8"] / "model.h5", found["int8"] / "model.tflite")
    assert good["agreement"] > 0.9


def test_a_picture_in_a_folder_that_is_not_there_is_refused_before_the_work(tmp_path, capsys):
    picture = tmp_path / "no" / "x.svg"
    command = ["compare", "a.h5", "b.tflite", "--data", "c.npz", "--plot", str(picture)]
    assert main(command) == 2
    assert f"{picture}: its folder does not exist\n" in capsys.readouterr().err
