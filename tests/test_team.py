"""What TF_CONFIG makes of a process, and what is refused before anything runs."""

import json
import threading
import time

import pytest

from tfedge.cli import main
from tfedge.errors import UserError
from tfedge.plan import store
from tfedge.training import team

WORKERS = ["a:1", "b:2"]


def config(cluster, job="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})}


def test_without_tf_config_a_process_is_alone():
    for environment in ({}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}):
        assert team.member(environment) == team.ALONE
    assert team.ALONE.is_chief


@pytest.mark.parametrize(
    ("job", "index", "number", "words"),
    [("chief", 0, 0, "process 1 of 3"), ("worker", 0, 1, "process 2 of 3"), ("worker", 1, 2, "")],
)
def test_the_job_called_chief_comes_first(job, index, number, words):
    found = team.member(config({"worker": WORKERS, "chief": ["c:3"]}, job, index))
    assert found == team.Member(number, ("c:3", "a:1", "b:2"))
    assert found.is_chief == (number == 0)
    assert words in str(found)


def test_without_that_job_the_first_worker_is_the_chief():
    assert team.member(config({"worker": WORKERS})).is_chief
    assert not team.member(config({"worker": WORKERS}, index=1)).is_chief


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG: cannot be read: "),
        ("[]", "TF_CONFIG: cannot be read: "),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"index": "x"}}', "cannot be read: invalid"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}}', "names the job 'ps'"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}',
            "names the job 'evaluator'",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "says that this is worker 1, and names 1 of them",
        ),
    ],
)
def test_a_tf_config_of_another_kind_is_refused_with_one_that_is_right(text, message):
    with pytest.raises(UserError, match="set it for each process") as caught:
        team.member({"TF_CONFIG": text})
    assert message in str(caught.value)
    example = str(caught.value).partition("TF_CONFIG='")[2].rstrip("'")
    assert team.member({"TF_CONFIG": example}).addresses == ("host_a:2222", "host_b:2222")


@pytest.mark.parametrize(
    ("change", "cluster", "message"),
    [
        ("teacher.strategy=multi_worker", None, "strategy: 'multi_worker' wants other processes"),
        ("teacher.strategy=multi_worker", WORKERS[:1], "and TF_CONFIG names none"),
        ("sparse.strategy=multi_worker", ["a:1", "b:2", "c:3"], "[sparse] batch: 64 inputs a step"),
        (
            "aware.strategy=mirrored",
            None,
            "[aware] strategy: 'mirrored' is not possible here: tfmot",
        ),
        ("aware.strategy=multi_worker", WORKERS, "leave strategy out: this stage trains as 'one'"),
        ("teacher.strategy=two", None, "strategy"),
    ],
)
def test_a_mistake_is_named_before_anything_runs(
    project, capsys, monkeypatch, change, cluster, message
):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if cluster:
        monkeypatch.setenv("TF_CONFIG", config({"worker": cluster})["TF_CONFIG"])
    place = project / "build"
    arguments = ["--build-dir", str(place), "--set", change]
    assert main(["build", str(project / "stripes.toml"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert not list(place.glob("stripes/*-*"))


def test_fresh_is_refused_where_others_could_not_tell(project, capsys):
    place, more = str(project / "build"), ["--fresh", "--set", "teacher.strategy=multi_worker"]
    assert main(["build", str(project / "stripes.toml"), "--build-dir", place, *more]) == 2
    assert "--fresh: other processes could not tell" in capsys.readouterr().err


def test_another_strategy_is_no_change(project):
    from tfedge.plan import pipeline

    def keys(*changes):
        loaded = pipeline.load(project / "stripes.toml", changes)
        return [step.key for step in pipeline.plan(loaded, project / "build")]

    assert keys("teacher.strategy=mirrored") == keys()
    assert keys("teacher.batch=32") != keys()


@pytest.fixture
def chief(tmp_path, monkeypatch):
    from tfedge.plan import following

    monkeypatch.setattr(following, "POLL_S", 0.01)
    monkeypatch.setattr(following, "PATIENCE_S", 0.1)
    return following._Chief(tmp_path)


def test_others_wait_as_long_as_the_chief_is_at_work(chief):
    polls = []

    def after_five_times_the_patience():
        polls.append(time.monotonic())
        return polls[-1] - polls[0] > 0.5

    with store.locked(chief.folder):
        assert store.is_locked(chief.folder)
        chief.wait(after_five_times_the_patience, "teacher")
    assert not store.is_locked(chief.folder)


def test_without_a_chief_others_give_up_and_say_what_to_do(chief):
    began = time.monotonic()
    with pytest.raises(UserError, match="ended before teacher was finished") as caught:
        chief.wait(lambda: False, "teacher")
    assert 0.1 < time.monotonic() - began < 5
    assert "a --build-dir that all of them see" in str(caught.value)


def test_to_ask_whether_there_is_a_chief_does_not_keep_one_out(tmp_path):
    def ask():
        while not ended.wait(0.002):  # a process asks every half second
            store.is_locked(tmp_path)

    ended, others = threading.Event(), []
    with store.locked(tmp_path):
        pass
    for _ in range(3):
        others.append(threading.Thread(target=ask))
        others[-1].start()
    try:
        for _ in range(20):
            with store.locked(tmp_path):
                assert store.is_locked(tmp_path)
    finally:
        ended.set()
        for other in others:
            other.join()
