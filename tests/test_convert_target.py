"""The convert stage's `target`, through the command line."""

import json
import os
from functools import partial

import numpy as np
import pytest
from conftest import STRIPES
from stand_in_compiler import install, success, table
from tiny_conv import G, Op, T, model_of

from tfedge.boards import checking
from tfedge.boards.edgetpu_rules import MAPPED
from tfedge.boards.targets import target
from tfedge.cli import main
from tfedge.data.dataset import Data, Split
from tfedge.errors import UserError
from tfedge.tflite import card
from tfedge.tflite.facts import facts
from tfedge.tflite.running import answers
from tfedge.tflite.wishes import Wishes


def edited(project, settings, old='[int8]\nuse = "convert"\nof = "aware"'):
    file = project / "stripes.toml"
    text = (STRIPES / file.name).read_text()
    assert old in text
    file.write_text(text.replace(old, f'[int8]\nuse = "convert"\n{settings}', 1))
    return file


@pytest.mark.parametrize("command", ["plan", "build"])
def test_a_target_that_is_none_is_named_before_anything_runs(project, capsys, command):
    file = edited(project, 'of = "aware"\ntarget = "pi44"')
    folder = project / "build"
    assert main([command, str(file), "--build-dir", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "stripes.toml [int8] target: there is no target 'pi44'\n  did you mean 'pi4'?" in said
    assert not folder.exists()


def test_the_manual_has_the_target(capsys):
    assert main(["stages", "convert"]) == 0
    assert "board or runtime that it must suit" in capsys.readouterr().out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("built")


def build(project, folder, capsys, settings, *, status):
    """Build up to the convert stage, of the student; return its report, or what was said."""
    file = edited(project, f'of = "student"\n{settings}')
    command = ["build", str(file), "--build-dir", str(folder), "--until", "int8", "--json"]
    capsys.readouterr()
    assert main(command) == status
    out, err = capsys.readouterr()
    return json.loads(out)["stages"][-1] if status == 0 else err


@pytest.mark.slow
def test_a_file_that_suits_its_target_is_built_and_the_report_says_so(project, folder, capsys):
    stage = build(project, folder, capsys, 'target = "pi4"', status=0)
    assert (stage["name"], stage["target"], stage["check"]["ok"]) == ("int8", "pi4", True)
    assert stage["check"]["process_bytes"] > stage["check"]["file_bytes"] > 0
    assert "notes" not in stage


@pytest.mark.slow
def test_a_target_where_int8_is_slow_is_told_so(project, folder, capsys):
    stage = build(project, folder, capsys, 'target = "tflite-runtime 2.14"', status=0)
    (note,) = stage["notes"]
    assert note.startswith("tflite-runtime-2.14: tflite-runtime 2.14 has no XNNPACK for int8")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["int8", "dynamic", "float16", "float32"])
def test_the_dense_layers_of_every_form_suit_the_oldest_runtime(project, folder, capsys, form):
    settings = f'form = "{form}"\ntarget = "tflite-runtime-2.5"'
    assert build(project, folder, capsys, settings, status=0)["check"]["ok"]


def test_a_form_that_no_edge_tpu_takes_is_refused_before_anything_runs(project, capsys):
    file = edited(project, 'of = "aware"\nform = "float16"\ntarget = "coral"')
    assert main(["plan", str(file), "--build-dir", str(project / "build")]) == 2
    said = capsys.readouterr().err
    assert "[int8] form: coral has an Edge TPU, which takes int8 alone, got float16" in said
    assert 'write form = "int8"' in said


@pytest.mark.slow
def test_a_form_that_the_target_gets_wrong_stops_the_build(project, folder, capsys):
    settings = 'form = "int16x8"\ntarget = "tflite-runtime 2.8"'
    said = build(project, folder, capsys, settings, status=1)
    assert "stripes.toml [int8] target: the file is not fit for tflite-runtime-2.8" in said
    assert "FULLY_CONNECTED v4 of layer 'dense" in said
    assert "takes for one of 32" in said
    assert 'write form = "int8"' in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_for_coral_it_says_how_to_come_by_a_compiled_file(project, folder, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(project))
    stage = build(project, folder, capsys, 'target = "coral"', status=0)
    assert stage["check"]["edge_tpu"]["mapped"] == stage["check"]["edge_tpu"]["total"] > 0
    (note,) = stage["notes"]
    assert "edgetpu_compiler is not installed here" in note


@pytest.mark.slow
def test_for_coral_the_compiler_runs_and_the_card_goes_into_what_it_made(
    project, folder, capsys, monkeypatch
):
    build(project, folder, capsys, 'target = "pi4"', status=0)
    plain = (folder / "stripes/stripes.tflite").read_bytes()
    ends = (*facts(plain, "it").inputs, *facts(plain, "it").outputs)
    tensors = tuple(T(t.name, t.dtype, t.shape, None, t.scales, t.zero_points) for t in ends)
    made = model_of(
        G("", tensors, (Op("edgetpu-custom-op", (0,), (1,)),), (0,), (1,), signature=False)
    )
    rows = table(("CONV_2D", 1, MAPPED), ("ARG_MAX", 1, "Operation not supported"))
    place = install(project / "bin", success(1, 1), rows, output=made)
    monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)

    stage = build(project, folder, capsys, 'target = "coral"\ngolden = 1', status=0)

    said = "\n".join(stage["notes"])
    assert "mapped 1 of 2 operators" in said
    assert "ARG_MAX: predicted none, the compiler says 1 x 'Operation not supported'" in said
    assert "for the Edge TPU: compiled, with its card, beside the .tflite" in said
    (compiled,) = (folder / "stripes").rglob("model_edgetpu.tflite")
    published = folder / "stripes/stripes_edgetpu.tflite"
    assert published.read_bytes() == compiled.read_bytes()
    theirs, _ = card.read(compiled.read_bytes(), compiled)
    ours, _ = card.read(compiled.with_name("model.tflite").read_bytes(), compiled)
    assert theirs.labels == ours.labels
    assert facts(compiled.read_bytes(), "it").custom_operators == ("edgetpu-custom-op",)
    build(project, folder, capsys, 'target = "pi4"', status=0)
    assert not published.exists()


SERIES = (12, 6)


def series_data():
    x = np.random.default_rng(0).normal(size=(400, *SERIES)).astype(np.float32)
    classes = (x[:, :, 0].sum(axis=1) > 0).astype(np.int64)
    split = Split(x[:200], classes[:200])
    return Data(
        split, Split(x[200:], classes[200:]), split, ("down", "up"), "array", (0.0,), (1.0,)
    )


def with_memory(*more):
    """A network with an LSTM called memory, and layers behind it."""
    from tfedge.networks.backend import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(4)
    x = given = keras.Input(SERIES)
    x = keras.layers.LSTM(8, name="memory")(x)
    for layer in more:
        x = layer(x)
    return keras.Model(given, keras.layers.Dense(2, name="logits")(x), name="net")


def made_for(name, model, **wishes):
    """Convert as the stage does; return what it made and what check says of that."""
    from tfedge.tflite.making import Conversion

    settings = Wishes(strict=False, calibrate=100, **wishes)
    unfit = partial(checking.unfit, target=target(name))
    conversion = Conversion(model, series_data(), "[int8]", settings, unfit)
    made = conversion.run()
    return made, checking.check(made.flatbuffer, "it", target(name), conversion.layers)


def fed(flatbuffer, operator):
    """Return the types of what the operators of a name are fed."""
    graph = facts(flatbuffer, "it").subgraphs[0]
    return [graph.tensors[o.inputs[0]].dtype for o in graph.operators if o.name == operator]


@pytest.mark.slow
def test_an_lstm_stays_float_for_a_runtime_that_gets_it_wrong_in_int8():
    model = with_memory()
    made, verdict = made_for("tflite-runtime-2.11", model)
    assert verdict.ok, verdict.serious
    assert fed(made.flatbuffer, "UNIDIRECTIONAL_SEQUENCE_LSTM") == ["float32"]
    assert fed(made.flatbuffer, "FULLY_CONNECTED") == ["int8"]
    assert facts(made.flatbuffer, "it").inputs[0].dtype == "int8"
    assert made.figures["in_float"] == ["memory"]
    (note,) = [line for line in made.figures["notes"] if "float instead" in line]
    assert "layer 'memory' (LSTM): int8 LSTM is wrong on tflite-runtime 2.11; +" in note
    x = series_data().tune.inputs[:100]
    right = model(x, training=False).numpy()
    off = np.sqrt(np.mean((answers(made.flatbuffer, x) - right) ** 2)) / right.std()
    assert off < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite-runtime-2.12", "coral"])
def test_an_lstm_is_int8_where_that_is_right(name):
    made, verdict = made_for(name, with_memory())
    assert verdict.ok, verdict.serious
    assert fed(made.flatbuffer, "UNIDIRECTIONAL_SEQUENCE_LSTM") == ["int8"]
    assert "in_float" not in made.figures


@pytest.mark.slow
def test_lstms_that_cannot_be_told_apart_are_refused_with_a_way_out():
    from tfedge.networks.backend import keras

    given = keras.Input(SERIES)
    sides = [keras.layers.LSTM(4, name=name)(given) for name in ("left", "right")]
    both = keras.layers.Concatenate()(sides)
    model = keras.Model(given, keras.layers.Dense(2, name="logits")(both))
    _, verdict = made_for("tflite-runtime-2.8", model)
    (one,) = verdict.serious
    assert len(one.operators) == 2
    assert 'write form = "dynamic" or "float16"' in one.remedy


@pytest.mark.slow
def test_an_lstm_in_a_network_trained_in_8_bits_is_refused_by_name():
    from tfedge.networks.backend import keras
    from tfedge.training.quantization import quantization_aware

    data = series_data()
    model = with_memory(keras.layers.Dense(16, activation="relu", name="hidden"))
    aware = quantization_aware(model, data.train.inputs[:64], data.limits())
    with pytest.raises(UserError) as refused:
        made_for("tflite-runtime-2.8", aware)
    said = str(refused.value)
    assert "LSTM is wrong on tflite-runtime 2.8" in said
    assert "memory" in said
    assert "convert the stage before qat" in said
