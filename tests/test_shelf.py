import shutil
import sys
import threading
import time
from contextlib import ExitStack

import loopback_s3
import pytest
from test_pipeline import run
from test_running import Heard, work

from tfedge.cli import main
from tfedge.errors import Paused, UserError
from tfedge.plan import claims, pipeline, running, stages, store
from tfedge.plan import shelf as shelves
from tfedge.plan.shelf import open_shelf

RECORD = {"recipe": {}, "versions": {}, "figures": {}, "seconds": 1.0}
QUICK = claims.Waiting(lease_s=30, poll_s=0.01)
FILES = {"model.h5": b"weights", "model.tflite": b"file" * 1000, "empty": b""}


@pytest.fixture(params=["file", "memory"])
def shelf(request, tmp_path):
    return open_shelf(f"{request.param}://{tmp_path}/shelf")


@pytest.fixture(scope="module")
def s3():
    with loopback_s3.server() as address, pytest.MonkeyPatch.context() as patched:
        for name, value in {**loopback_s3.KEYS, "AWS_ENDPOINT_URL": address}.items():
            patched.setenv(name, value)
        loopback_s3.make("bucket")
        yield "s3://bucket"


def stage(folder, files=FILES):
    """Make a finished stage."""
    here = claims.beside(folder)
    with claims.claimed(here, lambda: False) as claim, store.finished(folder, RECORD, claim) as out:
        for name, content in files.items():
            (out / name).write_bytes(content)
    return folder


def tree(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_what_one_machine_puts_there_another_has_byte_for_byte(shelf, tmp_path):
    here, there = stage(tmp_path / "a/stripes/x-12345678"), tmp_path / "b/stripes/x-12345678"
    assert not shelf.has(here)
    shelf.put(here)
    assert shelf.has(there)
    there.parent.mkdir(parents=True)
    shelf.fetch(there)
    assert tree(there) == tree(here)
    assert store.damage(there) == ""
    for name in FILES:  # or each plan would read every file again
        assert (there / name).stat().st_mtime_ns == (here / name).stat().st_mtime_ns
    assert [one.name for one in there.parent.iterdir()] == [there.name]


def test_what_was_not_uploaded_to_its_end_is_not_there(shelf, tmp_path, monkeypatch):
    here = stage(tmp_path / "stripes/x-12345678")
    whole = shelf.files.put_file

    def breaks(source, target):
        if source.name == "model.tflite":
            raise ConnectionError("gone")
        whole(source, target)

    monkeypatch.setattr(shelf.files, "put_file", breaks, raising=False)
    with pytest.raises(UserError, match="cannot be reached: gone\n  finished stages are kept"):
        shelf.put(here)
    assert not shelf.has(here)
    monkeypatch.undo()
    shelf.put(here)
    assert shelf.has(here)


@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_a_file_that_was_damaged_there_is_named_and_nothing_is_made_of_it(shelf, tmp_path, damage):
    here = stage(tmp_path / "stripes/x-12345678")
    shelf.put(here)
    (path,) = (name for name in shelf.names(shelf.path(here)) if name.endswith("-model.h5"))
    shelf.removed(f"{shelf.path(here)}/{path}")
    if damage == "changed":
        shelf.files.pipe_file(f"{shelf.path(here)}/{path}", b"weightS")
    shutil.rmtree(here)
    with pytest.raises(UserError, match="is missing or damaged: its sha256 is ") as caught:
        shelf.fetch(here)
    assert f"{shelf.url}/stripes/x-12345678/{path}" in str(caught.value)
    assert not list((tmp_path / "stripes").glob("x-*"))


def test_who_uploads_second_changes_nothing_unless_it_is_to(shelf, tmp_path):
    first = stage(tmp_path / "a/stripes/x-12345678")
    second = stage(tmp_path / "b/stripes/x-12345678", {"model.h5": b"others"})
    for folder in (first, second):
        shelf.put(folder)
    got = tmp_path / "c/stripes/x-12345678"
    shelf.fetch(got)
    assert tree(got) == tree(first)
    shelf.put(second, anew=True)
    shelf.fetch(got)
    assert tree(got) == tree(second)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "shared/folder",
            "--store: 'shared/folder' is no URL\n  write one of s3://, gs://, file://",
        ),
        ("sftp://host/x", "--store: sftp:// cannot create a file only where there is none"),
        ("http://host/x", "--store: http:// cannot create a file only where there is none"),
        ("gs://bucket/x", "--store: gs:// needs gcsfs\n  run: pip install 'gcsfs'"),
    ],
)
def test_a_url_where_nothing_can_be_shared_is_refused(url, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError) as caught:
        open_shelf(url)
    assert str(caught.value).startswith(message)


def test_a_server_that_does_not_keep_to_the_condition_is_refused(tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    whole = MemoryFileSystem.pipe_file
    monkeypatch.setattr(
        MemoryFileSystem, "pipe_file", lambda self, path, value, mode="": whole(self, path, value)
    )
    with pytest.raises(UserError, match="replaces a file where it was asked to create one"):
        open_shelf(f"memory://{tmp_path}")


def test_an_answer_that_got_lost_does_not_make_a_claim_anothers(tmp_path, monkeypatch):
    shelf = open_shelf(f"memory://{tmp_path}")
    whole = shelf.files.pipe_file

    def twice(path, value, **options):
        whole(path, value, **options)
        whole(path, value, **options)

    monkeypatch.setattr(shelf.files, "pipe_file", twice, raising=False)
    assert shelf.created(f"{shelf.root}/x", b"mine")
    assert not shelf.created(f"{shelf.root}/x", b"yours")


def winners(shelf, count=8):
    """Return how many of so many threads that create one object at once are told they did."""
    place = shelves._Objects(shelf, f"{shelf.root}/contested/{shelves.CLAIMS}")
    begin, won = threading.Barrier(count), []

    def create(number):
        begin.wait()
        won.append(place.create(1, b"%d" % number))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(won) == count
    place.remove(1)
    return sum(won)


def test_of_eight_that_create_at_once_in_a_folder_one_wins(tmp_path):
    shelf = open_shelf(f"file://{tmp_path}/shelf")
    assert [winners(shelf) for _ in range(20)] == [1] * 20


@pytest.mark.slow
def test_of_eight_that_create_at_once_on_s3_one_wins(s3):
    assert [winners(open_shelf(f"{s3}/race")) for _ in range(3)] == [1] * 3


def lent(shelf, folder, number):
    """Return what the holder of a claim of that number has, on a machine of its own."""
    place = shelves._Objects(shelf, f"{shelf.path(folder)}/{shelves.CLAIMS}")
    assert place.create(number, b"")
    return shelves.Loan(shelf, folder, claims.Claim(place, number, 60))


def fill(out, epoch):
    shutil.rmtree(out, ignore_errors=True)
    (out / "scratch/fit").mkdir(parents=True)
    (out / f"scratch/fit/ckpt-{epoch}").write_bytes(b"%d" % epoch * 100)
    (out / "scratch/fit/history.json").write_text(f"[{epoch}]")
    (out / "same").write_text("in each epoch")
    return tree(out)


def test_another_machine_goes_on_from_the_last_epoch_that_was_saved(shelf, tmp_path):
    folder, mine, theirs = tmp_path / "stripes/x-12345678", tmp_path / "mine", tmp_path / "theirs"
    lost = lent(shelf, folder, 1)
    for epoch in (1, 2):
        saved = fill(mine, epoch)
        lost.keep(mine)
    fill(mine, 3)  # and there it is lost
    taking = lent(shelf, folder, 2)
    fill(theirs, 1)  # what that machine knew of an earlier try
    taking.begin(theirs)
    assert tree(theirs) == saved
    kept = shelf.names(f"{shelf.path(folder)}/{shelves.STATE}/1")
    assert len(kept) == len(saved) + 1

    with pytest.raises(claims.Lost):
        lost.keep(mine)
    fill(theirs, 3)
    taking.keep(theirs)
    third = lent(shelf, folder, 3)
    third.begin(mine)
    assert tree(mine) == tree(theirs)

    shelf.put(stage(folder))
    assert shelf.names(f"{shelf.path(folder)}/{shelves.STATE}") == []


def test_a_stage_that_nobody_has_begun_begins_with_what_is_here(shelf, tmp_path):
    saved = fill(tmp_path / "out", 2)
    lent(shelf, tmp_path / "stripes/x-12345678", 1).begin(tmp_path / "out")
    assert tree(tmp_path / "out") == saved


@pytest.fixture
def pretend(project, monkeypatch):
    for kind in stages.STAGES.values():
        monkeypatch.setattr(kind, "run", run)
    monkeypatch.setattr(running, "import_module", lambda name: None)
    monkeypatch.setattr(pipeline, "_report", lambda *_: {"stages": [], "pipeline": "stripes"})
    monkeypatch.setattr(pipeline.publishing, "publish", lambda *_: None)
    return project


def build(project, machine, shelf):
    said = Heard()
    loaded = pipeline.load(project / "stripes.toml")
    steps = pipeline.build(loaded, project / machine, said, shelf=shelf)
    ran = [line.split()[0] for line in said.lines if line.split()[1] == "done"]
    return steps, ran


def share(project, shelf):
    """Build on two machines, and on the first again; return what ran on each."""
    steps, first = build(project, "a", shelf)
    others, second = build(project, "b", shelf)
    for here, there in zip(steps, others, strict=True):
        assert tree(here.folder) == tree(there.folder)
        assert store.damage(there.folder) == ""
        assert shelf.names(f"{shelf.path(here.folder)}/{shelves.CLAIMS}") == []
    return first, second, build(project, "a", shelf)[1]


NAMES = ["teacher", "student", "sparse", "shared", "aware", "int8", "tested"]


def test_what_one_machine_has_built_no_other_builds(pretend, shelf):
    assert share(pretend, shelf) == (NAMES, [], [])


def test_what_was_built_before_there_was_a_shelf_is_put_there(pretend, shelf):
    assert build(pretend, "a", None)[1] == NAMES
    assert build(pretend, "a", shelf)[1] == []
    assert build(pretend, "b", shelf)[1] == []


def test_a_training_goes_on_at_another_machine_after_its_last_epoch(pretend, shelf, monkeypatch):
    def train(self, job):
        state = job.scratch / "epochs"
        job.scratch.mkdir(exist_ok=True)
        done = int(state.read_text()) if state.exists() else 0
        begun.append(done)
        for epoch in range(done, 4):
            state.write_text(str(epoch + 1))
            job.watch(epoch + 1, {})
        return run(self, job)

    def lose(epochs, row):
        if epochs == 3:
            raise Paused

    begun = []
    steps = {
        machine: pipeline.plan(pipeline.load(pretend / "stripes.toml"), pretend / machine)[0]
        for machine in ("a", "b")
    }
    monkeypatch.setattr(type(steps["a"].stage), "run", train)
    given = work(pretend, shelf=shelf)
    with pytest.raises(Paused):
        running.run_step(steps["a"], {}, running.replace(given, watch=lose))
    assert running.run_step(steps["b"], {}, given)
    assert begun == [0, 3]
    assert not running.run_step(steps["a"], {}, given)
    assert tree(steps["a"].folder) == tree(steps["b"].folder)


@pytest.mark.slow
def test_machines_share_stages_on_s3(pretend, s3):
    assert share(pretend, open_shelf(f"{s3}/shared")) == (NAMES, [], [])


@pytest.mark.slow
def test_a_waiter_on_s3_uses_what_the_other_makes(s3, tmp_path):
    shelf = open_shelf(f"{s3}/waits")
    folder, done = tmp_path / "stripes/x-12345678", []

    def wait():
        with shelf.lent(folder, lambda: shelf.has(folder), QUICK) as loan:
            done.append(loan)

    with shelf.lent(folder, lambda: shelf.has(folder), QUICK) as loan:
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.3)
        assert done == []
        stage(folder)
        loan.end(anew=False)
    waiter.join(30)
    assert done == [None]


@pytest.mark.slow
def test_without_its_bucket_a_build_says_so(pretend, s3, capsys):
    place = ["--build-dir", str(pretend / "a"), "--store", "s3://nobodys/x"]
    assert main(["build", str(pretend / "stripes.toml"), *place]) == 2
    said = capsys.readouterr().err
    assert "tfedge: s3://nobodys/x: is not there: " in said
    assert "make the bucket first" in said


@pytest.mark.slow
def test_a_server_that_goes_away_ends_a_build_and_loses_nothing(pretend, monkeypatch, capsys):
    for name, value in loopback_s3.KEYS.items():
        monkeypatch.setenv(name, value)
    file, url = str(pretend / "stripes.toml"), "s3://bucket/away"

    def away(self, job):
        there.close()
        return run(self, job)

    monkeypatch.setattr(stages.Prune, "run", away)
    with ExitStack() as there:
        address = there.enter_context(loopback_s3.server())
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        loopback_s3.make("bucket")
        assert main(["build", file, "--build-dir", str(pretend / "a"), "--store", url]) == 2
    said = capsys.readouterr().err
    assert f"tfedge: {url}: cannot be reached: " in said
    assert "the same command goes on when that is mended" in said
    assert "Traceback" not in said
    plan = pipeline.plan(pipeline.load(pretend / "stripes.toml"), pretend / "a")
    assert [step.name for step in plan if not step.why] == NAMES[:3]

    monkeypatch.setattr(stages.Prune, "run", run)
    with loopback_s3.server(int(address.rpartition(":")[2])):
        loopback_s3.make("bucket")
        assert build(pretend, "a", open_shelf(url))[1] == NAMES[3:]
        assert build(pretend, "b", open_shelf(url))[1] == []
