"""Files that would run something of their own: none of it runs before the user allows it."""

import io
import json
import zipfile

import numpy as np
import pytest
from random_weights import difference
from small_networks import SHAPE, network, rewrite

from tfedge.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.fixture(scope="module")
def f():
    from tfedge.networks import files

    return files


@pytest.fixture(scope="module")
def k(f):
    return f.keras


@pytest.fixture(scope="module")
def k3():
    import keras

    return keras


def writing(k, mark):
    """Return a layer class whose call writes a file, in Python and in the graph that is saved."""
    import tensorflow as tf

    class Writing(k.layers.Layer):
        def call(self, x):
            with tf.control_dependencies([tf.io.write_file(str(mark), "x")]):
                return tf.identity(x)

    return Writing


def refused(f, file, mark, *words, **options):
    mark.unlink(missing_ok=True)
    with pytest.raises(UserError) as caught:
        f.opened(file, SHAPE, **options)
    assert not mark.exists()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("trust", [False, True])
def test_a_layer_in_a_saved_model_does_not_run_and_is_asked_for(f, k, tmp_path, trust):
    mark = tmp_path / "ran"
    network(k, writing(k, mark)(name="sly")).save(tmp_path / "folder")
    k.models.load_model(tmp_path / "folder").predict(np.zeros((1, *SHAPE)), verbose=0)
    assert mark.exists()  # so that the test could see it
    words = "layer 'sly' (Writing) is not Keras's own", 'custom = "layers.py:Writing"'
    refused(f, tmp_path / "folder", mark, *words, trust=trust)


def test_a_subclassed_saved_model_does_not_run_and_is_asked_for(f, k, tmp_path):
    mark = tmp_path / "ran"

    class Net(k.Model):
        def __init__(self, **named):
            super().__init__(**named)
            self.sly, self.answer = writing(k, mark)(), k.layers.Dense(4)

        def call(self, x):
            return self.answer(k.layers.Flatten()(self.sly(x)))

    model = Net(name="mine")
    model(np.zeros((1, *SHAPE), np.float32))
    model.save(tmp_path / "folder", save_format="tf")
    words = "layer 'mine' (Net) is not Keras's own", 'custom = "layers.py:Net"'
    refused(f, tmp_path / "folder", mark, *words)


def test_the_program_in_a_saved_model_is_never_looked_at(f, k, tmp_path):
    # TensorFlow's loader would run initialisers and regularisers that are in it.
    model = network(k)
    model.save(tmp_path / "folder", save_format="tf")
    (tmp_path / "folder" / "saved_model.pb").write_bytes(b"no program")
    graph, answers = f.opened(tmp_path / "folder", SHAPE)
    x = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    assert difference(answers(x), model(x).numpy()) < 1e-6
    assert len(graph.calls) == 5


def test_a_saved_model_whose_class_has_changed_is_refused(f, k, tmp_path):
    class Scaled(k.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(name="scale", shape=(shape[-1],))

        def call(self, x):
            return x * self.scale

    class Changed(Scaled):
        def build(self, shape):
            self.factor = self.add_weight(name="factor", shape=(shape[-1],))

        def call(self, x):
            return x * self.factor

    network(k, Scaled(name="mine")).save(tmp_path / "folder", save_format="tf")
    with pytest.raises(UserError, match="holds no numbers for its weight 'mine/factor:0'"):
        f.opened(tmp_path / "folder", SHAPE, custom={"Scaled": Changed})
    f.opened(tmp_path / "folder", SHAPE, custom={"Scaled": Scaled})


def test_a_function_of_tensorflows_that_does_more_than_compute_is_refused(f, k, tmp_path):
    import tensorflow as tf

    given = k.Input(SHAPE)
    model = k.Model(given, tf.math.abs(k.layers.Dense(4)(k.layers.Flatten()(given))))
    model.save(tmp_path / "n.keras")
    f.opened(tmp_path / "n.keras", SHAPE)
    change(tmp_path / "n.keras", '"math.abs"', '"io.gfile.rmtree"')
    words = "(TFOpLambda) calls tf.io.gfile.rmtree", "trust = true"
    refused(f, tmp_path / "n.keras", tmp_path / "ran", *words)


def test_an_operation_that_does_more_than_compute_is_refused(f, k, tmp_path):
    from tfedge.networks.layers import Operation

    mark = tmp_path / "ran"
    function = Operation("math.abs", [{"tensor": 0}], name="sly")
    network(k, function).save(tmp_path / "n.keras")
    f.opened(tmp_path / "n.keras", SHAPE)
    for word in ("io.gfile.rmtree", "math.abs.__globals__", "io.write_file"):
        change(tmp_path / "n.keras", '"math.abs"', json.dumps(word))
        refused(f, tmp_path / "n.keras", mark, f"layer 'sly' (Operation) calls tf.{word}")
        change(tmp_path / "n.keras", json.dumps(word), '"math.abs"')


@pytest.mark.parametrize("name", ["k", "k3"])
@pytest.mark.parametrize("module", ["builtins", "os", "keras.utils", "tf_keras.src.utils.io_utils"])
def test_a_function_from_elsewhere_is_refused(f, request, tmp_path, name, module):
    keras = request.getfixturevalue(name)
    file, mark = tmp_path / "n.keras", tmp_path / "ran"
    network(keras, keras.layers.Dense(3, activation="relu", name="sly")).save(file)
    function = {"module": module, "class_name": "function", "config": "system"}
    change(file, '"relu"', json.dumps({**function, "registered_name": "system"}))
    refused(f, file, mark, "layer 'sly' calls a function 'system', which is not Keras's own")


def test_a_lambda_under_another_name_is_refused(f, k, tmp_path):
    file, mark = tmp_path / "n.keras", tmp_path / "ran"
    network(k, k.layers.Lambda(lambda x: x + 1, name="sly")).save(file)
    change(file, '"keras.layers", "class_name": "Lambda"', '"keras", "class_name": "layers.Lambda"')
    refused(f, file, mark, "layer 'sly' (Lambda) holds code")


def test_an_h5_file_with_a_harmless_zip_behind_it_is_judged_as_what_keras_reads(f, k, tmp_path):
    mark, file = tmp_path / "ran", tmp_path / "n.h5"
    sly = eval(f"lambda x: (open({str(mark)!r}, 'w').close(), x)[1]")
    network(k, k.layers.Lambda(sly, name="sly")).save(file)
    network(k).save(tmp_path / "harmless.keras")
    zipped = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "harmless.keras") as archive, zipfile.ZipFile(zipped, "w") as z:
        for name in archive.namelist():
            z.writestr(name, archive.read(name))
    file.write_bytes(file.read_bytes() + zipped.getvalue())
    assert zipfile.is_zipfile(file)
    refused(f, file, mark, "layer 'sly' (Lambda) holds code")


@pytest.mark.parametrize("name", ["k", "k3"])
@pytest.mark.parametrize("file", ["n.keras", "n.h5"])
def test_a_loss_of_the_users_own_is_not_asked_for(f, request, tmp_path, name, file):
    def mine(expected, found):
        return expected - found

    model = network(request.getfixturevalue(name))
    model.compile("sgd", loss=mine)
    model.save(tmp_path / file)
    f.opened(tmp_path / file, SHAPE)


def change(file, old, new):
    """Change the config in a .keras file."""
    with zipfile.ZipFile(file) as archive:
        text = archive.read("config.json").decode()
    assert old in text
    rewrite(file, {"config.json": text.replace(old, new)})
