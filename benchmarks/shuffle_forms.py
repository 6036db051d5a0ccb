"""Compare ways to shuffle a ShuffleNet V2's channels: bytes, operators, Arm instructions.

    python benchmarks/shuffle_forms.py [--width 1.0]

`quarters` is models/shufflenet_v2.py.  `convolution` shuffles as the paper does, by a fixed 1x1
convolution with a one for each channel and a slice for each half.  `transpose` is the paper's own
form, slices, reshape and transpose.  The networks are untrained; the counts do not depend on it.
"""

import argparse
import json

import numpy as np
import tensorflow as tf
from model_table import BOARDS, LARGE, Row, beside_xnnpack, converted, network

from tfedge.boards.cost import costs
from tfedge.boards.edgetpu import mapping
from tfedge.networks.backend import build, keras, seed_everything
from tfedge.networks.blocks import classifier, convolution, depthwise
from tfedge.progress import Silent

layers = keras.layers


def fixed_convolution(x):
    """Interleave the halves of the channels by a convolution that is not trained."""
    channels = x.shape[-1]
    order = np.arange(channels).reshape(2, -1).T.ravel()
    kernel = np.eye(channels, dtype=np.float32)[:, order][None, None]
    start = keras.initializers.Constant(kernel)
    return layers.Conv2D(channels, 1, use_bias=False, kernel_initializer=start, trainable=False)(x)


def transpose(x):
    """Interleave the halves of the channels by a transpose of five dimensions."""
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height, width, 2, channels // 2))(x)
    return layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(x))


def shuffled(shape, classes, stages, shuffle):
    """Build the paper's network of figure 3 (c) and (d) with split and shuffle as operators."""
    images = keras.Input(shape)
    x = layers.MaxPooling2D(3, 2, padding="same")(convolution(images, 24, 3, 2))
    for channels, units in zip(stages, (4, 8, 4), strict=True):
        half = channels // 2
        first = convolution(depthwise(x, 3, 2, "linear"), half)
        x = shuffle(layers.Concatenate()([first, branch(x, half, 2)]))
        for _ in range(units - 1):
            kept, given = tf.split(x, 2, axis=-1)
            x = shuffle(layers.Concatenate()([kept, branch(given, half, 1)]))
    return keras.Model(images, classifier(convolution(x, 1024), classes))


def branch(x, half, stride):
    return convolution(depthwise(convolution(x, half), 3, stride, "linear"), half)


def figures(blob, name):
    mapped = mapping(blob, name)
    return {
        "bytes": len(blob),
        "operators": mapped.total,
        "on_edge_tpu": mapped.mapped,
        "beside_xnnpack": beside_xnnpack(blob),
        **{one.board: one.instructions for one in costs(blob, BOARDS, name, Silent())},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=1.0)
    args = parser.parse_args()
    stages = {0.5: (48, 96, 192), 1.0: (116, 232, 464), 1.5: (176, 352, 704)}[args.width]
    row = Row("models/shufflenet_v2.py:shufflenet_v2", LARGE, {"width": args.width})
    found = {"quarters": figures(converted(network(row), LARGE), "quarters")}
    for name, shuffle in (("convolution", fixed_convolution), ("transpose", transpose)):
        seed_everything(0)
        model = build(shuffled, LARGE, 10, {"stages": stages, "shuffle": shuffle})
        found[name] = figures(converted(model, LARGE), name)
    for name, of in found.items():
        print(f"{name:12} {of}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
