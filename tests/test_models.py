"""The networks of models/: as large as published, trained in 8 bits and int8 as they are."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tfedge.errors import UserError
from tfedge.plan.refs import Ref

pytestmark = pytest.mark.slow

REPO = Path(__file__).parent.parent
IMAGENET = ((224, 224, 3), 1000)
SPEECH = ((49, 10, 1), 12)


def network(ref, shape, classes, **options):
    from tfedge.networks.backend import build, seed_everything

    seed_everything(0)
    return build(Ref.parse(f"models/{ref}", REPO).load(), shape, classes, options)


@dataclass(frozen=True)
class Counts:
    """What there is in a network: numbers, those that are trained, kernels, multiplications."""

    parameters: int
    trained: int
    kernels: list
    products: int


@functools.cache
def counts(ref, shape, classes, **options):
    """Count in a network, which is built for all tests once."""
    return counted(network(ref, shape, classes, **options))


def counted(model):
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return Counts(model.count_params(), trained, kernels(model), products(model))


def products(model):
    """Count multiply-accumulates from layers: each kernel's numbers at each place it is applied."""
    found = 0
    for layer in model.layers:
        for name in ("kernel", "depthwise_kernel"):
            if hasattr(layer, name):
                places = np.prod(layer.output_shape[1:3]) if len(layer.output_shape) == 4 else 1
                found += int(places * np.prod(getattr(layer, name).shape))
    return found


DEEPER = {"depth_1": 3, "depth_2": 3, "depth_3": 3}
PUBLISHED = [
    # torchvision counts what is trained.
    ("shufflenet_v2.py:shufflenet_v2", *IMAGENET, {"width": 0.5}, 1_366_792),
    ("shufflenet_v2.py:shufflenet_v2", *IMAGENET, {"width": 1.0}, 2_278_604),
    ("shufflenet_v2.py:shufflenet_v2", *IMAGENET, {"width": 1.5}, 3_503_624),
    ("shufflenet_v2.py:shufflenet_v2", *IMAGENET, {"width": 2.0}, 7_393_996),
    # EfficientNet-Lite's own table: 4.7, 5.4, 6.1, 8.2 and 13.0 million.
    ("efficientnet_lite.py:efficientnet_lite0", *IMAGENET, {}, 4_652_008),
    ("efficientnet_lite.py:efficientnet_lite1", *IMAGENET, {}, 5_416_680),
    ("efficientnet_lite.py:efficientnet_lite2", *IMAGENET, {}, 6_092_072),
    ("efficientnet_lite.py:efficientnet_lite3", *IMAGENET, {}, 8_197_096),
    ("efficientnet_lite.py:efficientnet_lite4", *IMAGENET, {}, 13_006_568),
    # He 2016, table 6, has 0.27 million, with shortcuts that have no weights: 2,752 fewer.
    ("resnet.py:resnet20", (32, 32, 3), 10, {}, 269_722 + 2_752),
    ("elastic.py:elastic_residual", (32, 32, 3), 10, DEEPER, 269_722 + 2_752),
]


@pytest.mark.parametrize(("ref", "shape", "classes", "options", "count"), PUBLISHED)
def test_a_network_has_as_many_parameters_as_was_published(ref, shape, classes, options, count):
    assert counts(ref, shape, classes, **options).trained == count


APPLICATIONS = [
    ("mobilenet_v1", {}, "MobileNet", {}),
    ("mobilenet_v1", {"width": 0.25}, "MobileNet", {"alpha": 0.25}),
    ("mobilenet_v2", {}, "MobileNetV2", {}),
    ("mobilenet_v2", {"width": 0.35}, "MobileNetV2", {"alpha": 0.35}),
    ("mobilenet_v2", {"width": 1.4}, "MobileNetV2", {"alpha": 1.4}),
    ("mobilenet_v3_small", {}, "MobileNetV3Small", {}),
    ("mobilenet_v3_small", {"width": 0.75}, "MobileNetV3Small", {"alpha": 0.75}),
    ("mobilenet_v3_small", {"minimal": True}, "MobileNetV3Small", {"minimalistic": True}),
    ("mobilenet_v3_large", {}, "MobileNetV3Large", {}),
    ("mobilenet_v3_large", {"minimal": True}, "MobileNetV3Large", {"minimalistic": True}),
]


@pytest.mark.parametrize(("name", "options", "theirs", "their_options"), APPLICATIONS)
def test_a_mobilenet_has_the_weights_and_the_work_of_keras_own(
    name, options, theirs, their_options
):
    from tfedge.networks.backend import keras

    ours = counts(f"mobilenet.py:{name}", *IMAGENET, **options)
    application = getattr(keras.applications, theirs)
    model = counted(application(input_shape=IMAGENET[0], weights=None, **their_options))
    assert ours.parameters == model.parameters
    assert ours.kernels == model.kernels
    assert ours.products == model.products


def kernels(model):
    """Shapes of all kernels, the convolutions of 1 x 1 at the end like the dense layers."""
    shapes = (tuple(weight.shape) for weight in model.weights if "kernel" in weight.name)
    return sorted(shape[2:] if shape[:2] == (1, 1) else shape for shape in shapes)


@pytest.mark.parametrize(
    ("ref", "shape", "classes", "options", "millions"),
    [
        ("mobilenet.py:mobilenet_v1", *IMAGENET, {}, 569),  # Howard 2017, table 4
        ("mobilenet.py:mobilenet_v2", *IMAGENET, {}, 300),  # Sandler 2018, table 4
        ("mobilenet.py:mobilenet_v3_small", *IMAGENET, {}, 56),  # Howard 2019, table 3
        ("mobilenet.py:mobilenet_v3_large", *IMAGENET, {}, 219),
        ("shufflenet_v2.py:shufflenet_v2", *IMAGENET, {"width": 0.5}, 41),  # Ma 2018, table 8
        ("shufflenet_v2.py:shufflenet_v2", *IMAGENET, {}, 146),
        ("ds_cnn.py:ds_cnn_s", *SPEECH, {}, 5.4 / 2),  # Zhang 2017, operations of two a MAC
        ("ds_cnn.py:ds_cnn_m", *SPEECH, {}, 19.8 / 2),
        ("ds_cnn.py:ds_cnn_l", *SPEECH, {}, 56.9 / 2),
    ],
)
def test_a_network_takes_as_many_products_as_was_published(ref, shape, classes, options, millions):
    found = counts(ref, shape, classes, **options).products
    assert found / 1e6 == pytest.approx(millions, rel=0.03)


def test_ds_cnn_has_the_parameters_of_mlperf_tiny_but_for_the_biases_before_batchnormalization():
    assert network("ds_cnn.py:ds_cnn_s", *SPEECH).count_params() == 24_908 - 9 * 64


def test_each_stage_of_the_elastic_families_is_as_its_own_settings_say():
    """The kernels that each stage should have, listed by hand."""
    found = network(
        *("elastic.py:elastic_residual", (32, 32, 3), 10),
        stem=8,
        stem_kernel=5,
        stride=2,
        width_1=4,
        depth_2=2,
        kernel_3=1,
    )
    assert kernels(found) == sorted(
        [
            *[(5, 5, 3, 8)],
            *[(3, 3, 8, 4), (3, 3, 4, 4), (8, 4)],
            *[(3, 3, 4, 32), (3, 3, 32, 32), (4, 32), (3, 3, 32, 32), (3, 3, 32, 32)],
            *[(32, 64), (64, 64), (32, 64)],
            *[(64, 10)],
        ]
    )
    assert found.layers[1].output_shape[1:3] == (16, 16)

    found = network(
        *("elastic.py:elastic_inverted", (32, 32, 3), 10),
        stem=8,
        depth_1=2,
        width_1=8,
        kernel_2=5,
        expansion_2=3,
        depth_3=1,
        expansion_4=1,
        depth_4=1,
        last=96,
    )
    assert kernels(found) == sorted(
        [
            *[(3, 3, 3, 8)],
            *[(3, 3, 8, 1), (8, 8)] * 2,
            *[(8, 24), (5, 5, 24, 1), (24, 24), (24, 72), (5, 5, 72, 1), (72, 24)],
            *[(24, 96), (3, 3, 96, 1), (96, 40)],
            *[(3, 3, 40, 1), (40, 80)],
            *[(80, 96), (96, 10)],
        ]
    )
    assert [layer.output_shape[1] for layer in found.layers if "depthwise" in layer.name] == [
        *(16, 16, 8, 8, 4, 2)
    ]


@pytest.mark.parametrize("name", ["elastic_residual", "elastic_inverted"])
def test_every_setting_of_an_elastic_family_changes_the_network(name):
    ref = Ref.parse(f"models/elastic.py:{name}", REPO)
    plain = counts(f"elastic.py:{name}", (32, 32, 3), 4)
    for setting, default in ref.parameters(2).items():
        if setting != "dropout":
            other = counts(f"elastic.py:{name}", (32, 32, 3), 4, **{setting: default + 1})
            assert (other.kernels, other.products) != (plain.kernels, plain.products), setting


TINY = [
    ("resnet.py:resnet14", (16, 16, 3), {"width": 4}),
    ("mobilenet.py:mobilenet_v1", (32, 32, 3), {"width": 0.1, "stride": 1}),
    ("mobilenet.py:mobilenet_v2", (32, 32, 3), {"width": 0.1}),
    ("mobilenet.py:mobilenet_v3_small", (32, 32, 3), {"width": 0.1}),
    ("mobilenet.py:mobilenet_v3_small", (32, 32, 3), {"width": 0.1, "minimal": True}),
    ("efficientnet_lite.py:efficientnet_lite", (32, 32, 3), {"width": 0.1, "depth": 0.3}),
    ("shufflenet_v2.py:shufflenet_v2", (32, 32, 3), {"width": 0.25}),
    ("ds_cnn.py:ds_cnn_m", (49, 10, 1), {"width": 8}),
    ("mcunet.py:mcunet_like", (32, 32, 3), {"width": 0.25, "depth": 0.5}),
    ("elastic.py:elastic_residual", (16, 16, 3), {"stem": 4, "width_1": 8, "kernel_2": 5}),
    ("elastic.py:elastic_inverted", (32, 32, 3), {"depth_3": 1, "kernel_4": 5, "last": 16}),
    ("sensor.py:sensor_residual", (32, 3), {"width": 4}),
    ("sensor.py:sensor_separable", (32, 3), {"width": 8}),
]
# Of a network that repeats its blocks, one or two of each kind: its table and what stays of it.
SHALLOW = {
    "mobilenet_v1": ("_V1", lambda rows: rows[:3]),
    "mobilenet_v2": ("_V2", lambda rows: (*rows[:2], rows[-1])),
    "mobilenet_v3_small": ("_V3_SMALL", lambda rows: rows[:5]),
    "shufflenet_v2": ("_UNITS", lambda units: (2,) * len(units)),
}
HARD_SWISH = "the Edge TPU has no HARD_SWISH"


def name_of(ref):
    return ref.partition(":")[2]


def shallow(ref, monkeypatch):
    """Have the builder leave out what it repeats."""
    if name_of(ref) in SHALLOW:
        table, change = SHALLOW[name_of(ref)]
        module = Ref.parse(f"models/{ref}", REPO).module()
        monkeypatch.setattr(module, table, change(getattr(module, table)))


def trained_in_8_bits(model, shape):
    """Return the .tflite file of a network after two steps, all of its layers in 8 bits."""
    from tfedge.networks.backend import keras
    from tfedge.tflite.conversion import to_int8
    from tfedge.training.quantization import left_alone, quantization_aware

    assert left_alone(model) == {}
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(16, *shape)).astype(np.float32), np.arange(16) % 4
    aware = quantization_aware(model, x, (0.0, 1.0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    aware.compile("sgd", loss, run_eagerly=True)  # two steps are not worth a graph
    aware.fit(x, y, batch_size=8, verbose=0)
    return to_int8(aware, x, (0.0, 1.0))


@pytest.mark.parametrize(
    ("ref", "shape", "options", "whole"),
    [
        *((*one, False) for one in TINY),
        *(
            pytest.param(*one, True, marks=pytest.mark.very_slow)
            for one in TINY
            if name_of(one[0]) in SHALLOW
        ),
    ],
)
def test_a_network_trains_in_8_bits_and_becomes_a_file_that_every_target_runs(
    ref, shape, options, whole, monkeypatch
):
    from model_table import beside_xnnpack

    from tfedge.boards.edgetpu import mapping
    from tfedge.tflite.facts import facts

    if not whole:
        shallow(ref, monkeypatch)
    blob = trained_in_8_bits(network(ref, shape, 4, **options), shape)
    known = facts(blob, "the file")
    names = {operator.name for operator in known.subgraphs[0].operators}
    assert known.float_tensors == ()
    assert names.isdisjoint({"PAD", "QUANTIZE", "DEQUANTIZE", "SOFTMAX", "SPLIT", "TRANSPOSE"})
    on_edge_tpu = mapping(blob, "the file")
    assert on_edge_tpu.refused == ()
    if "HARD_SWISH" in names:
        assert options == {"width": 0.1}
        assert ref.endswith("v3_small")
        assert HARD_SWISH in {operator.why for operator in on_edge_tpu.operators}
        assert set(beside_xnnpack(blob)) <= {"HARD_SWISH", "ADD"}  # its hard-sigmoid's x + 3
    else:
        assert on_edge_tpu.whole
        assert beside_xnnpack(blob) == {}


@pytest.mark.parametrize("minimal", [False, True])
def test_mobilenet_v3_keeps_pruned_zeros_while_it_trains_in_8_bits(minimal, monkeypatch):
    """Its layers with a bias are the only ones in models/ that an activation follows."""
    from tfedge.networks.kernels import kernels
    from tfedge.training.preserving import Preserving
    from tfedge.training.quantization import float_twin, quantization_aware

    ref = "mobilenet.py:mobilenet_v3_small"
    shallow(ref, monkeypatch)
    model = network(ref, (32, 32, 3), 4, width=0.1, minimal=minimal)
    pruned = [layer for layer in model.layers if type(layer).__name__ in ("Conv2D", "Dense")]
    for layer in pruned:
        kernel, *rest = layer.get_weights()
        layer.set_weights([np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel), *rest])
    x = np.random.default_rng(0).uniform(size=(16, 32, 32, 3)).astype(np.float32)
    aware = quantization_aware(model, x, (0.0, 1.0))
    aware.compile("sgd", "mse", run_eagerly=True)
    kept = Preserving(kernels(aware).values())
    aware.fit(x, np.ones((16, 4)), batch_size=8, verbose=0, callbacks=[kept])
    learned = float_twin(aware, model)
    for layer in pruned:
        before, after = layer.get_weights()[0], learned.get_layer(layer.name).get_weights()[0]
        assert np.array_equal(before == 0, after == 0), layer.name


def test_every_quarter_of_shufflenets_channels_is_convolved_within_three_units():
    """The quarters that a stage ends with are among the last three units' six."""
    model = network("shufflenet_v2.py:shufflenet_v2", (32, 32, 3), 4, width=0.25)
    order = {layer.name: number for number, layer in enumerate(model.layers)}
    joins = [layer for layer in model.layers if type(layer).__name__ == "Concatenate"]
    fed = [[one.name for one in join.inbound_nodes[0].inbound_layers] for join in joins]
    assert [len(names) for names in fed] == [*[2] * 3, 4, *[2] * 7, 4, *[2] * 3, 4]
    quarters = sorted((name for names in fed for name in names), key=order.get)
    assert len(quarters) == len(set(quarters)) == 2 * 16 + 2 * 3
    for join, names in zip(joins, fed, strict=True):
        made = [name for name in quarters if order[name] < order[join.name]]
        assert set(names) <= set(made[-6:])


@pytest.mark.parametrize(
    ("ref", "options", "message"),
    [
        ("mobilenet.py:mobilenet_v1", {"width": 0}, "a width must be above 0, got 0"),
        ("efficientnet_lite.py:efficientnet_lite", {"width": -1.0}, "a width must be above 0"),
        ("mcunet.py:mcunet_like", {"depth": 0.0}, "a depth must be above 0, got 0.0"),
        ("elastic.py:elastic_residual", {"depth_2": 0}, "depth_2 must be at least 1, got 0"),
        ("elastic.py:elastic_inverted", {"expansion_4": 0}, "expansion_4 must be at least 1"),
        ("shufflenet_v2.py:shufflenet_v2", {"width": 0.7}, "must be one of 0.25, 0.5, 1.0, 1.5"),
    ],
)
def test_a_width_or_depth_that_makes_no_network_is_one_message(ref, options, message):
    builder = Ref.parse(f"models/{ref}", REPO).guarded()
    with pytest.raises(UserError) as caught:
        builder((32, 32, 3), 4, **options)
    assert message in str(caught.value)
    assert ref.partition(":")[0] in str(caught.value)


def test_the_factors_are_those_of_the_mobilenets_code():
    from tfedge.networks import blocks

    assert [blocks.scaled(32, factor) for factor in (0.25, 0.35, 0.5, 1.0, 1.4)] == [
        *(8, 16, 16, 32, 48)  # 11.2 would be 8, which is more than 10 % below; 44.8 rounds up
    ]
    assert [blocks.repeats(count, 1.4) for count in (1, 2, 3, 4)] == [1, 3, 5, 6]


@pytest.fixture(scope="module")
def table():
    import model_table

    return model_table


@pytest.mark.parametrize("key", ["resnet8 32x32x3", "ds_cnn_s 49x10x1", "sensor_separable 128x9"])
def test_the_table_in_the_docs_is_of_todays_networks(table, key):
    (row,) = [row for row in table.ROWS if row.key == key]
    kept = json.loads((REPO / "docs/models.json").read_text())[key]
    model = table.network(row)
    today = table.cheap(model, table.converted(model, row.shape))
    assert today.pop("bytes") == pytest.approx(kept["bytes"], rel=0.02)
    assert today == {name: kept[name] for name in today}


def test_the_page_in_the_docs_is_made_of_its_figures_and_names_every_function(table):
    figures = json.loads((REPO / "docs/models.json").read_text())
    page = (REPO / "docs/models.md").read_text()
    assert set(figures) == {row.key for row in table.ROWS}
    assert page == table.page(figures)
    for name in ("resnet20", "efficientnet_lite4", "stack", "elastic_inverted"):
        assert f"- `{name}(" in page
