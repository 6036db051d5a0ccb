"""Count the Arm instructions that each product of an int8 depthwise convolution takes.

    python benchmarks/depthwise_taps.py

Kernels of 3 to 49 taps over 16 x 16 pixels of 128 channels.  Beyond 25 taps a product takes some
twenty to forty times as many, which is why models/ has no larger kernel.
"""

import json

from model_table import BOARDS, converted

from tfedge.boards.cost import costs
from tfedge.networks.backend import keras
from tfedge.progress import Silent

SHAPE = (16, 16, 128)
KERNELS = ((3, 1), (5, 1), (3, 3), (9, 1), (5, 3), (5, 5), (25, 1), (27, 1), (5, 6), (7, 7))


def depthwise(shape, kernel):
    pixels = keras.Input(shape)
    x = keras.layers.DepthwiseConv2D(kernel, padding="same")(pixels)
    return keras.Model(pixels, x)


def main():
    found = {}
    for kernel in KERNELS:
        keras.backend.clear_session()
        blob = converted(depthwise(SHAPE, kernel), SHAPE)
        products = SHAPE[0] * SHAPE[1] * SHAPE[2] * kernel[0] * kernel[1]
        each = [one.instructions / products for one in costs(blob, BOARDS, kernel, Silent())]
        found["x".join(map(str, kernel))] = dict(zip(BOARDS, each, strict=True))
        print(kernel, *(f"{board} {cost:.2f}" for board, cost in zip(BOARDS, each, strict=True)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
