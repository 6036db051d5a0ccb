"""infer.py and a model with exits: which one answers, why, and what it says."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from beside import beside
from PIL import Image
from real_runtimes import RUNTIMES, run_all
from tiny_board import DEVICE, pixels, write
from tiny_exits import SCALES, SHAPE, exits_model, write_exits
from tiny_model import golden_file, with_card

from tfedge import paths
from tfedge.tflite.leaving import stage_outputs
from tfedge.tflite.running import packed, unpacked

COUNT = 200
POINTS = {"0": 0, "0.5": 1, "0.75": 2, "0.6": 1, "1": 3}  # effort: the point that it takes


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_exits(tmp_path_factory.mktemp("exits"))


@pytest.fixture(scope="module")
def expected():
    """What each exit answers to 200 pictures, by tfedge's own road, int8 [exits, count, 3]."""
    inputs = np.stack([pixels(seed, SHAPE) for seed in range(COUNT)]).astype(np.float32) / 255
    return np.stack(stage_outputs(exits_model(), inputs).logits)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(20):
        Image.fromarray(pixels(seed, SHAPE)).save(folder / f"{seed:02}.png")
    return folder


def taken(card, expected, point):
    """Return the exit that each picture leaves at, by softmaxes worked out here."""
    found = np.full(expected.shape[1], 2)
    for number in (1, 0):
        scale = SCALES[number][0] / card["temperatures"][number]
        shares = np.exp(expected[number].astype(float) * scale)
        sure = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)
        found[sure >= card["points"][point]["thresholds"][number]] = number
    return found


def staged(infer, file, **options):
    return beside("exits").Staged(infer.Classifier(file, threads=1), **options)


@pytest.mark.parametrize("point", [0, 1, 2, 3])
def test_it_leaves_where_the_card_says_with_that_exits_very_logits(infer, file, expected, point):
    efforts = (0, 0.5, 0.75, 1)
    model = staged(infer, file, effort=efforts[point])
    exits = taken(model.card["exits"], expected, point)
    assert len(set(exits)) == (3 if point in (1, 2) else 1)
    for seed, exit in enumerate(exits):
        logits = model.logits(pixels(seed, SHAPE))
        scale, zero = np.float32(SCALES[exit])
        assert model.answered == exit
        assert model.because == ("last" if exit == 2 else "sure")
        assert np.array_equal(logits, (expected[exit, seed] - zero) * scale)


def test_going_through_all_stages_is_bit_equal_to_the_whole_network(infer, file, expected):
    whole = infer.Classifier(file, threads=1)
    assert np.array_equal([whole.raw(pixels(s, SHAPE)) for s in range(COUNT)], expected[2])
    stage_by_stage = staged(infer, file, effort=1, held_open=True)
    assert np.array_equal([stage_by_stage.raw(pixels(s, SHAPE)) for s in range(COUNT)], expected[2])


@pytest.mark.parametrize("exit", [0, 1, 2])
def test_an_exit_that_is_asked_for_answers_always(infer, file, expected, exit):
    model = staged(infer, file, exit=exit)
    for seed in range(50):
        assert np.array_equal(model.raw(pixels(seed, SHAPE)), expected[exit, seed])
        assert (model.answered, model.because) == (exit, "asked")


@pytest.mark.parametrize("effort", POINTS)
def test_every_form_of_answer_names_the_exit(answer, file, expected, pictures, effort):
    options = [file, pictures, "--effort", effort]
    status, text, err = answer(*options)
    assert (status, err) == (0, "")
    rows = [line.split("\t") for line in text.splitlines()]
    _, text, _ = answer(*options, "--json")
    records = [json.loads(line) for line in text.splitlines()]
    _, text, _ = answer(*options, "--format", "csv")
    heading, *table = csv.reader(text.splitlines())
    assert heading == ["input", "label", "share", "exit", "because"]
    exits = taken(card_of(file), expected[:, :20], POINTS[effort])
    for exit, row, record, cells in zip(exits, rows, records, table, strict=True):
        because = "last" if exit == 2 else "sure"
        assert row[3:] == cells[3:] == [str(exit), because]
        assert (record["exit"], record["because"]) == (exit, because)
        assert row[1] == cells[1] == record["classes"][0]["label"]


def card_of(file):
    _, files = paths.runner().split_model(file.read_bytes())
    return json.loads(files["card.json"])["exits"]


def test_without_options_it_takes_the_promised_point(answer, file, pictures):
    assert answer(file, pictures)[1] == answer(file, pictures, "--effort", "0.5")[1]


def test_a_bad_picture_and_one_below_the_threshold_keep_the_table_in_form(
    answer, file, pictures, tmp_path
):
    (pictures / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out.csv"
    options = ["--format", "csv", "--output", out, "--threshold", "1"]
    assert answer(file, pictures, *options)[0] == 2
    rows = list(csv.reader(out.read_text().splitlines()))
    assert {len(row) for row in rows} == {5}
    assert rows[1][1:3] == ["", ""]
    assert rows[1][4] in ("sure", "last")
    assert rows[-1][1:] == [""] * 4


def test_a_plain_model_answers_as_ever(answer, model, photos):
    _, text, _ = answer(model, photos)
    assert {len(line.split("\t")) for line in text.splitlines()} == {3}


# --- self-test


def test_the_selftest_goes_through_the_stages_as_well(infer, answer, file):
    assert answer(file, "--selftest")[0] == 0
    model = staged(infer, file)
    first = [model.raw(pixels(seed, SHAPE)) for seed in range(20)]
    assert model.selftest() == []
    assert np.array_equal([model.raw(pixels(seed, SHAPE)) for seed in range(20)], first)


def never(card):
    """Have the build promise a point where no input leaves early, as where tune is small."""
    card["exits"]["chosen"] = 3


def test_a_model_that_promises_the_whole_network_is_tested_and_timed_stage_by_stage(
    infer, answer, tmp_path, expected
):
    file = write_exits(tmp_path, change=never)
    Image.fromarray(pixels(0, SHAPE)).save(tmp_path / "0.png")
    assert answer(file, "--selftest")[0] == 0
    assert answer(file, "--selftest", "--effort", "0.5")[0] == 0
    status, out, _ = answer(file, tmp_path / "0.png", "--bench", "5", "--json")
    assert (status, json.loads(out)["exits"]["exit_2"]["share"]) == (0, 1)
    model = staged(infer, file)
    whole = model.logits(pixels(0, SHAPE))
    with model.only(0):
        scale, zero = np.float32(SCALES[0])
        early = model.logits(pixels(0, SHAPE))
        assert np.array_equal(early, (expected[0, 0] - zero) * scale)
    assert np.array_equal(model.logits(pixels(0, SHAPE)), whole)


@pytest.mark.parametrize("graph", [0, 1, 2, 3])
def test_the_selftest_finds_a_wrong_stage_and_a_wrong_whole(infer, answer, tmp_path, graph):
    def changed(content):
        model = unpacked(content)
        tensors = model.subgraphs[graph].tensors
        name = b"kernel_0" if graph < 2 else b"kernel_%d" % (graph - 1)
        (kernel,) = [t for t in tensors if t.name == name]
        data = np.bitwise_xor(model.buffers[kernel.buffer].data, 64)
        model.buffers.append(type(model.buffers[0])(data=data))
        kernel.buffer = len(model.buffers) - 1
        return packed(model)

    right = write_exits(tmp_path)
    _, files = infer.split_model(right.read_bytes())
    wrong = changed(exits_model())
    card = json.loads(files["card.json"])
    card["flatbuffer"] = {"bytes": len(wrong), "sha256": hashlib.sha256(wrong).hexdigest()}
    right.write_bytes(with_card(wrong, card, {"golden.npz": files["golden.npz"]}))
    status, out, _ = answer(right, "--selftest")
    assert status == 1
    by_stages = [line.startswith("stage by stage, golden vector") for line in out.splitlines()]
    assert all(by_stages) if graph else not any(by_stages)


@pytest.fixture
def recorded(file, expected, tmp_path):
    """Write the model with golden vectors of all exits, of which `change` may alter some."""

    def write(change=lambda exits: None, shape=slice(None)):
        flatbuffer, files = paths.runner().split_model(file.read_bytes())
        inputs = np.stack([pixels(seed, SHAPE) for seed in range(4)])
        exits = expected[:, :4].copy()
        change(exits)
        golden = golden_file(inputs, expected[2, :4], exits=exits[shape])
        made = tmp_path / "recorded.tflite"
        made.write_bytes(
            with_card(flatbuffer, json.loads(files["card.json"]), {"golden.npz": golden})
        )
        return made

    return write


@pytest.mark.parametrize("exit", [0, 1, 2])
def test_the_selftest_holds_each_exit_to_what_was_recorded(answer, recorded, exit):
    assert answer(recorded(), "--selftest")[0] == 0

    def change(exits):
        exits[exit, 3, 1] ^= 7

    status, out, _ = answer(recorded(change), "--selftest")
    assert status == 1
    assert out.startswith(f"stage by stage, golden vector 3: exit_{exit} is wrong by ")
    assert out.count("\n") == 1


def test_golden_vectors_of_other_exits_are_refused(answer, recorded):
    status, out, err = answer(recorded(shape=slice(2)), "--selftest")
    assert (status, out) == (2, "")
    assert err == "infer.py: the golden vectors are of other exits; build the model again"


# --- service


@pytest.mark.parametrize(("options", "exit"), [(["--exit", "1"], 1), (["--effort", "1"], 2)])
def test_the_service_takes_the_same_options_for_every_model_it_loads(
    answer, file, tmp_path, monkeypatch, options, exit
):
    served = []

    def loop(load, feed, answer):
        for _ in range(2):  # at the start, and when it is told of another model
            model = load()
            model.classify(pixels(0, SHAPE))
            served.append(model.answered)
        return 0

    monkeypatch.setattr(beside("serve"), "loop", loop)
    assert answer(file, "--watch", tmp_path, "--serve", *options)[0] == 0
    assert served == [exit, exit]


# --- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--exit", "3"], "infer.py: --exit must be from 0 to 2, got 3"),
        (["--exit", "-1"], "infer.py: --exit must be from 0 to 2, got -1"),
        (["--exit", "1", "--effort", "1"], "--exit N answers there always; leave out --effort"),
        (["--exit", "1", "--deadline-ms", "1"], "--exit N answers there always"),
        (["--effort", "1.1"], "--effort must be from 0 to 1, got 1.1"),
        (["--effort", "nan"], "--effort must be from 0 to 1, got nan"),
        (["--deadline-ms", "0"], "--deadline-ms must be above 0, got 0"),
        (["--adaptive"], "--adaptive is of --deadline-ms D"),
    ],
)
def test_a_mistake_is_named(infer, capfd, file, photos, options, message):
    try:
        status = infer.main([str(file), str(photos), *options])
    except SystemExit as stop:
        status = stop.code
    out, err = capfd.readouterr()
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize("option", ["--effort", "--exit", "--deadline-ms"])
def test_a_model_without_exits_says_so(answer, model, photos, option):
    status, out, err = answer(model, photos, option, "1")
    assert (status, out) == (2, "")
    assert err == f"infer.py: {model}: has no exits; leave out {option}, or build it with exits"


@pytest.mark.parametrize(
    "change",
    [
        lambda exits: exits.pop("points"),
        lambda exits: exits.update(measure="sureness"),
        lambda exits: exits.update(chosen=9),
        lambda exits: exits.update(signatures=["exit_0", "exit_1", "exit_9"]),
        lambda exits: exits["points"][2].update(thresholds=[1]),
        lambda exits: exits.update(temperatures=[1, 1]),
        lambda exits: exits.update(logits="none"),
    ],
)
def test_a_damaged_card_gets_one_line(answer, tmp_path, photos, change):
    file = write_exits(tmp_path, change=lambda card: change(card["exits"]))
    status, out, err = answer(file, photos)
    assert (status, out) == (2, "")
    assert err.startswith("infer.py: its exits cannot be read; copy the model and exits.py again (")
    assert len(err.splitlines()) == 1


# --- files beside it


def run(folder, *arguments):
    command = [sys.executable, folder / "infer.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.mark.slow
def test_infer_alone_answers_by_the_whole_network(infer, file, pictures, tmp_path):
    shutil.copy(DEVICE / "infer.py", tmp_path)
    status, out, _ = run(tmp_path, file, pictures)
    assert status == 0
    whole = infer.Classifier(file, threads=1)
    labels = [whole.classify(pixels(seed, SHAPE))[0][0] for seed in range(20)]
    assert [line.split("\t")[1] for line in out.splitlines()] == labels
    status, out, _ = run(tmp_path, file, "--selftest")
    assert (status, out.split(",")[0]) == (0, "passed")


@pytest.mark.slow
def test_a_plain_model_needs_neither_file_and_one_with_exits_says_which(file, photos, tmp_path):
    for each in DEVICE.glob("*.py"):
        if each.name not in ("exits.py", "pace.py"):
            shutil.copy(each, tmp_path)
    assert run(tmp_path, write(tmp_path), photos)[0] == 0
    needs = "infer.py: a model with exits needs exits.py beside infer.py; copy it there"
    assert run(tmp_path, file, photos)[2][-1] == needs
    shutil.copy(DEVICE / "exits.py", tmp_path)
    assert run(tmp_path, file, photos)[0] == 0
    needs = "infer.py: --deadline-ms needs pace.py beside infer.py; copy it there"
    assert run(tmp_path, file, photos, "--deadline-ms", "5")[2][-1] == needs


# --- runtimes


@pytest.mark.slow
def test_the_older_runtime_goes_stage_by_stage_as_well(file, pictures):
    found = {}
    for package in RUNTIMES:
        options = ["--json", "--effort", "0.75"]
        commands = [[str(file), "--selftest"], [str(file), str(pictures), *options]]
        _, done, _ = run_all(package, commands)
        assert [status for status, *_ in done] == [0, 0]
        found[package] = [json.loads(line)["exit"] for line in done[1][1].splitlines()]
    # It may round by a step, which may take one more or fewer across a threshold.
    pairs = zip(*found.values(), strict=True)
    assert sum(one != other for one, other in pairs) <= 2
    assert len(set(found["tflite-runtime"])) == 3


def test_a_runtime_without_signatures_says_so_and_can_still_do_the_whole(infer, file):
    model = infer.Classifier(file, threads=1)

    class Old:
        """As tflite-runtime 2.5 of a Coral Dev Board: it knows of no signatures."""

        def __init__(self, interpreter):
            for name in ("reset_all_variables", "set_tensor", "invoke", "get_tensor"):
                setattr(self, name, getattr(interpreter, name))

    interpreter = model._interpreter
    model._interpreter = Old(interpreter)
    with pytest.raises(infer.ModelError, match="is too old to go stage by stage; take a newer one"):
        beside("exits").Staged(model)
    whole = beside("exits").Staged(model, effort=1)
    whole.classify(pixels(0, SHAPE))
    assert (whole.answered, whole.because) == (2, "last")
    assert whole.selftest() == []


# --- bench


def test_bench_times_each_exit_and_counts_which_answer(answer, file, expected, tmp_path):
    for number, label in enumerate(("cat", "dog")):
        (tmp_path / "set" / label).mkdir(parents=True)
        for seed in range(20):
            path = tmp_path / "set" / label / f"{seed + 20 * number:02}.png"
            Image.fromarray(pixels(seed + 20 * number, SHAPE)).save(path)
    status, out, _ = answer(file, tmp_path / "set", "--bench", "20", "--json")
    assert status == 0
    found = json.loads(out)["exits"]
    exits = taken(card_of(file), expected[:, :40], 1)
    right = expected[exits, range(40)].argmax(axis=1) == np.repeat([0, 1], 20)
    assert found["inputs"] == 40
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["mean_ms"] > 0
    for number in range(3):
        of = found[f"exit_{number}"]
        assert 0 < of["p50_ms"] <= of["p99_ms"]
        assert of["share"] == pytest.approx((exits == number).mean())
        assert of["accuracy"] == pytest.approx(right[exits == number].mean(), abs=1e-4)


def test_bench_without_named_folders_knows_no_accuracy_and_without_inputs_no_shares(
    answer, file, pictures
):
    _, out, _ = answer(file, pictures, "--bench", "5", "--json")
    found = json.loads(out)["exits"]
    assert found["inputs"] == 20
    assert "accuracy" not in found
    _, out, _ = answer(file, "--bench", "5", "--json")
    found = json.loads(out)["exits"]
    assert set(found) == {"exit_0", "exit_1", "exit_2"}
    assert set(found["exit_2"]) == {"p50_ms", "p99_ms"}
