from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_board import pixels, write, write_golden
from tiny_model import golden_file


def test_selftest_passes_where_all_is_as_on_the_workstation(answer, tmp_path):
    status, out, err = answer(write_golden(tmp_path), "--selftest")
    assert (status, err) == (0, "")
    assert out.startswith("passed, ai-edge-litert 2.")


def test_selftest_tells_wrong_preprocessing(answer, tmp_path):
    status, out, _ = answer(write_golden(tmp_path, tensor_off=1), "--selftest")
    assert status == 1
    assert [line.split("; ")[0] for line in out.splitlines()] == [
        "golden vector 0: preprocessing is wrong",
        "golden vector 1: preprocessing is wrong",
    ]


def test_selftest_tells_a_wrong_runtime_bit_by_bit(answer, tmp_path):
    file = write_golden(tmp_path, output_off=1)
    status, out, _ = answer(file, "--selftest", "--format", "json")
    assert status == 1
    record = json.loads(out)
    assert record["selftest"] == "failed"
    (finding,) = record["findings"]
    assert finding.startswith("golden vector 1: the runtime is wrong by 1; take another than ai-")


@pytest.mark.parametrize(("off", "good"), [(1, True), (2, False)])
def test_selftest_lets_other_runtimes_be_off_by_one(infer, tmp_path, off, good):
    classifier = infer.Classifier(write_golden(tmp_path, output_off=off))
    classifier.runtime = "tflite-runtime 2.14.0"
    assert (classifier.selftest() == []) is good


@pytest.mark.parametrize("content", [None, b"", golden_file(pixels()[None], np.zeros((1, 2)))])
def test_selftest_without_golden_vectors_is_2(answer, tmp_path, content):
    def change(card):
        card["golden"] = {"count": 1, "tensors": ["0" * 64]}

    files = {} if content is None else {"golden.npz": content}
    status, out, err = answer(write(tmp_path, files=files, change=change), "--selftest")
    assert (status, out) == (2, "")
    assert err == "infer.py: the model has no golden vectors; build it again with tfedge"
