"""Files that are no Keras model, or are one no more."""

import json
import zipfile

import pytest
from small_networks import SHAPE, network, rewrite

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def f():
    from tfedge.networks import files

    return files


@pytest.fixture(scope="module")
def k2(f):
    return f.keras


@pytest.fixture(scope="module")
def k3():
    import keras

    return keras


@pytest.mark.parametrize("name", ["k2", "k3"])
def test_weights_alone_are_refused_with_what_to_save(f, request, tmp_path, name):
    file = tmp_path / "n.weights.h5"
    network(request.getfixturevalue(name)).save_weights(file)
    with pytest.raises(UserError) as caught:
        f.opened(file, SHAPE)
    assert f"{file}: holds weights and no network" in str(caught.value)
    assert "model.save(" in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("name", ["k2", "k3"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_file_cut_off_is_refused(f, request, tmp_path, name, ending, share):
    file = tmp_path / f"n.{ending}"
    network(request.getfixturevalue(name)).save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"is no Keras model, or is damaged|Keras cannot read it"):
        f.opened(file, SHAPE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.keras", b"what I did last summer"),
        ("notes.h5", b"what I did last summer"),
        ("empty.keras", b""),
        ("empty.h5", b""),
    ],
)
def test_a_file_that_is_no_model_is_refused(f, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="is no Keras model, or is damaged") as caught:
        f.opened(tmp_path / name, SHAPE)
    assert "give a .keras or .h5 file, or a SavedModel folder" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("n.keras", {"metadata.json": '{"who": "me"}'}),
        ("n.keras", {"a.txt": "x"}),
        ("n.npz", {"x.npy": "x"}),
        ("n.tflite", {"card.json": "{}"}),
        ("n.keras", {"metadata.json": "{}", "config.json": "{}"}),
        ("n.keras", {"metadata.json": "{}", "config.json": "[]"}),
    ],
)
def test_a_zip_of_something_else_is_refused(f, tmp_path, name, content):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for inside, text in content.items():
            archive.writestr(inside, text)
    with pytest.raises(UserError, match="is no Keras model") as caught:
        f.opened(tmp_path / name, SHAPE)
    assert "give a .keras or .h5 file" in str(caught.value)


def test_a_keras_file_of_another_name_is_to_be_renamed(f, k3, tmp_path):
    network(k3).save(tmp_path / "n.keras")
    (tmp_path / "n.keras").rename(tmp_path / "n.zip")
    with pytest.raises(UserError, match=r"rename it to end in \.keras"):
        f.opened(tmp_path / "n.zip", SHAPE)


def test_a_network_without_its_weights_is_refused(f, k3, tmp_path):
    network(k3).save(tmp_path / "n.keras")
    rewrite(tmp_path / "n.keras", {"model.weights.h5": None})
    with pytest.raises(UserError, match="holds a network without its weights") as caught:
        f.opened(tmp_path / "n.keras", SHAPE)
    assert "model.save(" in str(caught.value)


@pytest.mark.parametrize("version", ["abc", "", None, "v3"])
def test_a_version_that_is_no_number_is_refused(f, k3, tmp_path, version):
    network(k3).save(tmp_path / "n.keras")
    rewrite(tmp_path / "n.keras", {"metadata.json": json.dumps({"keras_version": version})})
    with pytest.raises(UserError, match="which is no version"):
        f.opened(tmp_path / "n.keras", SHAPE)


def test_a_folder_that_is_no_model_is_refused(f, tmp_path):
    with pytest.raises(UserError, match="is no SavedModel"):
        f.opened(tmp_path, SHAPE)


def test_a_missing_file_is_refused(f, tmp_path):
    with pytest.raises(UserError, match=r"gone\.keras: No such file or directory"):
        f.opened(tmp_path / "gone.keras", SHAPE)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("content", [b"", b"no metadata", b"\x0a\x04\x12\x02{}"])
def test_a_saved_model_with_damaged_metadata_is_refused(f, k2, tmp_path, content):
    network(k2).save(tmp_path / "folder", save_format="tf")
    (tmp_path / "folder" / "keras_metadata.pb").write_bytes(content)
    with pytest.raises(UserError, match=r"keras_metadata\.pb: is damaged"):
        f.opened(tmp_path / "folder", SHAPE)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_saved_model_that_cannot_say_its_layers_is_refused(f, k2, tmp_path):
    class Silent(k2.layers.Layer):
        def get_config(self):
            raise NotImplementedError

    network(k2, Silent()).save(tmp_path / "folder", save_format="tf")
    with pytest.raises(UserError, match="says nothing of its layers") as caught:
        f.opened(tmp_path / "folder", SHAPE, custom={"Silent": Silent})
    assert "get_config()" in str(caught.value)
