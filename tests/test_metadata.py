from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from tiny_conv import conv_model
from tiny_model import tiny_model

from tfedge.tflite import metadata
from tfedge.tflite.facts import facts

PHOTO = metadata.Feed(image=True, shape=(96, 64, 3), mean=(127.5, 0, 10), std=(127.5, 255, 2))


class Table:
    """Another reader: a flatbuffer's table with nothing but `struct`.

    The numbers of the fields are their places in metadata_schema.fbs and schema.fbs.
    """

    def __init__(self, blob: bytes, place: int) -> None:
        self.blob, self.place = blob, place

    @classmethod
    def root(cls, blob: bytes) -> Table:
        return cls(blob, unpack(blob, "I", 0))

    def field(self, number: int) -> int:
        table = self.place - unpack(self.blob, "i", self.place)
        if 4 + 2 * number >= unpack(self.blob, "H", table):
            return 0
        offset = unpack(self.blob, "H", table + 4 + 2 * number)
        return self.place + offset if offset else 0

    def number(self, number: int, kind: str) -> int:
        place = self.field(number)
        return unpack(self.blob, kind, place) if place else 0

    def table(self, number: int) -> Table:
        return Table(self.blob, self._target(self.field(number)))

    def raw(self, number: int) -> bytes:
        start = self._target(self.field(number))
        return self.blob[start + 4 : start + 4 + unpack(self.blob, "I", start)]

    def floats(self, number: int) -> tuple[float, ...]:
        start = self._target(self.field(number))
        count = unpack(self.blob, "I", start)
        return struct.unpack_from(f"<{count}f", self.blob, start + 4)

    def tables(self, number: int) -> list[Table]:
        start = self._target(self.field(number))
        count = unpack(self.blob, "I", start)
        places = range(start + 4, start + 4 + 4 * count, 4)
        return [Table(self.blob, self._target(place)) for place in places]

    def _target(self, place: int) -> int:
        assert place, "the field is not there"
        return place + unpack(self.blob, "I", place)


def unpack(blob: bytes, kind: str, place: int) -> Any:
    return struct.unpack_from(f"<{kind}", blob, place)[0]


def embedded(model: bytes) -> dict[str, bytes]:
    root = Table.root(model)
    buffers = root.tables(4)
    return {e.raw(0).decode(): buffers[e.number(1, "I")].raw(0) for e in root.tables(6)}


def constants(model: bytes) -> list[tuple[bytes, int]]:
    """Return each buffer's bytes and how far its start is from a multiple of 64."""
    found = []
    for buffer in Table.root(model).tables(4):
        if buffer.field(0):
            start = buffer._target(buffer.field(0)) + 4
            found.append((buffer.raw(0), start % 64))
    return found


def answers(model: bytes, count: int = 20) -> np.ndarray:
    runtime = Interpreter(model_content=model, num_threads=1)
    runtime.allocate_tensors()
    (entry,), (out,) = runtime.get_input_details(), runtime.get_output_details()
    random = np.random.default_rng(1)
    made = []
    for _ in range(count):
        runtime.set_tensor(entry["index"], random.integers(-128, 128, entry["shape"], np.int8))
        runtime.invoke()
        made.append(runtime.get_tensor(out["index"])[0])
    return np.array(made)


def test_another_reader_finds_all_that_an_image_classifier_needs():
    blob = metadata.build("flowers", "0a1b", PHOTO, "labels.txt")
    assert blob[4:8] == b"M001"
    model = Table.root(blob)
    assert (model.raw(0), model.raw(2), model.raw(7)) == (b"flowers", b"0a1b", b"1.0.0")
    (subgraph,) = model.tables(3)
    (entry,), (answer,) = subgraph.tables(2), subgraph.tables(3)

    assert entry.raw(0) == b"image"
    content = entry.table(3)
    assert content.number(0, "B") == 2  # ImageProperties
    assert content.table(1).number(0, "b") == 1  # RGB
    size = content.table(1).table(1)
    assert (size.number(0, "I"), size.number(1, "I")) == (64, 96)  # width, height
    (unit,) = entry.tables(4)
    assert unit.number(0, "B") == 1  # NormalizationOptions
    assert unit.table(1).floats(0) == (127.5, 0, 10)
    assert unit.table(1).floats(1) == (127.5, 255, 2)
    # Black and white after (x - mean) / std: -1 to 1, 0 to 1, -5 to 122.5.
    assert entry.table(5).floats(0) == (1, 1, 122.5)
    assert entry.table(5).floats(1) == (-1, 0, -5)

    assert answer.raw(0) == b"logits"
    assert answer.table(3).number(0, "B") == 1  # FeatureProperties
    (labels,) = answer.tables(6)
    assert labels.raw(0) == b"labels.txt"
    assert labels.number(2, "b") == 2  # TENSOR_AXIS_LABELS


def test_a_grey_image_is_said_to_be_grey():
    blob = metadata.build(
        "digits",
        "1",
        metadata.Feed(image=True, shape=(8, 8, 1), mean=(0,), std=(16,)),
        "labels.txt",
    )
    (entry,) = Table.root(blob).tables(3)[0].tables(2)
    assert entry.table(3).table(1).number(0, "b") == 2  # GRAYSCALE


def test_an_array_is_a_feature_whose_range_nobody_knows():
    feed = metadata.Feed(image=False, shape=(128, 3), mean=(0, 1, 2), std=(1, 2, 3))
    (entry,) = Table.root(metadata.build("steps", "1", feed, "l.txt")).tables(3)[0].tables(2)
    assert entry.raw(0) == b"array"
    assert entry.table(3).number(0, "B") == 1  # FeatureProperties
    assert entry.tables(4)[0].table(1).floats(0) == (0, 1, 2)
    assert entry.field(5) == 0


@pytest.mark.parametrize("make", [conv_model, tiny_model])
def test_the_model_answers_as_before_bit_for_bit(make):
    model = make()
    described = metadata.embed(model, metadata.build("m", "1", PHOTO, "labels.txt"))
    expected = answers(model)
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(answers(described), expected)


def test_the_metadata_is_beside_what_was_there():
    described = metadata.embed(conv_model(), b"some bytes")
    assert embedded(described) == {
        "min_runtime_version": b"1.14.0".ljust(16, b"\0"),
        "TFLITE_METADATA": b"some bytes",
    }


@pytest.mark.parametrize("extra", [0, 4, 20, 60])
def test_no_constant_moves_against_its_alignment(extra):
    # Bytes behind the flatbuffer are within the format; they stand for models of other lengths.
    model = conv_model() + bytes(extra)
    described = metadata.embed(model, b"\1" * 100)
    *before, (content, place) = constants(described)
    assert before == constants(model)
    assert content == b"\1" * 100
    assert place % 16 == 0  # schema.fbs: force_align


def test_all_else_is_as_it_was():
    model = conv_model()
    before = facts(model, "m")
    after = facts(metadata.embed(model, bytes(30)), "m")
    assert after.subgraphs == before.subgraphs
    assert after.signatures == before.signatures
    assert after.sizes.metadata == before.sizes.metadata + 30


def test_other_metadata_takes_the_place_of_the_old():
    once = metadata.embed(conv_model(), b"old")
    twice = metadata.embed(once, b"new")
    assert embedded(twice)["TFLITE_METADATA"] == b"new"
    assert len(Table.root(twice).tables(4)) == len(Table.root(once).tables(4))
    np.testing.assert_array_equal(answers(twice), answers(conv_model()))


def test_the_same_metadata_twice_changes_nothing():
    once = metadata.embed(conv_model(), b"same")
    assert metadata.embed(once, b"same") == once


def test_a_model_without_any_metadata_gets_some():
    assert Table.root(tiny_model()).field(6) == 0
    assert embedded(metadata.embed(tiny_model(), b"first")) == {"TFLITE_METADATA": b"first"}
