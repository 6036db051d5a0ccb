"""Stages that are left out, and what those that name them take instead."""

import pytest
from test_kinds import EXITS
from test_pipeline import edit

from tfedge.cli import main
from tfedge.errors import UserError
from tfedge.plan import pipeline
from tfedge.progress import Silent


@pytest.fixture
def early(project):
    """Give the student exits, with settings of exits in two stages behind."""
    edit(project, "[sparse]", EXITS + "[sparse]")
    edit(project, 'of = "student"\nsparsity', 'of = "early"\nexit_weights = [1, 2, 1]\nsparsity')
    edit(project, 'use = "convert"', 'use = "convert"\nexit_max_drop = 0.02')
    return project


def load(project, *changes):
    return pipeline.load(project / "stripes.toml", changes)


def keys(project, *changes):
    """Return each stage's name and key."""
    steps = pipeline.plan(load(project, *changes), project / "build")
    return {step.name: step.key for step in steps}


def refused(project, *changes):
    with pytest.raises(UserError) as caught:
        load(project, *changes)
    return str(caught.value)


def test_a_skipped_stage_makes_the_same_pipeline_as_one_without_its_table(project):
    skipped = keys(project, "sparse.skip=true", "shared.skip=true")
    text = (project / "stripes.toml").read_text()
    start, end = text.index("[sparse]"), text.index("[aware]")
    edit(project, text[start:end], "")
    edit(project, 'of = "shared"', 'of = "student"')
    assert skipped == keys(project)


def test_whatever_names_a_skipped_stage_takes_what_its_own_of_names(project):
    edit(project, 'of = "shared"', 'of = "shared"\nteacher = "sparse"')
    edit(project, 'against = "teacher"', 'against = "shared"')
    stages = load(project, "sparse.skip=true", "shared.skip=true").stages
    assert list(stages) == ["teacher", "student", "aware", "int8", "tested"]
    assert (stages["aware"].of, stages["aware"].teaching.teacher) == ("student", "student")
    assert (stages["tested"].of, stages["tested"].against) == ("int8", "student")

    stages = load(project, "sparse.skip=true").stages
    assert (stages["shared"].of, stages["aware"].of) == ("student", "shared")
    assert (stages["aware"].teaching.teacher, stages["tested"].against) == ("student", "shared")


def test_skip_false_is_as_good_as_not_written(project):
    assert keys(project, "sparse.skip=false") == keys(project)


def test_a_skipped_stage_is_told_by_plan_and_no_place_to_stop(project, capsys):
    file, build = str(project / "stripes.toml"), str(project / "build")
    assert main(["plan", file, "--build-dir", build, "--set", "sparse.skip=true"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [
        *("teacher", "student", "shared", "aware", "int8", "tested")
    ]
    assert lines[-1] == "sparse       skip  student stands in for it"
    with pytest.raises(UserError, match="'sparse' is skipped\n  write --until student"):
        pipeline.build(
            *(load(project, "sparse.skip=true"), project / "build", Silent()), until="sparse"
        )


def test_the_manual_tells_of_it(capsys):
    assert main(["stages", "[any stage]"]) == 0
    out = capsys.readouterr().out
    assert "    skip             leave the stage out" in out
    assert out.rstrip().endswith("; default false")


def test_without_the_stage_that_gives_exits_their_settings_count_for_nothing(early):
    skipped = keys(early, "early.skip=true")
    assert load(early).stages["int8"].leaving.exit_max_drop == 0.02
    edit(early, EXITS, "")
    edit(early, 'of = "early"\nexit_weights = [1, 2, 1]', 'of = "student"')
    edit(early, "exit_max_drop = 0.02\n", "")
    assert skipped == keys(early)


def test_settings_of_exits_are_refused_where_no_stage_gives_any_skipped_or_not(early):
    edit(early, 'of = "early"\nexit_weights = [1, 2, 1]', 'of = "student"')
    message = "[int8] exit_max_drop: is for networks with exits, and 'aware' has none"
    assert message in refused(early)
    assert message in refused(early, "early.skip=true")
    assert "'sparse' has none" in refused(
        early, "shared.skip=true", "aware.skip=true"
    )  # and not because of these


def test_settings_of_exits_are_checked_where_the_exits_stay(early):
    edit(early, "exit_weights = [1, 2, 1]", "exit_weights = [1, 2]")
    assert "got 2 weights" in refused(early)
    assert "[sparse]" in refused(early, "shared.skip=true")
    load(early, "early.skip=true")
    load(early, "sparse.skip=true")


def test_a_form_that_exits_cannot_have_does_without_them(early):
    form = "int8.form=int16x8"
    assert "a network with exits becomes int8 alone" in refused(early, form)
    skipped = load(early, form, "early.skip=true", "aware.skip=true")
    assert skipped.stages["int8"].wishes.form == "int16x8"


def test_targets_of_a_skipped_evaluation_are_about_the_file_that_it_would_measure(project):
    with (project / "stripes.toml").open("a") as file:
        file.write('\n[targets]\nstage = "tested"\nmax_bytes = 9000\n')
    assert load(project).targets.stage == "tested"
    assert load(project, "tested.skip=true").targets.stage == "int8"
    lost = refused(project, "tested.skip=true", "targets.min_accuracy=0.5")
    assert "[targets] min_accuracy: no stage evaluates 'int8'" in lost


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["sparse.skip=perhaps"], "[sparse] skip: expected true or false, got 'perhaps'"),
        (["sparse.skip=1"], "[sparse] skip: expected true or false, got 1"),
        (["teacher.skip=true"], "[teacher] skip: without `of` nothing can take its place"),
        (["student.skip=true"], "[student] skip: without `of` nothing can take its place"),
        (["sparse.skip=true", "sparse.sparsity=2"], "[sparse] sparsity: must be from 0 to 0.99"),
        (["sparse.skip=true", "sparse.begin=0.9"], "[sparse] begin: must be at most end"),
        (["sparse.skip=true", "sparse.of=studnet"], "[sparse] of: 'studnet' is not a stage above"),
        (
            ["int8.skip=true"],
            "[tested] of: 'aware' makes an 8-bit network, not a .tflite"
            " ('int8' is skipped, 'aware' stands in)",
        ),
    ],
)
def test_a_mistake_about_skipping_is_named_before_anything_runs(project, changes, message):
    assert message in refused(project, *changes)


def test_a_chain_may_be_skipped_whose_stages_fit_nothing_but_each_other(project):
    assert list(load(project, "int8.skip=true", "tested.skip=true").stages)[-1] == "aware"


def test_an_argument_that_is_called_skip_is_refused_where_it_would_be_meant(project):
    (project / "own.py").write_text("def net(shape, classes, skip=True): pass\n")
    edit(project, '"models/small.py:stack"\nwidths = [16, 32]', '"own.py:net"')
    load(project)
    for value in ("true", "false"):
        assert "own.py:net has 'skip' as well" in refused(project, f"teacher.skip={value}")


def test_a_table_for_a_search_is_kept_as_it_is_and_changes_no_stage(project):
    plain = keys(project)
    assert load(project).search is None
    with (project / "stripes.toml").open("a") as file:
        file.write("\n[search]\nstudent.alpha = [0.1, 0.2]\nsparse.skip = [true, false]\n")
    assert load(project).search == {
        "student": {"alpha": [0.1, 0.2]},
        "sparse": {"skip": [True, False]},
    }
    assert keys(project) == plain
    assert load(project, "search.trials=3").search["trials"] == 3


def test_a_search_is_a_table_and_no_stage(project):
    edit(project, "[data]", "search = 3\n\n[data]")
    every = "every setting stands in a table: [data], [settings], [targets], [search] or a stage's"
    assert f"unknown setting 'search'\n  {every}" in refused(project)
    edit(project, "search = 3\n\n[data]", '[search]\nuse = "train"\n\n[data]')
    assert "stripes.toml [search]: is no stage" in refused(project)
