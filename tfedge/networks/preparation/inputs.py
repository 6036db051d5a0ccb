"""The start of a network: what the board's script does, or training, is taken out of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfedge.errors import UserError
from tfedge.networks.backend import keras
from tfedge.networks.graph import Call, Graph, Tensor, build
from tfedge.networks.keras2 import Keras2
from tfedge.networks.layers import Affine, Augmentation
from tfedge.networks.operators import affine
from tfedge.networks.reading import read

_K = keras.layers
_AUGMENTING = (
    *(_K.RandomBrightness, _K.RandomContrast, _K.RandomCrop, _K.RandomFlip, _K.RandomHeight),
    *(_K.RandomRotation, _K.RandomTranslation, _K.RandomWidth, _K.RandomZoom, Augmentation),
)
_SIZING = (_K.Resizing, _K.CenterCrop)
_PICTURE = 3
_NORMALISING = (_K.Rescaling, _K.Normalization)


@dataclass(frozen=True)
class Sizing:
    """What a network did with pictures of another size.

    Attributes:
      layer: Name and class of the layer that was taken out.
      makes: Height and width that it made.
      resize: The filter that it used, as [data] calls it; empty for a crop.
      fit: What it did with another aspect, as [data] calls it.
      share: Of height and width that a crop leaves; 1 where it took any size.
    """

    layer: str
    makes: tuple[int, int]
    resize: str
    fit: str
    share: float = 1.0


def takes_pixels(graph: Graph) -> bool:
    """Whether the network takes bytes, or begins with layers that normalise pixels, 0 to 255."""
    if graph.of_bytes:
        return True
    place = graph.inputs[0]
    while (call := graph.only_reader(place)) and call.is_a(*_AUGMENTING, *_SIZING):
        place = call.output
    return call is not None and call.is_a(*_NORMALISING)


def refuse_shape(where: str, takes: tuple[int | None, ...], shape: tuple[int, ...]) -> None:
    """Refuse data of another shape than the network takes, and say what would make it fit.

    Args:
      takes: What the network takes, without the batch.
      shape: Of one input of the data.
    """
    if len(takes) != len(shape):
        fix = f"give data of {len(takes)} axes, or begin the network with layers that take these"
    elif len(shape) == _PICTURE:
        sides = [size or own for size, own in zip(takes, shape, strict=True)]
        wishes = [f"size = {sides[:2]}"] if tuple(sides[:2]) != shape[:2] else []
        wishes += [f"channels = {sides[2]}"] if sides[2] != shape[2] else []
        folder = f"write {' and '.join(wishes)} in [data] of a folder"
        fix = f"{folder}; arrays of your own must come so"
    else:
        fix = "give data of that shape, cut or filled up"
    raise UserError(where, f"takes {takes}, but the data is {shape}", fix)


def without_augmentation(graph: Graph) -> list[str]:
    """Take out layers that change inputs in training only; return their names."""
    found = [call for call in graph.calls if call.is_a(*_AUGMENTING) and not _crops(call)]
    for call in found:
        graph.bypass(call)
    return [str(call.layer) for call in found]


def without_sizing(graph: Graph) -> list[Sizing]:
    """Take resizing and cropping at the start out; the network then takes what they made.

    A normalisation before them may stay there: it does the same to each pixel, and so to their
    weighted means.
    """
    taken: list[Sizing] = []
    place = graph.inputs[0]
    while (call := graph.only_reader(place)) and call.is_a(*_SIZING, *_NORMALISING):
        place = call.output
        if call.is_a(*_SIZING):
            taken.append(_sizing(call))
            graph.bypass(call)
            graph.inputs[0].shape = (None, *taken[-1].makes, graph.inputs[0].shape[-1])
            place = call.input
    return taken


def _sizing(call: Call) -> Sizing:
    config, name = call.layer.config, str(call.layer)
    made = config["height"], config["width"]
    if call.is_a(_K.CenterCrop):
        height = call.input.shape[1]
        return Sizing(name, made, "", "crop", made[0] / height if height else 1.0)
    filters = {"lanczos3": "lanczos", "lanczos5": "lanczos"}
    method = config.get("interpolation", "bilinear")
    fit = "crop" if config.get("crop_to_aspect_ratio") else "stretch"
    return Sizing(name, made, filters.get(method, method), fit)


def with_channels_reversed(graph: Graph) -> None:
    """Let a network that takes blue first take red first.

    Raises:
      UserError: Something else than a convolution reads its input.
    """
    waiting: list[Tensor] = list(graph.inputs)
    while waiting:
        for call in graph.readers(waiting.pop()):
            layer = call.layer
            if call.is_a(_K.ZeroPadding2D, *_AUGMENTING, *_SIZING) or _is_grey(call):
                waiting.append(call.output)
            elif call.is_a(Affine):
                layer.weights = [np.ascontiguousarray(end[::-1]) for end in layer.weights]
                waiting.append(call.output)
            elif call.is_a(_K.Conv2D) and not graph.shared(layer):
                flipped = np.ascontiguousarray(layer.weights[0][:, :, ::-1])
                layer.weights = [flipped, *layer.weights[1:]]
            else:
                fix = 'swap the channels of the pictures instead, and write takes = "data"'
                raise UserError(f"layer {layer}", "is no place to swap red and blue in", fix)


def _is_grey(call: Call) -> bool:
    """Whether a layer does the same to all colours."""
    ends = (
        [call.layer.config[key] for key in ("scale", "offset")] if call.is_a(_K.Rescaling) else []
    )
    return bool(ends) and all(np.size(end) == 1 for end in ends)


Scaling = tuple[tuple[float, ...], tuple[float, ...]]


def refed(model: keras.Model, own: Scaling, given: Scaling) -> keras.Model:
    """Return a network that answers to inputs of another normalisation what `model` answers.

    Args:
      own: Mean and standard deviation, a number a channel, that the model takes.
      given: Those that it will get.
    """
    graph = read(model, Keras2())
    (own_mean, own_std), (mean, std) = (map(np.array, ends) for ends in (own, given))
    (start,) = graph.inputs
    scale, offset = std / own_std, (mean - own_mean) / own_std
    layer = affine(graph.new_name("as_it_takes"), scale, offset, int(start.shape[-1] or 0))
    graph.insert_after(start, layer)
    return build(graph)


def _crops(call: Call) -> bool:
    """Whether a layer changes the size at inference, too, as RandomCrop does."""
    return call.input.shape != call.output.shape
