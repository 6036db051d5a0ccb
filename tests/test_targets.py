import pytest

from tfedge.boards.runtimes import RUNTIMES
from tfedge.boards.targets import TARGETS, target
from tfedge.cli import main
from tfedge.errors import UserError

BOARDS = ["pi5", "pi4", "pi3", "zero2", "pi4-32bit", "coral"]


@pytest.mark.parametrize(
    "written",
    [
        "tflite-runtime-2.14",
        "tflite-runtime 2.14",
        "tflite-runtime==2.14",
        "tflite-runtime==2.14.0",
        "tflite_runtime 2.14",
        " TFLite-runtime 2.14 ",
    ],
)
def test_a_runtime_may_be_written_as_pip_writes_it(written):
    assert target(written) is TARGETS["tflite-runtime-2.14"]


@pytest.mark.parametrize(
    ("written", "meant"), [("pi6", "pi5"), ("tflite-runtime 2.41", "tflite-runtime-2.14"),
                           ("pi4_32bits", "pi4-32bit"), ("litert-2.3", "ai-edge-litert-2.3"),
                           ("tflite-runtime 2.15", "tflite-runtime-2.14"),
                           ("tflite-runtime-2.4", "tflite-runtime-2.5"),
                           ("ai-edge-litert-3", "ai-edge-litert-2.0")]
)  # fmt: skip
def test_a_wrong_name_is_answered_with_the_nearest(written, meant):
    with pytest.raises(UserError, match="there is no target") as caught:
        target(written)
    assert f"did you mean '{meant}'?" in str(caught.value)


def test_all_boards_and_every_runtime_are_targets():
    assert list(TARGETS)[: len(BOARDS)] == BOARDS
    minors = [f"tflite-runtime-2.{minor}" for minor in range(5, 15)]
    minors += [f"ai-edge-litert-1.{minor}" for minor in (*range(5), "x")]
    minors += [f"ai-edge-litert-2.{minor}" for minor in (*range(4), "x")]
    assert set(TARGETS) == {*BOARDS, *minors}


def test_a_target_has_wheels_for_its_machine_in_each_of_its_runtimes():
    # 2.5.0.post1 for Coral's boards is in Coral's own repository.
    for one in TARGETS.values():
        if one.machine and one.name != "coral":
            assert all(one.machine in RUNTIMES[name].machines for name in one.runtimes), one.name


def test_for_32_bits_there_is_one_runtime_and_numpy_1():
    found = target("pi4-32bit")
    assert found.runtimes == ("tflite-runtime 2.14",)
    assert (found.machine, found.python) == ("armv7l", "3.11")
    assert 'tflite-runtime==2.14.0 "numpy<2"' in found.install


def test_a_family_stands_for_all_its_versions():
    assert target("ai-edge-litert 1.x").runtimes == tuple(f"ai-edge-litert 1.{n}" for n in range(5))
    assert target("ai-edge-litert-1.x").python == "3.9 to 3.12"
    assert target("ai-edge-litert-2.x").python == "3.9 to 3.14"


def test_the_command_lists_all_targets_without_a_model(capsys):
    assert main(["check", "--targets"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in TARGETS)
    assert "Raspberry Pi Zero 2 W of 512 MB" in said
    assert main(["check", "--help"]) == 0
    help_ = capsys.readouterr().out.split()
    assert set(TARGETS) <= {word.strip(",.") for word in help_}


def test_a_wrong_target_is_a_mistake_of_the_users(tmp_path, capsys):
    from tiny_model import tiny_model

    file = tmp_path / "tiny.tflite"
    file.write_bytes(tiny_model())
    assert main(["check", str(file), "--target", "pi44"]) == 2
    assert "tfedge: --target: there is no target 'pi44'\n  did you mean 'pi4'?" in (
        capsys.readouterr().err
    )
