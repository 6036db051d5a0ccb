"""What a runtime complains of is said as what to do about it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from edge_tpu import compiled_model
from real_runtimes import RUNTIMES, environment_with
from tiny_board import DEVICE, write
from tiny_conv import G, Op, T, model_of
from tiny_model import card_for, tiny_model, with_card

# As the runtimes put it, the newer and the older.
COMPLAINTS = [
    (
        "Encountered unresolved custom op: edgetpu-custom-op.\nSee instructions: https://www.tens"
        "orflow.org/lite/guide/ops_custom\nNode number 0 (edgetpu-custom-op) failed to prepare.",
        "needs --delegate edgetpu for it, or the file it was compiled from",
    ),
    (
        "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'. An older version of "
        "this builtin might be supported. Are you using an old TFLite binary with a newer model?",
        "is too old for it: pip install -U ai-edge-litert, or convert it for this",
    ),
    (
        "Encountered unresolved custom op: Mine.\nNode number 0 (Mine) failed to prepare.",
        "lacks one of its operators; convert it again with those of TFLite alone",
    ),
    (
        "<built-in method CreateWrapperFromFile of PyCapsule object> returned a result with an "
        "exception set",
        'does not go with this numpy: pip install "numpy<2"',
    ),
    (
        "Cannot set tensor: Got value of type FLOAT32 but expected type INT8 for input 0, name: x",
        "takes no such tensor; give it what quantise returns",
    ),
    (
        "Cannot set tensor: Dimension mismatch. Got 16 but expected 32 for dimension 1 of input 0.",
        "takes no such tensor; give it what quantise returns",
    ),
    (
        "There is at least 1 reference to internal data\n      in the interpreter in the form of a "
        "numpy array or slice.",
        "must not have its memory looked into meanwhile; copy that first",
    ),
    ("Model provided has model identifier 'o\n'", "cannot run it; take a newer one"),
    ("The model is not a valid Flatbuffer buffer", "cannot run it; take a newer one"),
]
PROVOKE = """
import json, sys
import numpy as np
import infer

model, *refused = sys.argv[1:]
classifier = infer.Classifier(model)
good = classifier.quantise(np.zeros(classifier.shape, np.uint8))
held = []

def attempt(tensor):
    try:
        classifier.invoke(tensor)
    except infer.ModelError as error:
        return str(error)

said = {"type": attempt(good.astype(np.float32)), "shape": attempt(good[:, :2])}
held.append(classifier._interpreter.tensor(classifier._input["index"])())
said["view"] = attempt(good)
held.clear()
said["nothing"] = attempt(good)
for name in refused:
    try:
        infer.Classifier(name, delegate="cpu")
    except infer.ModelError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


@pytest.mark.parametrize(("complaint", "meaning"), COMPLAINTS)
def test_each_complaint_is_one_line_of_what_to_do(infer, complaint, meaning):
    for kind in (ValueError, RuntimeError, SystemError):
        found = infer._meaning(kind(complaint), "m.tflite: runtime 1.0")
        assert isinstance(found, infer.ModelError)
        assert str(found).startswith(f"m.tflite: runtime 1.0 {meaning} (")
        assert " ".join(complaint.split()) in str(found)
        assert "\n" not in str(found)


def with_its_card(path, flatbuffer):
    path.write_bytes(with_card(flatbuffer, card_for(flatbuffer)))
    return str(path)


def custom():
    ends = (T("x", "int8", (1, 4, 4, 3)), T("y", "int8", (1, 3)))
    return model_of(G("main", ends, (Op("Mine", (0,), (1,)),), (0,), (1,)))


@pytest.mark.parametrize("package", RUNTIMES)
def test_the_runtimes_really_complain_so(tmp_path, package):
    refused = {
        "compiled": compiled_model(),
        "custom": custom(),
        "none": b"\0\0\0\0TFL3" + bytes(64),
        "newer": tiny_model(dense_version=99),
    }
    paths = [with_its_card(tmp_path / name, content) for name, content in refused.items()]
    done = subprocess.run(
        [sys.executable, "-c", PROVOKE, write(tmp_path), *paths],
        env=environment_with(package),
        cwd=DEVICE,
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said.pop("nothing") is None
    for name, words in {
        "type": "takes no such tensor; give it what quantise returns (Cannot set tensor",
        "shape": "takes no such tensor; give it what quantise returns (Cannot set tensor",
        "view": "must not have its memory looked into meanwhile; copy that first (There is at",
        paths[0]: "needs --delegate edgetpu for it, or the file it was compiled from (Encount",
        paths[1]: "lacks one of its operators; convert it again with those of TFLite alone (Enc",
        paths[2]: "cannot run it; take a newer one (",
        paths[3]: "is too old for it: pip install -U ai-edge-litert, or convert it for this (Didn",
    }.items():
        message = said.pop(name)
        assert words in message
        assert package in message
        assert "\n" not in message
    assert said == {}
