"""infer.py and a model with exits that is one file a stage, as an Edge TPU takes it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from edge_tpu import LIBRARY, answered, build_library, compiled_model
from PIL import Image
from tiny_board import DEVICE, pixels, script
from tiny_conv import conv_model
from tiny_exits import SHAPE, exits_card, exits_model, write_exits
from tiny_model import card_for, golden_file, with_card

from tfedge.tflite import staging
from tfedge.tflite.leaving import stage_outputs


def write_chain(folder, exits, stages, golden=None):
    """Write a file of each of `stages`, whose cards name the next; return the first."""
    files = [folder / f"pets_exit_{number}.tflite" for number in range(len(stages))]
    for number, (file, content) in enumerate(zip(files, stages, strict=True)):
        card = card_for(content, SHAPE, 3)
        following = files[number + 1].name if number + 1 < len(files) else None
        card["exits"] = {**exits, "stage": number, "next": following}
        more = {}
        if golden and not number:
            card["golden"], more = golden[0], {"golden.npz": golden[1]}
        file.write_bytes(with_card(content, card, more))
    return files[0]


def recorded():
    """Return golden vectors of the model of three exits: what the card says, and the file."""
    inputs = np.stack([pixels(seed, SHAPE) for seed in range(4)])
    outputs = np.stack(stage_outputs(exits_model(), inputs.astype(np.float32) / 255).logits)
    tensors = (inputs.astype(int) - 128).astype(np.int8)
    hashes = [hashlib.sha256(tensor.tobytes()).hexdigest() for tensor in tensors]
    return {"count": 4, "tensors": hashes}, golden_file(inputs, outputs[-1], exits=outputs)


@pytest.fixture
def chain(tmp_path):
    content = exits_model()
    stages = [staging.stage(content, number) for number in range(3)]
    return write_chain(tmp_path, exits_card(content)["exits"], stages, recorded())


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(30):
        Image.fromarray(pixels(seed, SHAPE)).save(folder / f"{seed:02}.png")
    return folder


@pytest.mark.parametrize(
    "options",
    [[], ["--effort", "0"], ["--effort", "1"], ["--exit", "1"], ["--deadline-ms", "60000"]],
)
def test_the_first_file_goes_on_as_the_one_file_of_all_stages(
    answer, chain, pictures, tmp_path, options
):
    found = answer(chain, pictures, "--json", *options)
    assert found == answer(write_exits(tmp_path), pictures, "--json", *options)
    assert (found[0], len(found[1].splitlines())) == (0, 30)


def test_it_is_tested_and_timed_exit_by_exit(answer, chain, pictures):
    assert answer(chain, "--selftest")[0] == 0
    status, out, _ = answer(chain, pictures, "--bench", "5", "--json")
    assert (status, json.loads(out)["exits"]["inputs"]) == (0, 30)


def test_the_selftest_finds_the_file_that_is_wrong(answer, chain):
    content = exits_model(seed=1)
    stages = [staging.stage(content, number) for number in range(3)]
    kept = chain.read_bytes()
    right = chain.with_name("pets_exit_2.tflite").read_bytes()
    write_chain(chain.parent, exits_card(content)["exits"], stages)
    chain.write_bytes(kept)
    chain.with_name("pets_exit_2.tflite").write_bytes(right)
    status, out, _ = answer(chain, "--selftest")
    assert status == 1
    assert "golden vector 0: exit_1 is wrong by" in out
    assert "exit_0 is" not in out


def test_a_cascade_of_two_files_starts_afresh_in_the_second(answer, tmp_path, pictures):
    content = staging.cascade(conv_model(), conv_model())
    exits = two_exits(content)
    stages = [staging.stage(content, number) for number in range(2)]
    first = write_chain(tmp_path, exits, stages)
    status, out, _ = answer(first, pictures, "--json", "--exit", "1")
    assert status == 0
    whole = tmp_path / "whole.tflite"
    whole.write_bytes(with_card(content, {**card_for(content, SHAPE, 3), "exits": exits}))
    assert answer(whole, pictures, "--json", "--exit", "1")[1] == out


def two_exits(content):
    """Return what a card says of the cascade of `content`: it is left where all alike are sure."""
    units = [{"scale": one.scale, "zero": one.zero_point} for one in staging.stages(content)]
    return {
        "signatures": ["exit_0", "exit_1"],
        "features": [[]],
        "measure": "confidence",
        "temperatures": [1.0, 1.0],
        "logits": units,
        "points": [{"effort": 0.5, "thresholds": [0.7], "mean_cost": 0.5}],
        "chosen": 0,
    }


def test_a_file_that_is_missing_or_of_another_build_is_named(answer, chain, pictures):
    second = chain.with_name("pets_exit_1.tflite")
    kept = second.read_bytes()
    second.unlink()
    status, out, err = answer(chain, pictures)
    assert (status, out) == (2, "")
    assert err == f"infer.py: {second}: is not there, and holds stage 1; copy it there"
    second.write_bytes(chain.with_name("pets_exit_2.tflite").read_bytes())
    err = answer(chain, pictures)[2]
    assert err == f"infer.py: {second}: is not stage 1 of the same build; copy all files of one"
    second.write_bytes(kept)
    err = answer(second, pictures)[2]
    assert err.startswith(f"infer.py: {second}: is stage 1 of a model of several files; give the f")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda card: card.update(labels=["cat", "dog"]), "it answers [1, 3]"),
        (lambda card: card["input"].update(shape=[4, 2, 3]), "it takes [1, 4, 4, 3]"),
        (lambda card: card["exits"].update(features=[[], ["features_0"]]), "1 inputs and 2 outp"),
        (lambda card: card["exits"].update(next=None), "expected str"),
        (lambda card: card["exits"].pop("signatures"), "signatures"),
    ],
)
def test_a_file_that_is_not_what_its_card_says_gets_one_line(
    infer, answer, chain, pictures, change, problem
):
    flatbuffer, files = infer.split_model(chain.read_bytes())
    card = json.loads(files["card.json"])
    change(card)
    chain.write_bytes(with_card(flatbuffer, card))
    status, out, err = answer(chain, pictures)
    assert (status, out) == (2, "")
    assert "its stage is not what the first file says; copy all of them again (" in err
    assert problem in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_without_the_other_scripts_it_says_what_it_lacks(chain, pictures, tmp_path):
    for name in ("infer", "exits", "chain"):
        shutil.copy(DEVICE / f"{name}.py", tmp_path)
    command = [sys.executable, tmp_path / "infer.py", chain, pictures]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    said = "infer.py: one stage of several needs console.py beside infer.py; copy it there"
    assert done.stderr.splitlines()[-1] == said


@pytest.mark.slow
def test_each_stage_runs_on_the_edge_tpu(tmp_path, pictures):
    exits = two_exits(staging.cascade(conv_model(), conv_model()))
    exits["logits"] = [{"scale": 0.05, "zero": 3}] * 2
    first = write_chain(tmp_path, exits, [compiled_model(), compiled_model()])
    folder = build_library(tmp_path).parent
    assert (folder / LIBRARY).exists()
    log = tmp_path / "log"
    environment = {"LD_LIBRARY_PATH": str(folder), "STAND_IN_LOG": str(log), "TFEDGE_NO_PROBE": "1"}
    done = script(first, pictures, "--json", env={**os.environ, **environment})
    assert done.returncode == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert log.read_text().count("device") == 2
    taken = {one["exit"] for one in found}
    assert taken == {0, 1}
    for seed, one in enumerate(found):
        tensor = (pixels(seed, SHAPE).astype(int) - 128).astype(np.int8)
        logits = (answered(tensor).astype(float) - 3) * 0.05
        shares = np.exp(logits) / np.exp(logits).sum()
        assert one["exit"] == (0 if shares.max() >= 0.7 else 1)
        assert one["classes"][0]["share"] == pytest.approx(shares.max(), abs=1e-5)
