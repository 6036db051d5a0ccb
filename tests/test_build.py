"""Whole builds of a small pipeline, from outside."""

import json
import re
import shutil
import signal
import subprocess
import sys

import forked
import numpy as np
import pytest
from compressed import file_kernels
from conftest import REPO, STRIPES

from tfedge.cli import main
from tfedge.plan import pipeline
from tfedge.tflite import card, facts

pytestmark = pytest.mark.slow

PIPELINE = STRIPES / "stripes.toml"


def tfedge(*arguments, **options):
    command = [sys.executable, "-m", "tfedge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def report(built):
    return json.loads((built / "report.json").read_text())


def test_every_stage_reports_its_figures(report):
    names = ["teacher", "student", "sparse", "shared", "aware", "int8", "tested"]
    assert [stage["name"] for stage in report["stages"]] == names
    for stage in report["stages"]:
        assert {"parameters", "macs", "raw_bytes", "zipped_bytes", "seconds"} <= set(stage)
        assert stage["accuracy_low"] <= stage["accuracy"] <= stage["accuracy_high"]
        assert stage["split"] == ("test" if stage["name"] == "tested" else "tune")


def test_every_stages_file_was_timed_and_its_arena_read(report):
    by_name = {stage["name"]: stage for stage in report["stages"]}
    assert all(stage["host_ms_p50"] > 0 for stage in by_name.values())
    # Numbers of one byte in place of four: 8x8 pixels, and the second layer's 4x4 of 16 channels.
    assert by_name["aware"]["arena_bytes"] == 4 * by_name["int8"]["arena_bytes"]
    for stage in by_name.values():
        # TFLite's own convolutions need a matrix of their input's neighbourhoods beside.
        assert stage["arena_measured_bytes"] > stage["arena_bytes"]
    assert by_name["tested"]["host_ms_p50"] == by_name["int8"]["host_ms_p50"]


def test_what_pruning_did_not_buy_is_said(report):
    sparse = next(stage for stage in report["stages"] if stage["name"] == "sparse")
    unchanged, *changed = sparse["earned"].removeprefix("against student: ").split("; ")
    assert {"raw bytes", "MACs", "arena"} <= set(
        re.split(", | and ", unchanged[: -len(" unchanged")])
    )
    assert any(one.startswith("zipped bytes -") for one in changed)


def test_the_small_network_has_learned(report):
    assert report["test"]["accuracy"] >= 0.9
    assert report["test"]["agreement"] >= 0.97


def test_multiply_accumulates_are_those_worked_by_hand(report):
    # 8x8 pixels: 3x3 kernels from 1 to w, then at 4x4 from w to 2w, then a dense layer to 4.
    def macs(w):
        return 64 * 9 * w + 16 * 9 * w * 2 * w + 2 * w * 4

    by_name = {stage["name"]: stage["macs"] for stage in report["stages"]}
    assert by_name["teacher"] == macs(16)
    assert by_name["student"] == by_name["int8"] == macs(8)


def test_nothing_in_the_file_is_float(built):
    found = facts.facts((built / "stripes.tflite").read_bytes(), "stripes.tflite")
    assert found.float_tensors == ()
    assert found.custom_operators == ()
    assert "SOFTMAX" not in {name for name, _ in found.operators}


def test_pruned_zeros_are_still_zeros_in_the_file(built, report):
    found = facts.facts((built / "stripes.tflite").read_bytes(), "stripes.tflite")
    sparse = next(stage for stage in report["stages"] if stage["name"] == "sparse")
    assert sparse["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert found.zero_weights >= sparse["sparsity"]


def test_values_that_weights_share_are_still_shared_in_the_file(built, report):
    by_name = {stage["name"]: stage for stage in report["stages"]}
    assert by_name["shared"]["sparsity"] >= by_name["sparse"]["sparsity"] >= 0.49
    kernels = file_kernels((built / "stripes.tflite").read_bytes())
    found = list(by_name["int8"]["clusters"].values())
    assert [len(set(by_name[name]["clusters"].values())) for name in ("shared", "aware")] == [1, 1]
    for kernel, most in zip(kernels, found, strict=True):
        # A dense layer has one range for all its channels, a convolution one for each.
        channels = kernel if kernel.ndim == 4 else [kernel]
        assert max(np.unique(channel).size for channel in channels) == most
        assert np.unique(kernel).size <= 16
        assert np.mean(kernel == 0) >= 0.49
    notes = by_name["int8"]["notes"]
    assert notes == [
        f"kept in the file: the shared values of 3 layers ({max(found)} a channel at most)"
        " and the zeros of 3 layers"
    ]
    assert by_name["shared"]["zipped_bytes"] < by_name["sparse"]["zipped_bytes"]


def test_a_pixel_goes_in_by_one_xor(built):
    (given,) = facts.facts((built / "stripes.tflite").read_bytes(), "stripes.tflite").inputs
    assert np.float32(given.scales[0]) == np.float32(1 / 255)
    assert given.zero_points[0] == -128


def test_the_card_says_what_was_measured_and_by_whom(built, report):
    known, files = card.read((built / "stripes.tflite").read_bytes(), "stripes.tflite")
    assert known.labels == ("plain", "rows", "columns", "checks")
    assert known.made_by.pipeline == "stripes"
    assert known.measured["test"]["accuracy"] == report["test"]["accuracy"]
    assert card.GOLDEN in files


def test_the_boards_script_passes_its_selftest(built, infer, capsys):
    assert infer.main([str(built / "stripes.tflite"), "--selftest"]) == 0


def test_the_board_answers_as_the_float_network_does(built, infer, tmp_path):
    from tfedge.networks.saving import load_model
    from tfedge.progress import Silent

    data = pipeline.load(PIPELINE).source.open(tmp_path, Silent())
    device = infer.Classifier(str(built / "stripes.tflite"), threads=1)
    (student,) = built.glob("sparse-????????/model.h5")
    expected = load_model(student)(data.normalise(data.test.inputs)).numpy().argmax(axis=-1)
    answers = [int(device.logits(pixels).argmax()) for pixels in data.test.inputs]
    assert np.mean(answers == expected) >= 0.97


def test_a_second_build_runs_nothing_and_needs_no_tensorflow(built):
    done = tfedge("build", PIPELINE, "--build-dir", built.parent)
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["kept"] * 7
    assert done.stdout.splitlines()[-1].endswith("stripes.tflite")


def test_the_report_is_printed_as_a_ladder_and_as_json(built, report, capsys):
    assert main(["report", str(PIPELINE), "--build-dir", str(built.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert main(["report", str(PIPELINE), "--build-dir", str(built.parent)]) == 0
    assert "tested against teacher: bytes -" in capsys.readouterr().out.splitlines()[-1]


def test_a_build_prints_its_report_as_json(built, report, capsys):
    assert main(["build", str(PIPELINE), "--build-dir", str(built.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report


def test_evaluate_on_the_pipeline_repeats_the_builds_own_figures(built, report, capsys):
    model = str(built / "stripes.tflite")
    assert main(["evaluate", model, "--data", str(PIPELINE), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    for name in ("accuracy", "confusion", "per_class", "count", "split"):
        assert again[name] == report["test"][name]


def test_the_page_is_there_with_every_stage_and_its_training(built, report):
    text = (built / "report.html").read_text("utf-8")
    for stage in report["stages"]:
        assert f'<th scope="row">{stage["name"]}</th>' in text
    trained = ["teacher", "student", "sparse", "shared", "aware"]
    assert list(report["training"]) == trained
    assert [len(report["training"][name]) for name in trained] == [4, 4, 3, 2, 2]
    assert text.count("Loss and accuracy while") == len(trained)
    assert report["seed"] == 7
    assert report["made"]["student"]["temperature"] == 4.0


def test_layers_and_calibration_of_the_last_evaluation_are_in_the_report(report):
    assert report["layers"]["inputs"] == 32
    assert {"conv2d", "conv2d_1", "dense"} <= {row["layer"] for row in report["layers"]["layers"]}
    assert all(0.45 <= share <= 0.6 for share in report["layers"]["zeros"].values())
    assert sum(one["count"] for one in report["test"]["reliability"]["bins"]) == 103


def test_report_opens_a_page_of_what_is_known_now(built, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("click.launch", shown.append)
    page = built / "report.html"
    whole = page.read_text("utf-8")
    page.write_text("old")
    assert main(["report", str(PIPELINE), "--build-dir", str(built.parent), "--open"]) == 0
    assert shown == [str(page.resolve())]
    assert page.read_text("utf-8") == whole
    assert capsys.readouterr().out.splitlines()[-1] == str(page.resolve())


def test_without_what_the_page_needs_a_build_says_so_and_goes_on(
    project, capsys, monkeypatch, built
):
    from tfedge.report import page

    monkeypatch.setattr(page, "NEEDS", ("matplotlib", "not_installed_here"))
    place = ["--build-dir", str(built.parent)]
    shutil.copytree(built, project / "build/stripes")
    assert main(["report", str(PIPELINE), *place, "--open"]) == 2
    assert "--open: needs not_installed_here\n  run: pip install" in capsys.readouterr().err
    there = ["--build-dir", str(project / "build")]
    assert main(["build", str(PIPELINE), *there]) == 0
    assert not (project / "build/stripes/report.html").exists()
    text = (project / "build/stripes/report.md").read_text("utf-8")
    assert "where not_installed_here can be imported: pip install 'tfedge[report]'" in text


def test_inspect_shows_card_and_operators(built, capsys):
    model = str(built / "stripes.tflite")
    assert main(["inspect", model]) == 0
    out = capsys.readouterr().out
    assert "plain, rows, columns, checks" in out
    assert "FULLY_CONNECTED" in out
    assert main(["inspect", model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["float_tensors"] == []


def test_attach_puts_a_lost_card_back(built, tmp_path, infer, capsys):
    whole = built / "stripes.tflite"
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(card.strip(whole.read_bytes()))
    assert infer.main([str(bare), "--selftest"]) == 2
    assert main(["attach", str(bare), "--from", str(whole)]) == 0
    assert infer.main([str(bare), "--selftest"]) == 0


def test_a_killed_build_loses_an_epoch_at_most_and_makes_the_same_bytes(built, tmp_path):
    """Kill it in every stage that trains; compare with the build that nothing disturbed."""
    resumed = {}
    for stage in ("teacher", "student", "sparse", "shared", "aware", None):
        build = forked.start("build", PIPELINE, "--build-dir", tmp_path)
        for line in build.said:
            if "goes on after epoch" in line:
                resumed[line.split()[0]] = int(line.split()[-1])
            if stage and line.startswith(f"{stage} ") and " epoch 1/" in line:
                build.process.kill()
                break
        status = build.end()
        assert status == (-signal.SIGKILL if stage else 0)
    # The line is printed once the epoch is safe; the kill may come an epoch later.
    assert set(resumed) == {"teacher", "student", "sparse", "shared", "aware"}
    assert all(epoch >= 1 for epoch in resumed.values())
    same = [folder / "stripes.tflite" for folder in (built, tmp_path / "stripes")]
    assert same[0].read_bytes() == same[1].read_bytes()


def test_ctrl_c_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "tfedge", "build", PIPELINE, "--build-dir", tmp_path]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    for line in process.stderr:
        if " epoch 1/" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait() == 130
    assert rest.endswith("tfedge: stopped; the same command goes on after the last epoch\n")
    assert "Traceback" not in rest


def test_an_installed_wheel_works_without_the_clone(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, REPO]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel]
    subprocess.run([sys.executable, *install], check=True)
    away = {"cwd": tmp_path, "env": {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}}

    where = [sys.executable, "-c", "import tfedge; print(tfedge.__file__)"]
    found = subprocess.run(where, capture_output=True, text=True, check=True, **away).stdout
    assert found.startswith(str(site))
    assert tfedge("new", "mine", **away).returncode == 0
    (tmp_path / "stripes.py").write_text((STRIPES / "stripes.py").read_text())
    (tmp_path / "stripes.toml").write_text(PIPELINE.read_text())
    done = tfedge(
        "build", "stripes.toml", "--set", "teacher.epochs=1", "--until", "teacher", **away
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "build/stripes/report.html").is_file()  # its template came along
    assert not {"models", "device", "pipelines", "tests"} & {path.name for path in site.iterdir()}


OWN_LAYER = """
from tfedge.networks.backend import keras

class Scale(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight("factor", shape=(), initializer="ones")

    def call(self, x):
        return x * self.factor

def net(shape, classes):
    x = inputs = keras.Input(shape)
    x = Scale()(keras.layers.ReLU()(keras.layers.Conv2D(4, 3)(x)))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x))
"""


def test_a_layer_of_the_users_own_goes_all_the_way_also_when_the_network_was_kept(project):
    (project / "nets.py").write_text(OWN_LAYER)
    file = project / "stripes.toml"
    text = file.read_text().replace('"models/small.py:stack"\nwidths = [8, 16]', '"nets.py:net"')
    file.write_text(text.replace("[sparse]", "[unused]").replace('of = "sparse"', 'of = "student"'))
    short = [f"--set={stage}.epochs=1" for stage in ("teacher", "student", "unused")]
    command = ["build", file, "--build-dir", project / "b", *short]
    status, said = forked.run(*command, "--until", "student")
    assert status == 0, said
    out = project / "printed"
    status, said = forked.run(*command, "--set=aware.epochs=1", out=out)
    assert status == 0, said
    note = "aware: scale trained with outputs in 8 bits and weights in float: tfmot has no rule for"
    assert note in out.read_text()
    report = json.loads((project / "b/stripes/report.json").read_text())
    (aware,) = (stage for stage in report["stages"] if stage["name"] == "aware")
    assert (aware["by_output"], aware["left_in_float"]) == ({"scale": "Scale"}, {})
