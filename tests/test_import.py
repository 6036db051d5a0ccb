"""Networks of users, by the command line: import, train in 8 bits or prune, convert."""

import json
import shutil
from pathlib import Path

import pytest
from random_weights import randomise

from tfedge.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untimed")]

DATA = """
import numpy as np


def stripes(count=120, size=16, kinds=4):
    rng = np.random.default_rng(0)
    row, column = np.indices((size, size)) // 2
    patterns = np.stack([0 * row, row % 2, column % 2, (row + column) % 2])
    y = rng.integers(0, kinds, count)
    x = 60 + 80 * patterns[y][..., None] + rng.integers(-30, 31, (count, size, size, 3))
    labels = ["plain", "rows", "columns", "checks"][:kinds]
    return {"x": x.astype(np.uint8), "y": y, "labels": labels}


def series(count=120):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, count)
    x = np.sin(np.arange(8)[:, None] * (1 + y[:, None, None]) / 3)
    x = x + rng.normal(0, 0.1, (count, 8, 4))
    return {"x": x.astype(np.float32), "y": y, "labels": ["a", "b", "c", "d"]}
"""

STAGES = """
[aware]
use = "qat"
of = "net"
epochs = 1
batch = 48

[int8]
use = "convert"
of = "aware"

[sparse]
use = "prune"
of = "net"
epochs = 1
batch = 48

[small]
use = "convert"
of = "sparse"
"""


@pytest.fixture(autouse=True)
def _eager(request):
    if "lstm" not in request.node.name:  # it is told from other loops by its own tf.function
        request.getfixturevalue("eager")


@pytest.fixture
def build(tmp_path, capsys):
    """A function that builds a pipeline and returns status, its messages and its report."""
    (tmp_path / "data.py").write_text(DATA)
    shutil.copy(Path(__file__).parent / "foreign_networks.py", tmp_path / "nets.py")

    def run(net, stages=STAGES, data="data.py:stripes"):
        file = tmp_path / "p.toml"
        file.write_text(f'[data]\nuse = "{data}"\n[net]\nuse = "import"\n{net}\n{stages}')
        status = main(["build", str(file), "--build-dir", str(tmp_path / "build")])
        report = tmp_path / "build" / "p" / "report.json"
        found = json.loads(report.read_text())["stages"] if report.exists() else []
        return status, capsys.readouterr().err, {stage["name"]: stage for stage in found}

    run.folder = tmp_path
    return run


def files(build):
    """Return the facts of both .tflite files, and that of the pruned one's zeros."""
    from tfedge.tflite.facts import facts

    found = {}
    for name in ("int8", "small"):
        (file,) = (build.folder / "build" / "p").glob(f"{name}-????????/model.tflite")
        found[name] = facts(file.read_bytes(), file)
    return found


def whole(build, net, **options):
    """Build a network both ways and prove that both files are int8 through and through."""
    status, messages, report = build(net, **options)
    assert status == 0, messages
    for name, found in files(build).items():
        assert found.float_tensors == (), name
        assert found.custom_operators == (), name
        assert [end.dtype for end in (*found.inputs, *found.outputs)] == ["int8", "int8"]
    assert report["net"]["largest_difference"] < 1e-4
    return report


def network(name):
    return f'model = "nets.py:{name}"\nstrict = false'


ALL_TRAINED = (
    *("resnet", "rescaled", "separable", "shuffled", "nested", "mobilenet", "mobilenet_v2"),
    *("mobilenet_v3", "efficientnet", "nasnet", "subclassed"),
)


@pytest.mark.parametrize("name", ALL_TRAINED)
def test_a_network_of_pictures_becomes_int8_trained_or_pruned(build, name):
    report = whole(build, network(name))
    left = report["aware"]["left_in_float"]
    assert {why for why in left.values() if "BatchNorm" in why} == set()
    assert 0.3 < report["sparse"]["sparsity"] < 0.52  # tfmot prunes no depthwise layers


@pytest.mark.parametrize("name", ["conv1d"])
def test_a_network_of_series_becomes_int8(build, name):
    assert whole(build, network(name), data="data.py:series")["aware"]["left_in_float"] == {}


@pytest.mark.parametrize(("name", "layer"), [("lstm", "LSTM"), ("gru", "GRU")])
def test_a_recurrent_layer_is_calibrated_and_the_report_says_so(build, name, layer):
    report = whole(build, network(name), data="data.py:series")
    assert list(report["aware"]["left_in_float"].values()) == [f"tfmot has no rule for {layer}"]
    (note,) = report["aware"]["notes"]
    assert f"trained in float: tfmot has no rule for {layer}" in note


def test_what_can_never_be_int8_is_refused_before_it_is_trained_for_it(build):
    status, messages, _ = build(network("masked"), data="data.py:series")
    assert status == 2
    assert "[aware] layer 'masking' (Masking): cannot be quantised: a mask is comp" in messages
    assert "epoch" not in messages


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("siamese", {"Operation", "BatchNormalization"}),
        ("patches", {"Operation", "LayerNormalization", "MultiHeadAttention"}),
        ("moved", {"Operation"}),
    ],
)
def test_what_tfmot_has_no_rule_for_is_calibrated_and_the_report_says_so(build, name, left):
    report = whole(build, network(name))
    reasons = report["aware"]["left_in_float"]
    assert {part for why in reasons.values() for part in why.split() if part in left} == left
    assert all(any(layer in note for note in report["aware"]["notes"]) for layer in reasons)


def test_resizing_and_augmentation_go_to_the_board_and_to_data(build):
    report = whole(build, network("resized"))
    notes = " ".join(report["net"]["notes"])
    assert "'resizing' (Resizing) is taken out" in notes
    assert "for training only, taken out: " in notes


def test_one_sigmoid_for_two_classes_becomes_two_logits(build):
    report = whole(build, network("one_logit"), data='data.py:stripes"\nkinds = 2 #')
    assert any("became two logits" in note for note in report["net"]["notes"])


def test_sigmoid_heads_are_told_to_the_board(build):
    from tfedge.tflite import card

    whole(build, network("multi_label"))
    (file,) = (build.folder / "build" / "p").glob("int8-????????/model.tflite")
    assert card.read(file.read_bytes(), file)[0].probabilities == "sigmoid"


LAYERS = """
import keras
import tensorflow as tf
import tf_keras


@keras.saving.register_keras_serializable("mine")
class Block(keras.layers.Layer):
    def __init__(self, filters, **named):
        super().__init__(**named)
        self.filters = filters
        self.conv = keras.layers.Conv2D(filters, 3, padding="same")
        self.norm = keras.layers.BatchNormalization()

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build(self.conv.compute_output_shape(shape))

    def call(self, x):
        return keras.ops.relu6(self.norm(self.conv(x)))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


class Mixed(keras.layers.Layer):
    def build(self, shape):
        self.mix = self.add_weight(name="mix", shape=(shape[-1], shape[-1]))

    def call(self, x):
        return keras.ops.matmul(x, self.mix)


class MixedTwin(tf_keras.layers.Layer):
    def build(self, shape):
        self.mix = self.add_weight(name="mix", shape=(int(shape[-1]), int(shape[-1])))

    def call(self, x):
        return tf.matmul(x, self.mix)
"""


def keras3(build, *middle):
    """Save a network of Keras 3 with a file of the user's own layers beside it."""
    import keras

    from tfedge.plan.refs import Ref

    (build.folder / "mine.py").write_text(LAYERS)
    own = Ref.parse("mine.py:Block", build.folder).module()
    layers = keras.layers
    x = given = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(16, 3, activation="hard_silu", name="conv")(x)
    for name in middle:
        x = own.Block(16)(x) if name == "Block" else getattr(own, name)(name="mine")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(given, layers.Dense(4, activation="softmax")(x))
    randomise(model).save(build.folder / "n.keras")


FILE = 'file = "n.keras"\nstrict = false\n'


def test_a_file_of_keras_3_with_a_layer_that_is_traced_becomes_int8(build):
    keras3(build, "Block")
    report = whole(build, FILE + 'custom = "mine.py:Block"')
    assert report["aware"]["left_in_float"] == {}


def test_a_file_of_keras_3_with_a_layer_of_a_twin_becomes_int8(build):
    keras3(build, "Mixed")
    report = whole(build, FILE + 'custom = "mine.py:Mixed"')
    assert report["aware"]["left_in_float"] == {}
    assert report["aware"]["by_output"] == {"conv_hard_silu": "HardSwish", "mine": "MixedTwin"}
    (note,) = report["aware"]["notes"]
    assert note.startswith("mine trained with outputs in 8 bits and weights in float")


def test_a_network_fed_otherwise_than_it_was_trained_is_noticed(build):
    # Whether its answer is right hangs on the sign of what it gets: it was trained on -1 to 1.
    (build.folder / "sign.py").write_text(
        "import numpy as np\n"
        "from tfedge.networks.backend import keras\n\n\n"
        "def sign():\n"
        "    given = keras.Input((16, 16, 3))\n"
        "    x = keras.layers.GlobalAveragePooling2D()(given)\n"
        "    model = keras.Model(given, keras.layers.Dense(2)(x))\n"
        "    model.set_weights([np.float32([[-1, 1]] * 3), np.float32([0, 0])])\n"
        "    return model\n"
    )
    (build.folder / "dark.py").write_text(
        "import numpy as np\n\n\n"
        "def dark():\n"
        "    rng = np.random.default_rng(0)\n"
        "    y = rng.integers(0, 2, 400)\n"
        "    x = rng.integers(0, 100, (400, 16, 16, 3))\n"
        "    x += 150 * y[:, None, None, None]\n"
        '    return {"x": x.astype(np.uint8), "y": y, "labels": ["dark", "bright"]}\n'
    )
    source = "dark.py:dark"
    status, messages, _ = build('model = "sign.py:sign"', "", source)
    assert status == 2
    assert "takes: answers " in messages
    assert "100.0% with symmetric" in messages
    assert 'write takes = "symmetric", or strict = false to go on' in messages
    status, _, report = build('model = "sign.py:sign"\ntakes = "symmetric"', "", source)
    assert (status, report["net"]["accuracy"]) == (0, 1.0)


@pytest.mark.parametrize(
    ("middle", "setting", "messages"),
    [
        ((), 'file = "gone.keras"', ("gone.keras", "no such file")),
        ((), 'file = "data.py"', ("is no Keras model, or is damaged", "give a .keras or .h5")),
        (("Block",), FILE, ("(Block) is not Keras's own", 'custom = "layers.py:Block"')),
        (("Mixed",), FILE, ("layer 'mine' (Mixed) is not Keras's own", 'custom = "layers.py')),
        ((), FILE + 'takes = "unit"', ("takes", "begins with a layer that normalises", "leave it")),
        ((), FILE + 'takes = "units"', ("takes", "'unit'")),
        ((), 'model = "nets.py:lstm"', ("takes (8, 4), but the data is (16, 16, 3)",)),
        ((), 'model = "nets.py:one_logit"', ("answers with (1,)", "4 classes")),
        ((), FILE + 'model = "nets.py:lstm"', ("wants one of file and model",)),
        ((), "", ("wants one of file and model", 'file = "my_model.keras"')),
    ],
)
def test_a_refusal_is_one_message_with_what_to_do(build, middle, setting, messages):
    if "n.keras" in setting:
        keras3(build, *middle)
    status, printed, _ = build(setting, "")
    assert status == 2
    assert printed.count("tfedge: ") == 1
    assert "Traceback" not in printed
    assert all(message in printed for message in messages), printed


def test_a_lambda_is_refused_and_run_with_trust(build):
    import keras

    given = keras.Input((16, 16, 3))
    x = keras.layers.Lambda(lambda x: x * 2 - 1, name="scaled")(given)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(x))
    keras.Model(given, keras.layers.Dense(4)(x)).save(build.folder / "n.keras")
    status, printed, _ = build(FILE, "")
    assert status == 2
    assert "n.keras" in printed
    assert "layer 'scaled' (Lambda) holds code" in printed
    assert "write trust = true" in printed
    whole(build, FILE + "trust = true")
