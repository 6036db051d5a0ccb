import threading
from collections import namedtuple

import numpy as np
import pytest

from tfedge.data import maps
from tfedge.data.splits import SPLITS
from tfedge.errors import UserError


def fill(partial):
    for number, split in enumerate(SPLITS):
        maps.create(partial / f"{split}.npy", (5, 2, 3), np.float32)
        np.save(partial / f"{split}.classes.npy", np.full(5, number, np.int64))
    return {"kind": "array", "labels": ["a", "b"], "notes": []}


def test_rows_written_in_any_order_are_a_numpy_file(tmp_path):
    expected = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    rows = maps.create(tmp_path / "x.npy", expected.shape, np.float32)
    for first, last in ((4, 7), (0, 1), (1, 4)):
        rows.put(first, expected[first:last])
    assert np.array_equal(np.load(tmp_path / "x.npy"), expected)


def test_some_rows_can_be_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "BATCH_BYTES", 8)
    x = np.arange(20, dtype=np.uint8).reshape(10, 2)
    np.save(tmp_path / "x.npy", x)
    maps.keep(tmp_path / "x.npy", [0, 3, 4, 8, 9])
    assert np.array_equal(np.load(tmp_path / "x.npy"), x[[0, 3, 4, 8, 9]])
    assert [file.name for file in tmp_path.iterdir()] == ["x.npy"]


def test_a_disk_that_is_too_small_is_refused_before_the_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000))
    maps.create(tmp_path / "x.npy", (10, 100), np.uint8)
    with pytest.raises(UserError, match="needs 1,001 bytes for the decoded data, and has 1,000"):
        maps.create(tmp_path / "x.npy", (7, 11, 13), np.uint8)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("record.json", lambda old: b""),
        ("record.json", lambda old: b"[]"),
        ("record.json", lambda old: old.replace(b'"format": 1', b'"format": 0')),
        ("record.json", lambda old: old.replace(b"5", b"6", 1)),
        ("train.npy", lambda old: old[:-1]),
        ("tune.npy", lambda old: b""),
        ("tune.npy", lambda old: old.replace(b"{", b"(")),
        ("test.classes.npy", lambda old: old[:-9]),
        ("test.classes.npy", lambda old: b"nonsense"),
    ],
)
def test_a_damaged_folder_is_made_anew(tmp_path, name, damage):
    folder = tmp_path / "cache" / "key"
    maps.store(folder, fill)
    whole = (folder / name).read_bytes()
    assert damage(whole) != whole
    (folder / name).write_bytes(damage(whole))
    assert maps.find(folder) is None
    assert maps.store(folder, fill).splits[2].classes.tolist() == [2] * 5
    assert (folder / name).read_bytes() == whole


def test_two_at_once_do_the_work_once(tmp_path):
    calls = []
    both = threading.Barrier(2)

    def work():
        both.wait()
        maps.store(tmp_path / "key", lambda partial: calls.append(partial) or fill(partial))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert maps.find(tmp_path / "key") is not None


def test_a_mistake_inside_leaves_nothing(tmp_path):
    def broken(partial):
        fill(partial)
        raise UserError("photos", "no good")

    with pytest.raises(UserError):
        maps.store(tmp_path / "cache" / "key", broken)
    assert maps.find(tmp_path / "cache" / "key") is None
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [".key.lock"]


def test_an_incomplete_filling_is_a_bug_and_not_an_endless_loop(tmp_path):
    def careless(partial):
        record = fill(partial)
        (partial / "tune.classes.npy").unlink()
        return record

    with pytest.raises(OSError, match="cannot be read although it was just written"):
        maps.store(tmp_path / "key", careless)
