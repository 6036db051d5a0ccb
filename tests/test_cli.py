import json
import subprocess
import sys

import pytest
from PIL import Image

from tfedge.cli import main

STAGE_MISTAKES = [
    ("seed = 7", "seeds = 7", "[settings]: unknown setting 'seeds'\n  did you mean 'seed'?"),
    ("seed = 7", "seed = -1", "[settings] seed: must be from 0 to"),
    ("temperature = 4.0", "temprature = 4.0", "did you mean 'temperature'?"),
    ("temperature = 4.0", "temperature = 0", "[student] temperature: must be from 0.1 to 100, got 0.0"),
    ("temperature = 4.0", 'temperature = "hot"', "[student] temperature: expected a number, got 'hot'"),
    ('teacher = "teacher"', 'teacher = "int8"', "[student] teacher: 'int8' is not a stage above"),
    ('teacher = "teacher"', "teacher = 1", "[student] teacher: expected a stage's name, got 1"),
    ('teacher = "teacher"', "", "[student]: 'teacher' is missing\n  stage whose network teaches"),
    ('use = "distill"', 'use = "distil"', "unknown stage 'distil'\n  did you mean 'distill'?"),
    ('use = "distill"', "", "[student]: 'use' is missing"),
    ('use = "distill"', "use = 7", "[student]: unknown stage 7"),
    ('"models/small.py:stack"', '"models/smal.py:stack"', "[teacher] model: no such file or module"),
    ('"models/small.py:stack"', '"models/small.py:stak"', "did you mean 'stack'?"),
    ("widths = [16, 32]", "width = 3", "[teacher]: unknown setting 'width', and models/small.py:stack"),
    ("widths = [16, 32]", 'widths = "wide"', "[teacher] widths: expected"),
    ("epochs = 4", "epochs = true", "[teacher] epochs: expected a whole number, got True"),
    ("sparsity = 0.5", "sparsity = 1.4", "[sparse] sparsity: must be from 0 to 0.99, got 1.4"),
    ("sparsity = 0.5", 'sparsity = 0.6\npattern = "2:4"', "[sparse] sparsity: 2:4 is 0.5 by its nature"),
    ("sparsity = 0.5", 'ramp = "constant"\npattern = "2:4"', "[sparse] pattern: 2:4 has no ramp\n  leave begin"),
    ("sparsity = 0.5", "begin = 0.9", "[sparse] begin: must be at most end, 0.6, got 0.9"),
    ("sparsity = 0.5", "temperature = 2.0", "[sparse] temperature: is for a teacher's answers\n  write teacher ="),
    ("sparsity = 0.5", 'teacher = "aware"', "[sparse] teacher: 'aware' is not a stage above this one"),
    ('of = "int8"', 'of = "aware"', "[tested] of: 'aware' makes an 8-bit network, not a .tflite"),
    ('of = "int8"', 'of = "shared"', "[tested] of: 'shared' makes a clustered network, not a .tflite"),
    ("of = \"sparse\"", 'of = "sparse"\nclusters = 2', "[shared] clusters: must be from 3 to 256, got 2"),
    ("of = \"sparse\"", 'of = "sparse"\nlayers = { dense = 2 }', "[shared] layers: 'dense' must have 3 clusters or more"),
    ('of = "aware"', 'of = "stdent"', "[int8] of: 'stdent' is not a stage above this one\n  did you mean 'student'?"),
    ('cost = []', 'cost = ["pi3"]', "[tested] cost: there is no board 'pi3' to count for\n  did you mean"),
    ("[tested]", '["a/b"]', "[a/b]: 'a/b' is no name for a folder"),
    ("[tested]", "[", "stripes.toml: "),
    ("[data]", "loose = 1\n[data]", "unknown setting 'loose'\n  every setting stands in a table"),
    ('use = "stripes.py:stripes"', 'use = "stripes.py:strips"', "did you mean 'stripes'?"),
    ('use = "stripes.py:stripes"', 'use = "npx"', "[data]: unknown source 'npx'\n  write 'folder', 'npz'"),
    ('use = "stripes.py:stripes"', 'use = "folder"', "[data]: 'path' is missing"),
    ('use = "stripes.py:stripes"', "", "[data]: 'use' is missing"),
    ('augment = ["flip"]', 'augment = ["flop"]', "[data] augment: unknown name 'flop'\n  did you mean 'flip'?"),
    ("count = 900", "cuont = 900", "did you mean 'count'?"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), STAGE_MISTAKES)
def test_a_mistake_in_the_file_is_named_before_anything_runs(project, capsys, old, new, message):
    file = project / "stripes.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))

    assert main(["build", str(file), "--build-dir", str(project / "build")]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("tfedge: ")
    assert out == ""
    assert not (project / "build").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "teacher.epochs"], "--set: cannot read 'teacher.epochs'"),
        (["--set", "techer.epochs=3"], "--set: there is no [techer]\n  did you mean 'teacher'?"),
        (["--set", "teacher.epochs=many"], "[teacher] epochs: expected a whole number, got 'many'"),
        (["--untill", "int8"], "No such option"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(project, capsys, arguments, message):
    file = str(project / "stripes.toml")
    assert main(["build", file, "--build-dir", str(project / "b"), *arguments]) == 2
    assert message in capsys.readouterr().err


def shell(*arguments, **options):
    command = [sys.executable, "-m", "tfedge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_a_mistake_reaches_the_shell_as_status_2(project):
    done = shell("plan", project / "no.toml")
    assert done.returncode == 2
    assert done.stderr == f"tfedge: {project / 'no.toml'}: No such file or directory\n"


def test_neither_plan_nor_help_imports_tensorflow(project):
    code = (
        "import sys; from tfedge.cli import main; status = main(sys.argv[1:]); "
        "assert status == 0 and 'tensorflow' not in sys.modules, status"
    )
    for arguments in (["plan", str(project / "stripes.toml")], ["-h"], ["stages"]):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=project)


def test_help_does_not_even_import_numpy():
    code = (
        "import sys; from tfedge.cli import main; main(['-h']); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "command",
    ["build", "plan", "stages", "new", "evaluate", "inspect", "report", "attach", "cost"],
)
def test_every_command_explains_itself(capsys, command):
    assert main([command, "-h"]) == 0
    assert f"{command} [OPTIONS]" in capsys.readouterr().out


def test_plan_prints_a_line_a_stage_or_an_object_a_line(project, capsys):
    file, build = str(project / "stripes.toml"), str(project / "b")
    assert main(["plan", file, "--build-dir", build]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "teacher      run   not built yet"
    assert main(["plan", file, "--build-dir", build, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["stage"] for row in rows] == [
        "teacher",
        "student",
        "sparse",
        "shared",
        "aware",
        "int8",
        "tested",
    ]
    assert all(row["run"] for row in rows)


def test_the_manual_names_every_setting_with_its_range_and_default(capsys):
    assert main(["stages", "distill"]) == 0
    out = capsys.readouterr().out
    assert 'use = "distill"' in out
    assert (
        "temperature      softens both answers; 1 leaves them as they are; 0.1 to 100; default 4.0"
        in out
    )
    assert "teacher          stage whose network teaches; must be given" in out
    assert "optimizer        " in out
    assert "one of adam, sgd" in out


def test_the_manual_is_there_as_json(capsys):
    assert main(["stages", "--json"]) == 0
    manual = json.loads(capsys.readouterr().out)
    temperature = manual["distill"]["settings"]["temperature"]
    assert (temperature["low"], temperature["high"], temperature["default"]) == (0.1, 100, 4.0)
    assert manual["train"]["settings"]["model"]["required"]


def test_an_unknown_stage_in_the_manual_is_a_mistake(capsys):
    assert main(["stages", "distil"]) == 2
    assert "did you mean 'distill'?" in capsys.readouterr().err


def test_new_starts_a_pipeline_that_plans(tmp_path, capsys):
    folder = tmp_path / "mine"
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (20, 30), (number, 0, 0)).save(
                folder / "photos" / label / f"{number}.png"
            )
    assert main(["new", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "found 2 folders" in out
    assert f"then: tfedge build {folder / 'pipeline.toml'}" in out
    assert {"pipeline.toml", "README.md", "infer.py", "photos"} <= {
        path.name for path in folder.iterdir()
    }

    assert main(["plan", str(folder / "pipeline.toml"), "--build-dir", str(tmp_path / "b")]) == 0


def test_new_makes_the_folder_for_photos_and_says_what_goes_there(tmp_path, capsys):
    assert main(["new", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine/photos").is_dir()
    assert "next: put photos into" in capsys.readouterr().out


def test_new_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    assert main(["new", str(tmp_path)]) == 2
    assert "README.md: is already there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_report_of_nothing_says_what_to_run(project, capsys):
    file = str(project / "stripes.toml")
    assert main(["report", file, "--build-dir", str(project / "b")]) == 2
    assert f"run: tfedge build {file}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["inspect", "no.tflite"], ["attach", "a", "--from", "b"],
                                     ["evaluate", "no.tflite", "--data", "x"]])  # fmt: skip
def test_a_file_that_is_not_there_is_named(capsys, command):
    assert main(command) == 2
    assert f"{command[1]}: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("photos", ['my "x" photos', "a\\b"])
def test_new_writes_any_folders_name_as_valid_toml(tmp_path, photos):
    import tomllib

    assert main(["new", str(tmp_path / "my cats"), "--photos", photos]) == 0
    tables = tomllib.loads((tmp_path / "my cats/pipeline.toml").read_text())
    assert tables["data"]["path"] == photos
    assert tables["settings"]["name"] == "my_cats"


def test_a_build_folder_that_is_a_file_is_named(project, capsys):
    (project / "taken").touch()
    assert (
        main(["build", str(project / "stripes.toml"), "--build-dir", str(project / "taken")]) == 2
    )
    assert "taken" in capsys.readouterr().err
