"""Channels taken out in tests, and what the network without them has to answer."""

import functools

import numpy as np
from random_weights import difference

PICTURES = (64, 64, 3)
MODELS = {
    "ds_cnn_s": ("models/ds_cnn.py", (49, 10, 1)),
    "elastic_inverted": ("models/elastic.py", PICTURES),
    "elastic_residual": ("models/elastic.py", (16, 16, 3)),
    "efficientnet_lite0": ("models/efficientnet_lite.py", PICTURES),
    "mcunet_like": ("models/mcunet.py", PICTURES),
    "mobilenet_v1": ("models/mobilenet.py", PICTURES),
    "mobilenet_v2": ("models/mobilenet.py", PICTURES),
    "mobilenet_v3_small": ("models/mobilenet.py", PICTURES),
    "mobilenet_v3_large": ("models/mobilenet.py", PICTURES),
    "resnet8": ("models/resnet.py", (16, 16, 3)),
    "resnet14": ("models/resnet.py", (16, 16, 3)),
    "resnet20": ("models/resnet.py", (16, 16, 3)),
    "sensor_residual": ("models/sensor.py", (128, 6)),
    "sensor_separable": ("models/sensor.py", (128, 6)),
    "shufflenet_v2": ("models/shufflenet_v2.py", PICTURES),
    "stack": ("models/small.py", (8, 8, 1)),
}
"""Of each builder in models/: its file, and inputs that it takes."""


def groups_of(model, protect=()):
    from tfedge.networks.keras2 import Keras2
    from tfedge.networks.narrowing.groups import groups
    from tfedge.networks.reading import read

    return groups(read(model, Keras2()), protect)


@functools.cache
def from_models(name):
    """Return a network of models/ with random weights, the same to all: none may change it."""
    from conftest import REPO
    from random_weights import randomise

    from tfedge.networks.backend import keras
    from tfedge.plan.refs import Ref

    keras.backend.clear_session()
    file, shape = MODELS[name]
    return randomise(Ref.parse(f"{file}:{name}", REPO).load()(shape, 4))


def half_of_each(groups, seed=0):
    """Choose by chance which half of each group's channels stay, by the group's name."""
    rng = np.random.default_rng(seed)
    return {
        group.name: np.sort(rng.permutation(group.width)[: max(1, group.width // 2)])
        for group in groups.all
    }


def inputs_for(model, count=3):
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, *model.input_shape[1:])).astype(np.float32)


def apart(model, other):
    """Return the largest difference of any answer, relative to the largest."""
    from tfedge.networks.backend import tf

    x = inputs_for(model)
    pairs = zip(*(tf.nest.flatten(m(x, training=False)) for m in (model, other)), strict=True)
    return max(difference(one, two) for one, two in pairs)


def without_weights(groups, kept, *roles):
    """Build a network of all channels with zeros in the weights that those not kept have."""
    from tfedge.networks.graph import build

    graph = groups.graph
    layers = {call.layer.name: call.layer for call in graph.calls}
    before = {name: [weight.copy() for weight in layer.weights] for name, layer in layers.items()}
    for group in groups.all:
        gone = np.setdiff1d(np.arange(group.width), kept[group.name])
        for part in group.of(*roles):
            weight = layers[part.layer].weights[part.of]
            np.moveaxis(weight, part.axis, 0)[np.isin(part.channels, gone)] = 0
    model = build(graph)
    for name, layer in layers.items():
        layer.weights = before[name]
    return model
