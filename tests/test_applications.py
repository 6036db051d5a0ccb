"""Keras's own networks, from import through training in 8 bits to a file with no float in it.

`make test` takes two narrow ones, `python -m pytest -m very_slow` all twelve in full
width; both print what happened.
"""

import json

import numpy as np
import pytest

from tfedge.cli import main
from tfedge.tflite.facts import facts

SMALL = {"MobileNet": {"alpha": 0.25}, "MobileNetV2": {"alpha": 0.35}}
WHOLE = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0"),
    *(
        "EfficientNetV2B0",
        "ResNet50V2",
        "DenseNet121",
        "NASNetMobile",
        "Xception",
        "InceptionV3",
        "ConvNeXtTiny",
    ),
)
PIPELINE = """
[data]
use = "npz"
path = "pictures.npz"

[network]
use = "import"
model = "nets.py:network"
strict = false

[aware]
use = "qat"
of = "network"
calibrate = 8
epochs = 1
batch = 8

[int8]
use = "convert"
of = "aware"
calibrate = 8
strict = false
golden = 1
"""
NETWORK = """
import numpy as np

from tfedge.networks.backend import keras


def network():
    keras.utils.set_random_seed(0)
    model = keras.applications.{name}(
        weights=None, input_shape=(96, 96, 3), classes=4, **{options}
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = []
            for weight in layer.weights:
                low = 0.5 if "gamma" in weight.name or "variance" in weight.name else -0.2
                values.append(rng.uniform(low, low + 0.6, weight.shape))
            layer.set_weights(values)
    return model
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *SMALL.items(),
        *(pytest.param(name, {}, marks=pytest.mark.very_slow) for name in WHOLE),
    ],
)
def test_it_goes_through_8_bits_to_a_file_with_no_float_tensor(
    name, options, tmp_path, capsys, request
):
    if options:
        request.getfixturevalue("eager")  # the whole ones are trained as users train them
    rng = np.random.default_rng(0)
    arrays = {"labels": np.array(["a", "b", "c", "d"])}
    for split, count in (("train", 16), ("tune", 8), ("test", 4)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 96, 96, 3)).astype(np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 4
    np.savez(tmp_path / "pictures.npz", **arrays)
    (tmp_path / "nets.py").write_text(NETWORK.format(name=name, options=options))
    (tmp_path / "p.toml").write_text(PIPELINE)
    command = ["build", str(tmp_path / "p.toml"), "--build-dir", str(tmp_path / "b"), "--json"]
    status = main(command)
    said = capsys.readouterr()
    assert status == 0, said.err
    report = {stage["name"]: stage for stage in json.loads(said.out)["stages"]}
    assert report["network"]["largest_difference"] <= 1e-4
    found = facts((tmp_path / "b/p/p.tflite").read_bytes(), name)
    assert found.float_tensors == ()
    assert {tensor.dtype for tensor in (*found.inputs, *found.outputs)} == {"int8"}
    with capsys.disabled():
        seconds = {stage: row["seconds"] for stage, row in report.items()}
        left = report["aware"].get("left_in_float", {})
        print(  # noqa: T201 - the figures are what such a run is for
            f"\n{name}: {found.sizes.total:,} bytes, {seconds}, {len(left)} layers in float"
        )
