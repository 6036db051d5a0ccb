"""Standard TFLite Metadata: what MediaPipe, Android's tools and Netron read of a model.

The format is a flatbuffer of its own (metadata_schema.fbs of TFLite Support and MediaPipe) in a
buffer of the model.  Its tables are few and have not changed in years, so they are written with the
bare `flatbuffers` builder; the packages that have generated classes for them weigh 500 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.number_types import Int8Flags, Uint8Flags, Uint32Flags

from tfedge.tflite.container import IDENTIFIER

NAME = "TFLITE_METADATA"

# What the schema asks of a buffer is 16.  A cache line also keeps any better alignment that the
# converter gave.
_ALIGNMENT = 64

# Numbers of the schema: union members, enum values.
_FEATURE, _IMAGE = 1, 2
_NORMALIZATION = 1
_COLOURS = {3: 1, 1: 2}  # channels: RGB, GRAYSCALE
_TENSOR_AXIS_LABELS = 2
_PIXEL_MAX = 255


class Feed(NamedTuple):
    """What a model takes: (x - mean) / std, one number a channel, the last axis of `shape`."""

    image: bool
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def build(name: str, version: str, feed: Feed, labels_file: str) -> bytes:
    """Return the metadata of a classifier with one input and one output.

    Args:
      name: The model's.
      feed: An image's `mean` and `std` are in pixel units, and its `shape` is height, width,
        channels (1 or 3).
      labels_file: The name, in the archive behind the model, of a file with one label a line in the
        order of the output's last axis.
    """
    builder = flatbuffers.Builder(1024)
    inputs = _tables(builder, [_input(builder, feed)])
    outputs = _tables(builder, [_output(builder, labels_file)])
    subgraphs = _tables(builder, [_table(builder, {2: inputs, 3: outputs})])
    texts = {0: name, 2: version, 7: "1.0.0"}  # 7: all that is used here was in the first version
    offsets = {slot: builder.CreateString(text) for slot, text in texts.items()}
    builder.Finish(_table(builder, {**offsets, 3: subgraphs}), b"M001")
    return bytes(builder.Output())


def embed(flatbuffer: bytes, metadata: bytes) -> bytes:
    """Return the model with `metadata` in it, in place of any it had.

    The model's own bytes stay as they are and move up as one block: only a new root is written in
    front of them.  So nothing is lost that this schema does not know, every constant keeps its
    alignment, and a megabyte of weights is never repacked in Python.  What was there before stays
    in the file unused, about 2 kB; the very same metadata is not written twice.
    """
    model = schema.Model.GetRootAs(flatbuffer, 0)
    entries = [model.Metadata(number) for number in range(model.MetadataLength())]
    buffers = [model.Buffers(number) for number in range(model.BuffersLength())]
    known = next((entry.Buffer() for entry in entries if entry.Name() == NAME.encode()), None)
    if known is not None and _holds(buffers[known], metadata):
        return flatbuffer

    builder = flatbuffers.Builder(0)
    # A builder writes from back to front: start it with the model already written.
    builder.Bytes = bytearray(flatbuffer + bytes(-len(flatbuffer) % _ALIGNMENT))
    builder.minalign = _ALIGNMENT
    end = len(builder.Bytes)

    contents = [end - buffer._tab.Pos for buffer in buffers]
    described = [end - entry._tab.Pos for entry in entries]
    if known is None:
        contents.append(_buffer(builder, metadata))
        described.append(
            _table(builder, {0: builder.CreateString(NAME)}, {1: (Uint32Flags, len(buffers))})
        )
    else:
        contents[known] = _buffer(builder, metadata)
    fields = {**_fields(model, end), 4: _tables(builder, contents), 6: _tables(builder, described)}
    builder.Finish(_table(builder, fields, {0: (Uint32Flags, model.Version())}), IDENTIFIER)
    return bytes(builder.Output())


def _holds(buffer: schema.Buffer, content: bytes) -> bool:
    return not buffer.DataIsNone() and buffer.DataAsNumpy().tobytes() == content


def _fields(model: schema.Model, end: int) -> dict[int, int]:
    """Return where the root's fields are, as distances from `end`, but for the version."""
    table = model._tab
    fields = {}
    for slot in range(1, 10):
        offset = table.Offset(4 + 2 * slot)
        if offset:
            fields[slot] = end - table.Indirect(table.Pos + offset)
    return fields


def _input(builder: flatbuffers.Builder, feed: Feed) -> int:
    mean, std = _floats(builder, feed.mean), _floats(builder, feed.std)
    normalization = _table(builder, {0: mean, 1: std})
    unit = _table(builder, {1: normalization}, {0: (Uint8Flags, _NORMALIZATION)})
    described = {
        0: builder.CreateString("image" if feed.image else "array"),
        3: _image(builder, feed.shape) if feed.image else _feature(builder),
        4: _tables(builder, [unit]),
    }
    if feed.image:  # only of pixels is the range known
        low = [(0 - m) / s for m, s in zip(feed.mean, feed.std, strict=True)]
        high = [(_PIXEL_MAX - m) / s for m, s in zip(feed.mean, feed.std, strict=True)]
        described[5] = _table(builder, {0: _floats(builder, high), 1: _floats(builder, low)})
    return _table(builder, described)


def _output(builder: flatbuffers.Builder, labels_file: str) -> int:
    name = builder.CreateString(labels_file)
    labels = _table(builder, {0: name}, {2: (Int8Flags, _TENSOR_AXIS_LABELS)})
    described = {
        0: builder.CreateString("logits"),
        3: _feature(builder),
        6: _tables(builder, [labels]),
    }
    return _table(builder, described)


def _image(builder: flatbuffers.Builder, shape: tuple[int, ...]) -> int:
    height, width, channels = shape
    size = _table(builder, {}, {0: (Uint32Flags, width), 1: (Uint32Flags, height)})
    image = _table(builder, {1: size}, {0: (Int8Flags, _COLOURS[channels])})
    return _table(builder, {1: image}, {0: (Uint8Flags, _IMAGE)})


def _feature(builder: flatbuffers.Builder) -> int:
    return _table(builder, {1: _table(builder, {})}, {0: (Uint8Flags, _FEATURE)})


def _table(
    builder: flatbuffers.Builder,
    offsets: dict[int, int],
    numbers: dict[int, tuple[type, int]] | None = None,
) -> int:
    """Write a table: `offsets` to what is written already, and `numbers` with their types."""
    numbers = numbers or {}
    builder.StartObject(1 + max([*offsets, *numbers], default=0))
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, (flags, number) in numbers.items():
        builder.PrependSlot(flags, slot, number, 0)
    return builder.EndObject()


def _tables(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder: flatbuffers.Builder, values: Sequence[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return builder.EndVector()


def _buffer(builder: flatbuffers.Builder, content: bytes) -> int:
    builder.StartVector(1, len(content), 16)  # the schema's force_align
    builder.head -= len(content)
    builder.Bytes[builder.head : builder.head + len(content)] = content
    return _table(builder, {0: builder.EndVector()})
