from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from test_card import CARD, golden
from tiny_conv import G, Op, T, conv_model, model_of

from tfedge.errors import UserError
from tfedge.tflite import card as cards
from tfedge.tflite.inspection import as_json, describe


def section(text: str, title: str) -> list[list[str]]:
    """Return a section's lines, split where two spaces or more stand."""
    (found,) = [part for part in text.split("\n\n") if part.startswith(f"{title}\n")]
    return [re.split(r" {2,}", line.strip()) for line in found.splitlines()[1:]]


def test_the_card_comes_first():
    text = describe(cards.write(conv_model(), CARD, golden()), "m.tflite")
    assert text.startswith("Card\n")
    said = dict(section(text, "Card"))
    assert said["labels"] == "3: cat, dog, Igel ä"
    assert said["input"] == "image [4, 4, 3]"
    assert said["std"] == "255 255 255"
    assert said["resize"] == "bilinear, stretch"
    assert said["golden"] == "1 vectors"
    assert said["made by"] == f"tfedge 0.1.0, pets [int8], {'ab' * 32}"
    assert said["on tune"] == "accuracy 0.5, count 4"


def test_of_many_labels_the_first_ten_are_named():
    many = dataclasses.replace(CARD, labels=tuple(f"c{number}" for number in range(12)))
    said = dict(section(describe(cards.write(conv_model(), many), "m"), "Card"))
    assert said["labels"] == "12: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 2 more"
    assert said["golden"] == "none"


def test_a_file_without_a_card_is_described_all_the_same():
    text = describe(conv_model(), "m")
    assert section(text, "Card") == [["none"]]
    assert "card" not in as_json(conv_model(), "m")


def test_the_bytes_by_part_add_up_to_the_file():
    blob = cards.write(conv_model(), CARD)
    said = {part: int(count) for part, count in section(describe(blob, "m"), "Bytes")}
    assert said.pop("total") == len(blob) == sum(said.values())


def test_operators_macs_and_zeros_are_told_for_each_layer():
    text = describe(conv_model(), "m")
    # The counts are worked out in test_facts.py and tiny_conv.py.
    assert dict(section(text, "Model")) == {
        "parameters": "53",
        "macs": "120",
        "zero weights": f"{13 / 48:.4f}",
        "float tensors": "0",
        "custom operators": "none",
        # Of 48, 8, 8 and 3 bytes, each of which takes 64, the two of the reshape share a place.
        "arena planned": "192",
    }
    assert section(text, "Operators")[1:] == [
        ["CONV_2D", "3", "1"],
        ["RESHAPE", "1", "1"],
        ["FULLY_CONNECTED", "4", "1"],
    ]
    assert section(text, "Zeros by weight tensor")[1:] == [
        ["CONV_2D", "[2, 2, 2, 3]", "24", "5", f"{5 / 24:.4f}", "conv/kernel"],
        ["FULLY_CONNECTED", "[3, 8]", "24", "8", f"{8 / 24:.4f}", "dense/kernel"],
    ]
    assert section(text, "Graph 0 main: steps")[1:] == [
        ["0", "CONV_2D", "v3", "96", "features"],
        ["1", "RESHAPE", "v1", "0", "flat"],
        ["2", "FULLY_CONNECTED", "v4", "24", "logits"],
    ]


def test_the_arena_that_a_runtime_lays_out_stands_beside_the_planned_one():
    said = dict(section(describe(conv_model(), "m", {"arena_measured_bytes": 256}), "Model"))
    assert said["arena measured"] == "256"
    assert as_json(conv_model(), "m", {"arena_measured_bytes": 256})["arena_measured_bytes"] == 256
    said = dict(section(describe(conv_model(), "m", {"failed": "no such operator"}), "Model"))
    assert said["arena measured"] == "not measured: no such operator"
    assert as_json(conv_model(), "m", {"failed": "no such operator"})["arena_bytes"] == 192
    assert "arena_measured_bytes" not in as_json(conv_model(), "m", {"failed": "no such operator"})


def test_signatures_and_tensors_are_told_with_their_quantisation():
    text = describe(conv_model(), "m")
    assert section(text, "Signatures")[1] == [
        *("main", "input", "image", "int8", "[1, 4, 4, 3]"),
        *("scale 0.00392157 zero -128", "image"),
    ]
    rows = {row[-1]: row[1:-1] for row in section(text, "Graph 0 main: tensors")[1:]}
    assert rows["image"][2] == "input"
    assert rows["logits"][2:] == ["output", "scale 2 zero 3"]
    assert rows["conv/kernel"] == [
        "int8",
        "[2, 2, 2, 3]",
        "constant",
        "2 scales 0.5 to 2 on axis 0",
    ]
    assert rows["dims"] == ["int32", "[2]", "constant", "-"]


def test_what_cannot_be_counted_is_said_to_be_so():
    packed = np.uint8([0x21, 0x43])
    graph = G(
        "main",
        (
            T("x", "int8", (1, 2)),
            T("k", "int4", (2, 2), packed),
            T("h", "int8", (1, 2)),
            T("y", "int8", (1, 2)),
        ),
        (Op("FULLY_CONNECTED", (0, 1, -1), (2,)), Op("mine", (2,), (3,))),
        (0,),
        (3,),
        signature=False,
    )
    text = describe(model_of(graph), "m")
    said = dict(section(text, "Model"))
    assert said["zero weights"] == "not counted"
    assert said["custom operators"] == "mine"
    assert section(text, "Signatures") == [["none"]]
    assert section(text, "Zeros by weight tensor")[1][-3:] == ["-", "-", "k"]


def test_the_json_has_the_card_and_the_facts():
    blob = cards.write(conv_model(), CARD, golden())
    made = as_json(blob, "m")
    assert json.loads(json.dumps(made)) == made
    assert made["card"]["labels"] == list(CARD.labels)
    assert made["card"]["flatbuffer"]["bytes"] == len(cards.strip(blob))
    assert made["bytes"]["total"] == len(blob)
    assert made["macs"] == 120


def test_a_card_that_belongs_to_another_model_is_refused():
    blob = bytearray(cards.write(conv_model(), CARD))
    blob[300] ^= 1
    with pytest.raises(UserError, match=r"m.tflite: the model is not the one"):
        describe(bytes(blob), "m.tflite")
