import zipfile

import numpy as np
import pytest
from random_weights import difference, randomise
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


def subclassed(k):
    class Net(k.Model):
        def __init__(self, **named):
            super().__init__(**named)
            self.conv, self.pool = k.layers.Conv2D(6, 3), k.layers.GlobalAveragePooling2D()
            self.answer = k.layers.Dense(4)

        def call(self, x):
            return self.answer(self.pool(self.conv(x)))

    return Net


def images():
    return np.random.default_rng(0).uniform(0, 1, (3, *SHAPE)).astype(np.float32)


def same(f, file, model, **options):
    """Open a file and prove that it and the graph of it answer as the model that was saved."""
    from tfedge.networks.graph import build

    graph, told = f.opened(file, SHAPE, **options)
    expected = np.asarray(model(images(), training=False))
    assert difference(told(images()), expected) < 1e-6
    assert difference(build(graph)(images(), training=False), expected) < 1e-5
    return graph


SAVED = [("k2", "n.keras"), ("k2", "n.h5"), ("k2", "folder"), ("k3", "n.keras"), ("k3", "n.h5")]


def save(k, model, file):
    """Save as a user would; a name without an ending is a SavedModel's folder."""
    named = {"save_format": "tf"} if not file.suffix else {}
    model.save(file, **named)


@pytest.fixture(params=SAVED, ids=" ".join)
def kind(request, tmp_path):
    """A Keras and the file that it is to save in."""
    name, file = request.param
    return request.getfixturevalue(name), tmp_path / file


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_either_keras_saves_is_read(f, kind):
    k, file = kind
    model = network(k)
    save(k, model, file)
    graph = same(f, file, model)
    assert [call.layer.kind.__name__ for call in graph.calls] == [
        *("Conv2D", "BatchNormalization", "ReLU", "GlobalAveragePooling2D", "Dense"),
    ]
    assert {call.layer.kind.__module__.split(".")[0] for call in graph.calls} == {"tf_keras"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_lambda_is_refused_by_name_and_run_with_trust(f, kind):
    k, file = kind
    model = network(k, k.layers.Lambda(lambda x: x * 2 + 1, name="doubled"))
    save(k, model, file)
    with pytest.raises(UserError) as caught:
        f.opened(file, SHAPE)
    text = str(caught.value)
    assert text.startswith(f"{file}: layer 'doubled' (Lambda) holds code")
    assert "write trust = true; or replace the layer by Keras's own" in text
    graph = same(f, file, model, trust=True)
    assert "Affine" in [call.layer.kind.__name__ for call in graph.calls]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_code_of_a_file_runs_before_it_is_refused(f, kind, tmp_path):
    k, file = kind
    mark = str(tmp_path / "ran")
    sly = eval(f"lambda x: (open({mark!r}, 'w').close(), x)[1]")  # the path must be in its code
    save(k, network(k, k.layers.Lambda(sly, name="sly")), file)
    (tmp_path / "ran").unlink()
    with pytest.raises(UserError, match="layer 'sly'"):
        f.opened(file, SHAPE)
    assert not (tmp_path / "ran").exists()
    f.opened(file, SHAPE, trust=True)
    assert (tmp_path / "ran").exists()  # so that the test could have seen it


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_lambda_in_a_model_in_the_model_is_refused(f, kind):
    k, file = kind
    inner = k.Sequential([k.Input((6, 6, 6)), k.layers.Lambda(lambda x: x + 1, name="deep")])
    save(k, network(k, inner), file)
    with pytest.raises(UserError, match=r"layer 'deep' \(Lambda\) holds code"):
        f.opened(file, SHAPE)


def test_a_class_from_elsewhere_is_not_imported(f, k2, tmp_path, monkeypatch):
    # tf_keras imports whatever module a file names; one that is in the user's folder would run.
    (tmp_path / "sly_module.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "n.keras"
    network(k2).save(file)
    own, sly = (
        '"module": "' + name + '", "class_name": "ReLU"' for name in ("keras.layers", "sly_module")
    )
    edit(file, lambda text: text.replace(own, sly))
    with pytest.raises(UserError, match=r"layer 're_lu.*' \(ReLU\) is not Keras's"):
        f.opened(file, SHAPE)
    assert not (tmp_path / "ran").exists()


def edit(file, change):
    """Change the config in a .keras file."""
    with zipfile.ZipFile(file) as archive:
        before = archive.read("config.json").decode()
    assert change(before) != before
    rewrite(file, {"config.json": change(before)})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_layer_of_the_users_own_is_read_with_custom_and_refused_without(f, k2, tmp_path):
    class Mixed(k2.layers.Layer):
        def build(self, shape):
            self.mix = self.add_weight(name="mix", shape=(shape[-1], shape[-1]))

        def call(self, x):
            import tensorflow as tf

            return tf.einsum("bhwc,cd->bhwd", x, self.mix)

    model = network(k2, Mixed(name="mine"))
    for name in ("n.keras", "n.h5"):
        model.save(tmp_path / name)
        with pytest.raises(UserError) as caught:
            f.opened(tmp_path / name, SHAPE)
        assert "Mixed" in str(caught.value)
        assert 'custom = "layers.py:M' in str(caught.value)
        graph = same(f, tmp_path / name, model, custom={"Mixed": Mixed})
        assert Mixed in [call.layer.kind for call in graph.calls]


def test_a_function_that_the_file_only_names_is_asked_for(f, k3, tmp_path):
    def mine(x):
        return x + 1

    model = network(k3, k3.layers.Lambda(mine))
    model.save(tmp_path / "n.keras")
    with pytest.raises(UserError, match="calls a function 'mine'") as caught:
        f.opened(tmp_path / "n.keras", SHAPE, trust=True)
    assert 'custom = "layers.py:mine"' in str(caught.value)
    same(f, tmp_path / "n.keras", model, trust=True, custom={"mine": mine})


@pytest.mark.parametrize("name", ["k2", "k3"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_function_of_the_users_own_as_activation_is_followed(f, request, tmp_path, name, inside):
    k = request.getfixturevalue(name)

    def mine(x):
        return x * 2 + 1

    layers = k.layers
    part = layers.Conv2D(6, 1, activation=mine) if inside else layers.Activation(mine)
    model = network(k, part)
    model.save(tmp_path / "n.keras")
    with pytest.raises(UserError, match="mine"):
        f.opened(tmp_path / "n.keras", SHAPE)
    graph = same(f, tmp_path / "n.keras", model, custom={"mine": mine})
    assert [call.layer.kind.__name__ for call in graph.calls].count("Affine") == 2


def test_a_layer_made_of_layers_is_taken_apart(f, k2, tmp_path):
    class Twice(k2.layers.Layer):
        def __init__(self, **named):
            super().__init__(**named)
            self.conv = k2.layers.Conv2D(6, 3, padding="same")

        def call(self, x):
            return self.conv(self.conv(x)) + x

    model = network(k2, Twice(name="twice"))
    model.save(tmp_path / "n.keras")
    graph = same(f, tmp_path / "n.keras", model, custom={"Twice": Twice})
    assert [call.layer.kind.__name__ for call in graph.calls].count("Conv2D") == 3


@pytest.mark.parametrize("name", ["k2", "k3"])
def test_a_subclassed_model_is_read_with_its_class(f, request, tmp_path, name):
    k, file = request.getfixturevalue(name), tmp_path / "n.keras"
    kind = subclassed(k)
    model = kind()
    model(images())
    randomise(model)
    model.save(file)
    graph = same(f, file, model, custom={"Net": kind})
    assert [call.layer.kind.__name__ for call in graph.calls] == [
        *("Conv2D", "GlobalAveragePooling2D", "Dense"),
    ]
    with pytest.raises(UserError, match="Net"):
        f.opened(file, SHAPE)


def test_a_subclassed_model_in_a_saved_model_is_read_with_its_class(f, k2, tmp_path):
    kind = subclassed(k2)
    model = kind()
    model(images())
    randomise(model)
    model.save(tmp_path / "folder", save_format="tf")
    same(f, tmp_path / "folder", model, custom={"Net": kind})


@pytest.mark.parametrize("name", ["k2", "k3"])
def test_an_exported_saved_model_is_refused_with_what_to_save(f, request, tmp_path, name, capfd):
    network(request.getfixturevalue(name)).export(tmp_path / "exported")
    with pytest.raises(UserError) as caught:
        f.opened(tmp_path / "exported", SHAPE)
    assert "is a SavedModel without a Keras model in it" in str(caught.value)
    assert 'model.save("model.keras")' in str(caught.value)


@pytest.mark.parametrize("name", ["k2", "k3"])
@pytest.mark.parametrize("named", [False, True])
def test_the_one_answer_of_a_dictionary_is_taken(f, request, tmp_path, name, named):
    k = request.getfixturevalue(name)
    plain = network(k)
    given = plain.inputs[0]
    outputs = {"out": plain.outputs[0]}
    model = k.Model({given.name.split(":")[0]: given} if named else given, outputs)
    model.save(tmp_path / "n.keras")
    graph, told = f.opened(tmp_path / "n.keras", SHAPE)
    expected = np.asarray(plain(images(), training=False))
    assert difference(told(images()), expected) < 1e-6
    from tfedge.networks.graph import build

    assert difference(build(graph)(images()), expected) < 1e-5


def test_what_is_no_model_is_refused(f):
    with pytest.raises(UserError, match=r"returned builtins\.int, which is no Keras model"):
        f.made_by(3, SHAPE)


def test_a_network_that_is_trained_in_8_bits_already_is_refused(f, tmp_path):
    from tfedge.networks.saving import save_model
    from tfedge.training.quantization import quantization_aware

    aware = quantization_aware(network(f.keras), images(), (0.0, 1.0))
    save_model(aware, tmp_path / "n.h5")
    with pytest.raises(UserError, match="was made quantization-aware already"):
        f.opened(tmp_path / "n.h5", SHAPE)


def test_prunings_wrappers_are_taken_off(f, k2, tmp_path):
    from tensorflow_model_optimization.sparsity.keras import prune_low_magnitude

    model = network(k2)
    prune_low_magnitude(model).save(tmp_path / "n.h5", include_optimizer=False)
    same(f, tmp_path / "n.h5", model)
