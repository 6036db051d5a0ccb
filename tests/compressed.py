"""A small network whose kernels were made sparse, or of few values, or both, by numpy alone."""

import numpy as np

COUNTS = {"first": 8, "separable": 6}
"""Layers whose weights share values, and how many; the second one's half are 0 besides."""

SPARSE = ("separable", "depthwise", "answer")


def compressed_network(seed=0):
    """Return it with BatchNormalization that stretches each channel by another factor."""
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    x = given = keras.Input((8, 8, 2))
    x = layers.Conv2D(16, 3, use_bias=False, name="first")(x)
    x = layers.ReLU(name="active")(layers.BatchNormalization(name="norm")(x))
    x = layers.ReLU(name="again")(layers.SeparableConv2D(16, 3, name="separable")(x))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(8, 1, name="whole")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(given, layers.Dense(4, name="answer")(x))
    gamma = np.linspace(0.5, 2, 16).astype(np.float32)
    model.get_layer("norm").set_weights([gamma, gamma - 1, 0 * gamma, gamma])
    for name, kernel in kernels_of(model).items():
        kernel.assign(compressed(kernel.numpy(), COUNTS.get(name), sparse=name in SPARSE))
    return model


def compressed(kernel, count, *, sparse):
    """Set the smaller half of the weights to 0; let the others share `count` values, 0 included."""
    zero = np.abs(kernel) < np.median(np.abs(kernel)) * sparse
    if count:
        values = np.quantile(kernel[~zero], np.linspace(0.05, 0.95, count - sparse))
        kernel = values[np.abs(kernel[..., None] - values).argmin(axis=-1)]
    return np.where(zero, 0, kernel).astype(np.float32)


def kernels_of(model):
    """Return the variables by layer, of a separable convolution the pointwise half."""
    places = {"separable": 1}
    layers = [layer for layer in model.layers if layer.weights and layer.name != "norm"]
    return {layer.name: layer.weights[places.get(layer.name, 0)] for layer in layers}


def file_kernels(flatbuffer):
    """Read the kernels of a file, output channels first, in the order of the network."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=flatbuffer)
    run.allocate_tensors()
    operators = [op["inputs"] for op in run._get_ops_details() if len(op["inputs"]) == 3]
    return [np.asarray(run.get_tensor(inputs[1])) for inputs in operators]
