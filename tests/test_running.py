"""Steps run by several processes that share a folder, with stages that only pretend."""

import multiprocessing
import time

import pytest
from test_pipeline import run

from tfedge.errors import Paused, UserError
from tfedge.plan import claims, pipeline, running, stages, store
from tfedge.progress import Silent

FORK = multiprocessing.get_context("fork")


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def steps(project, monkeypatch):
    for kind in stages.STAGES.values():
        monkeypatch.setattr(kind, "run", run)
    monkeypatch.setattr(running, "import_module", lambda name: None)
    return pipeline.plan(pipeline.load(project / "stripes.toml"), project / "build")


def work(project, progress=None, **options):
    loaded = pipeline.load(project / "stripes.toml")
    progress = progress or Silent()
    data = loaded.source.open(project / "build", progress)
    return running.Work(
        loaded, lambda: data, progress, waiting=claims.Waiting(poll_s=0.01), **options
    )


def share(steps, queue, given):
    folders = {step.name: step.folder for step in steps}
    for step in steps:
        queue.put((step.name, running.run_step(step, folders, given)))


@pytest.mark.slow
def test_each_step_that_three_processes_need_is_made_once(steps, project, monkeypatch):
    def slow(self, job):
        time.sleep(0.05)
        return run(self, job)

    for kind in stages.STAGES.values():
        monkeypatch.setattr(kind, "run", slow)
    queue, given = FORK.Queue(), work(project)
    crowd = [FORK.Process(target=share, args=(steps, queue, given)) for _ in range(3)]
    for one in crowd:
        one.start()
    told = [queue.get(timeout=60) for _ in range(3 * len(steps))]
    for one in crowd:
        one.join()
    assert sorted(name for name, made in told if made) == sorted(step.name for step in steps)
    assert [store.damage(step.folder) for step in steps] == [""] * len(steps)
    left = {path.name for path in (project / "build/stripes").iterdir()}
    assert left - {step.folder.name for step in steps} <= {claims.FOLDER}


def test_a_pause_keeps_what_is_there_and_the_next_run_goes_on_from_it(steps, project, monkeypatch):
    def train(self, job):
        state = job.scratch / "epochs"
        job.scratch.mkdir(exist_ok=True)
        done = int(state.read_text()) if state.exists() else 0
        begun.append(done)
        for epoch in range(done, 4):
            state.write_text(str(epoch + 1))
            job.watch(epoch + 1, {"loss": 1.0})
        return run(self, job)

    def pause(epochs, row):
        assert row == {"loss": 1.0}
        if epochs == stops[-1]:
            raise Paused

    begun, stops, step = [], [], steps[0]
    monkeypatch.setattr(type(step.stage), "run", train)
    for epochs in (2, 3):
        stops.append(epochs)
        with pytest.raises(Paused):
            running.run_step(step, {}, work(project, watch=pause))
        assert step.folder.with_name(step.folder.name + ".partial").is_dir()
    stops.append(0)
    assert running.run_step(step, {}, work(project, watch=pause))
    assert begun == [0, 2, 3]
    assert store.damage(step.folder) == ""


def test_a_pause_goes_through_the_code_of_a_users_own_stage(steps, project):
    from test_pipeline import OWN_STAGE

    text = OWN_STAGE.replace("        (job.out", "        job.watch(1, {})\n        (job.out")
    assert "job.watch" in text
    (project / "own.py").write_text(text)
    with (project / "stripes.toml").open("a") as file:
        file.write('\n[shout]\nuse = "own.py:Shout"\nof = "int8"\n')

    def pause(epochs, row):
        raise Paused

    given = work(project, watch=pause)
    *above, step = pipeline.plan(given.pipeline, project / "build")
    for one in above:
        running.run_step(one, {step.name: step.folder for step in above}, given)
    with pytest.raises(Paused):
        running.run_step(step, {step.name: step.folder for step in above}, given)


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_who_was_taken_over_meanwhile_leaves_the_folder_to_the_other(
    steps, project, monkeypatch, fails
):
    step = steps[0]
    place = claims.beside(step.folder)

    def sleep(self, job):
        place.create(2, b"")
        (job.out / "mine").write_text("x")
        if fails:
            raise FileNotFoundError(job.out)
        return run(self, job)

    monkeypatch.setattr(type(step.stage), "run", sleep)
    with pytest.raises(claims.Lost, match="another has taken over"):
        running.run_step(step, {}, work(project))
    assert store.damage(step.folder) == "not built yet"
    assert place.numbers() == [1, 2]
    assert issubclass(claims.Lost, UserError)


def test_who_waits_says_for_whom_and_uses_what_the_other_made(steps, project, monkeypatch):
    step, said = steps[0], Heard()
    place = claims.beside(step.folder)
    place.create(1, b'{"host": "far", "machine": "x", "pid": 12, "started": "3"}')

    def wait(seconds):
        other = claims.Claim(place, 1, 60)
        with store.finished(step.folder, {"recipe": step.recipe, **REST}, other) as out:
            (out / "model.h5").write_text("theirs")
        other.release(done=True)

    monkeypatch.setattr(claims.time, "sleep", wait)
    assert not running.run_step(step, {}, work(project, said))
    assert (step.folder / "model.h5").read_text() == "theirs"
    assert said.lines == ["teacher      waits  process 12 on far makes it"]


REST = {"versions": {}, "figures": {}, "seconds": 1.0}
