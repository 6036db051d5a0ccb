import numpy as np
import pytest
from test_comparison import both, depthwise_net, random_inputs

from tfedge.tflite import layerwise, names
from tfedge.tflite.running import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files():
    model, inputs = depthwise_net(), random_inputs((8, 8, 3), 12)
    kernel, bias = model.get_layer("pointwise").get_weights()
    kernel[..., :8, :] = 0.0  # half of its 16 inputs
    model.get_layer("pointwise").set_weights([kernel, bias])
    return (*both(model, inputs), inputs, names.of_network(model))


def test_layers_are_ranked_and_the_worst_are_drawn(files):
    float32, int8, inputs, layers = files
    found = layerwise.evidence(float32, int8, inputs, layers)
    assert found["inputs"] == 12
    ratios = [row["own_db"] for row in found["layers"]]
    assert ratios == sorted(ratios)
    assert set(found["layers"][0]) >= {"layer", "kind", "own_db", "arrived_db", "lost", "channels"}
    assert "step" not in found["layers"][0]
    assert len(found["histograms"]) == layerwise.DRAWN


def test_a_histogram_counts_every_value_of_both_files(files):
    float32, int8, inputs, layers = files
    found = layerwise.evidence(float32, int8, inputs, layers)
    values, weights = (found["histograms"]["logits"][kind] for kind in ("values", "weights"))
    for word, file in (("float", float32), ("quantised", int8)):
        run = Run(file)
        said = []
        for x in inputs[:8]:
            run.feed(x)
            said.append(run.value(run._interpreter.get_output_details()[0]["index"]).ravel())
        said = np.concatenate(said)
        bars = len(values[word])
        expected, _ = np.histogram(said, bars, (values["low"], values["high"]))
        assert values[word] == expected.tolist()
        assert sum(weights[word]) == 24 * 4


def test_a_float_file_is_told_from_one_that_has_anything_to_compare(files):
    float32, int8, *_ = files
    assert layerwise.is_quantised(int8)
    assert not layerwise.is_quantised(float32)


def test_zeros_are_shared_out_to_the_layers_whose_weights_they_are(files):
    _, int8, _, layers = files
    found = layerwise.zeros(int8, layers)
    assert list(found) == ["stem", "depthwise", "pointwise", "logits"]
    assert found["pointwise"] == pytest.approx(0.5, abs=0.05)  # some small ones round to 0
    assert found["pointwise"] >= 0.5
    assert found["stem"] < 0.2
