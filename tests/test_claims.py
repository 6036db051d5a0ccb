import json
import multiprocessing
import os
import threading
import time

import pytest

from tfedge.plan import claims, store
from tfedge.plan.claims import Waiting

FORK = multiprocessing.get_context("fork")
QUICK = Waiting(lease_s=0.4, poll_s=0.01)
RECORD = {"recipe": {}, "versions": {}, "figures": {}, "seconds": 1.0}


@pytest.fixture
def place(tmp_path):
    return claims.beside(tmp_path / "stage")


def write(place, number=1, **changed):
    """Leave a claim of a process on another machine."""
    told = {"host": "far", "machine": "another", "pid": os.getpid(), "started": "1", "free": False}
    assert place.create(number, json.dumps(told | changed).encode())


def never():
    return False


def make(place, file, waiting, slow_s=0.2):
    """Add a line to `file`, unless another has made it."""
    with claims.claimed(place, file.exists, waiting) as claim:
        if claim:
            time.sleep(slow_s)
            with file.open("a") as stream:
                stream.write("made\n")


def crowd(place, file, waiting):
    crowded = [FORK.Process(target=make, args=(place, file, waiting)) for _ in range(8)]
    for one in crowded:
        one.start()
    for one in crowded:
        one.join(20)
    assert [one.exitcode for one in crowded] == [0] * 8
    return file.read_text()


@pytest.mark.slow
def test_what_eight_processes_need_is_made_once(place, tmp_path):
    assert crowd(place, tmp_path / "file", Waiting(poll_s=0.01)) == "made\n"
    assert not place.path.exists()


@pytest.mark.slow
def test_of_eight_processes_that_wait_for_a_dead_machine_one_takes_over(place, tmp_path):
    write(place)
    assert crowd(place, tmp_path / "file", Waiting(lease_s=2, poll_s=0.01)) == "made\n"


def test_a_waiter_is_told_once_whom_it_waits_for_and_then_gets_nothing_to_make(place):
    said, finished = [], threading.Event()

    def other():
        with claims.claimed(place, finished.is_set, QUICK):
            begun.set()
            time.sleep(0.1)
            finished.set()

    begun = threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    assert begun.wait(5)
    with claims.claimed(place, finished.is_set, Waiting(poll_s=0.01, say=said.append)) as claim:
        assert claim is None
    thread.join()
    assert said == [f"process {os.getpid()} on {claims.socket.gethostname()}"]


def test_what_is_finished_is_not_claimed(place):
    with claims.claimed(place, lambda: True) as claim:
        assert claim is None
    assert place.numbers() == []


def test_a_failure_leaves_the_claim_to_the_next_at_once(place):
    with pytest.raises(ZeroDivisionError), claims.claimed(place, never):
        raise ZeroDivisionError
    with claims.claimed(place, never) as claim:
        assert claim.number == 2
    assert place.numbers() == []


def hold(place, ready):
    with claims.claimed(place, never):
        ready.set()
        time.sleep(60)


def test_the_claim_of_a_killed_process_of_this_machine_is_taken_over_at_once(place):
    ready = FORK.Event()
    holder = FORK.Process(target=hold, args=(place, ready))
    holder.start()
    assert ready.wait(20)
    holder.kill()  # and not joined: its entry is there still, as a zombie's
    started = time.monotonic()
    with claims.claimed(place, never, Waiting(lease_s=600, poll_s=0.01)) as claim:
        assert claim.number == 2
    assert time.monotonic() - started < 60
    holder.join()


def test_a_process_that_got_a_dead_ones_number_does_not_keep_its_claim_alive(place):
    write(place, machine=claims._machine(), pid=os.getpid(), started="1")
    with claims.claimed(place, never, Waiting(lease_s=600)) as claim:
        assert claim.number == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]"], ids=["empty", "half", "no object"])
def test_another_machines_silence_is_waited_out_by_the_waiters_own_clock(place, content):
    place.create(1, content)
    os.utime(place.path / "1", (0, 0))  # a clock that is years behind
    started = time.monotonic()
    with claims.claimed(place, never, QUICK) as claim:
        assert claim.number == 2
    assert time.monotonic() - started >= QUICK.lease_s


@pytest.mark.slow
def test_a_process_of_this_machine_that_is_held_up_keeps_its_claim(place):
    place.create(1, claims._content())
    end = time.monotonic() + 4 * QUICK.lease_s
    with claims.claimed(place, lambda: time.monotonic() > end, QUICK) as claim:
        assert claim is None
    assert place.numbers() == [1]


@pytest.mark.slow
def test_a_holder_that_lives_keeps_its_claim_for_longer_than_the_lease(place, monkeypatch):
    monkeypatch.setattr(claims, "_machine", lambda: "")  # as if the waiter were on another

    def wait():
        claims._won(place, ended.is_set, Waiting(lease_s=1.0, poll_s=0.01))

    ended, waiter = threading.Event(), threading.Thread(target=wait)
    with claims.claimed(place, never, Waiting(lease_s=1.0)) as claim:
        first = place.read(1)
        waiter.start()
        time.sleep(2.5)
        claim.check()
        assert place.read(1) != first
        ended.set()
        waiter.join()


def lose(place):
    """Claim, and be taken over."""
    with claims.claimed(place, never) as claim:
        write(place, 2)
        claim.check()


def test_a_holder_that_slept_learns_it_and_leaves_the_others_claim_alone(place):
    with pytest.raises(claims.Lost, match="another has taken over") as caught:
        lose(place)
    assert str(caught.value).startswith(str(place.path.parent.parent / "stage"))
    assert place.numbers() == [1, 2]
    assert json.loads(place.read(2))["host"] == "far"


def test_a_holder_learns_it_also_when_the_other_has_ended_already(place):
    with claims.claimed(place, never) as claim:
        place.remove(1)
        with pytest.raises(claims.Lost):
            claim.check()
    assert place.numbers() == []


def claim_of(place, number):
    assert place.create(number, b"")
    return claims.Claim(place, number, 60)


def slept(place, folder, wake):
    """Make `folder`, and sleep meanwhile so long that another makes it; then `wake`, and end."""
    claim = claim_of(place, 1)
    with store.finished(folder, RECORD, claim) as old:
        (old / "state").write_text("epoch 1")
        awake = claim_of(place, 2)
        with store.finished(folder, RECORD, awake) as new:
            assert (new / "state").read_text() == "epoch 1"
            (new / "state").write_text("epoch 2")
            with pytest.raises(FileNotFoundError):
                (old / "state").write_text("epoch 1 again")
        awake.release(done=True)
        wake(old)


def work_on(old):
    old.mkdir()
    (old / "state").write_text("epoch 1 again")


@pytest.mark.parametrize(
    ("wake", "error"), [(lambda old: None, FileNotFoundError), (work_on, claims.Lost)]
)
def test_what_one_who_slept_still_makes_cannot_reach_the_others_work(place, tmp_path, wake, error):
    folder = tmp_path / "stage"
    with pytest.raises(error):
        slept(place, folder, wake)
    assert store.damage(folder) == ""
    assert (folder / "state").read_text() == "epoch 2"


def test_what_a_killed_try_left_is_found_by_the_next(place, tmp_path):
    folder = tmp_path / "stage"
    place.create(1, b"")
    (tmp_path / "stage.partial1").mkdir()
    (tmp_path / "stage.partial1/state").write_text("epoch 3")
    assert store.reasons(folder, {}, {}) == "not finished"
    claim = claim_of(place, 2)
    with store.finished(folder, RECORD, claim) as out:
        assert (out / "state").read_text() == "epoch 3"
    claim.release(done=True)
    assert store.damage(folder) == ""
