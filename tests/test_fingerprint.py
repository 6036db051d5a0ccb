import os
import shutil

import pytest

from tfedge.data import fingerprint as module
from tfedge.data.fingerprint import contents, file_fingerprint, fingerprint
from tfedge.data.listing import list_photos
from tfedge.errors import UserError


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for name in ("cat/a.jpg", "cat/b.jpg", "dog/c.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return folder


def rename(photos):
    (photos / "cat/a.jpg").rename(photos / "cat/z.jpg")


def change(photos):
    file = photos / "cat/a.jpg"
    file.write_text(file.read_text().upper())  # the same size
    os.utime(file, ns=(1, 1))


def swap(photos):
    (photos / "cat/a.jpg").write_text("content of cat/b.jpg")
    (photos / "cat/b.jpg").write_text("content of cat/a.jpg")
    os.utime(photos / "cat/a.jpg", ns=(1, 1))
    os.utime(photos / "cat/b.jpg", ns=(1, 1))


def add(photos):
    (photos / "dog/d.jpg").touch()


def remove(photos):
    (photos / "dog/c.jpg").unlink()


def add_class(photos):
    (photos / "owl").mkdir()


@pytest.mark.parametrize("edit", [rename, change, swap, add, remove, add_class])
def test_a_change_changes_the_fingerprint_and_its_undoing_brings_it_back(photos, tmp_path, edit):
    cache, copy = tmp_path / "cache", tmp_path / "copy"
    shutil.copytree(photos, copy)
    before = fingerprint(photos, cache)
    edit(photos)
    after = fingerprint(photos, cache)
    assert after != before
    assert after == fingerprint(photos, tmp_path / "empty cache")

    shutil.rmtree(photos)
    copy.rename(photos)
    assert fingerprint(photos, cache) == before


def test_neither_times_nor_places_nor_other_files_count(photos, tmp_path):
    before = fingerprint(photos, tmp_path / "cache")
    os.utime(photos / "cat/a.jpg", ns=(5, 5))
    (photos / "cat/notes.txt").touch()
    assert fingerprint(photos, tmp_path / "cache") == before
    moved = photos.rename(tmp_path / "moved")
    assert fingerprint(moved, tmp_path / "cache") == before


def test_what_did_not_change_is_not_read_again(photos, tmp_path, monkeypatch):
    read = []
    digest = module._digest
    monkeypatch.setattr(module, "_digest", lambda path: read.append(path) or digest(path))
    fingerprint(photos, tmp_path / "cache")
    assert len(read) == 3
    fingerprint(photos, tmp_path / "cache")
    contents(list_photos(photos), tmp_path / "cache")
    assert len(read) == 3
    change(photos)
    fingerprint(photos, tmp_path / "cache")
    assert read[3:] == [str(photos / "cat/a.jpg")]


@pytest.mark.parametrize(
    "damage",
    [
        lambda old: b"",
        lambda old: b"\xff\xfe nonsense",
        lambda old: old[: len(old) // 2],
        lambda old: old[:-40] + b"0" * 40,
        lambda old: b"[1, 2]\n{}",
        lambda old: b'{"listed": "", "body": 3}\n[]',
    ],
)
def test_a_damaged_cache_is_made_anew(photos, tmp_path, damage):
    cache = tmp_path / "cache"
    before = contents(list_photos(photos), cache)
    (file,) = (cache / "hashes").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert contents(list_photos(photos), cache) == before
    assert file.read_bytes() == whole
    file.write_bytes(damage(whole))
    assert fingerprint(photos, cache) == before.fingerprint


def test_an_unreadable_photo_is_named_and_looked_at_again(photos, tmp_path):
    (photos / "dog/c.jpg").unlink()
    (photos / "dog/c.jpg").symlink_to(tmp_path / "nowhere.jpg")
    cache = tmp_path / "cache"
    found = contents(list_photos(photos), cache)
    assert found.unreadable == {"dog/c.jpg": "No such file or directory"}
    assert set(found.digests) == {"cat/a.jpg", "cat/b.jpg"}
    assert fingerprint(photos, cache) == found.fingerprint

    (tmp_path / "nowhere.jpg").write_text("here now")
    assert fingerprint(photos, cache) != found.fingerprint


def test_a_single_file_counts_by_its_name_and_content(tmp_path):
    file, cache = tmp_path / "windows.npz", tmp_path / "cache"
    file.write_text("one")
    before = file_fingerprint(file, cache)
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert file_fingerprint(file, cache) != before
    file.write_text("one")
    os.utime(file, ns=(2, 2))
    assert file_fingerprint(file, cache) == before


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"x\.npz: cannot be read: No such file"):
        file_fingerprint(tmp_path / "x.npz", tmp_path / "cache")
    (tmp_path / "y.npz").mkdir()
    with pytest.raises(UserError, match=r"y\.npz: cannot be read: Is a directory"):
        file_fingerprint(tmp_path / "y.npz", tmp_path / "cache")
