import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfedge.data.choices import Choices, Says
from tfedge.data.fingerprint import fingerprint
from tfedge.data.photos import Pictures, open_folder
from tfedge.errors import UserError

PICTURES = Pictures((6, 8, 3))
SPLITS = ("train", "tune", "test")


def save(file: Path, seed: int, size=(8, 6)) -> np.ndarray:
    """Write a picture of noise and return its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Three splits with four different PNGs each: two of ants, two of bees."""
    seed = 0
    for split in SPLITS:
        for name in ("ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png"):
            save(tmp_path / "photos" / split / name, seed)
            seed += 1
    return tmp_path / "photos"


def opened(folder, choices=None, pictures=PICTURES, says=None):
    cache = folder.parent / "cache"
    mark = fingerprint(folder, cache)
    return open_folder(folder, cache, pictures, choices or Choices(), fingerprint=mark, says=says)


def decoded(folder):
    """The finished folders in the cache."""
    return sorted(file.parent.name for file in (folder.parent / "cache").glob("*/record.json"))


def test_pixels_classes_and_labels_are_those_of_the_files(folder):
    data = opened(folder)
    assert data.labels == ("ant", "bee")
    assert (data.kind, data.resize, data.fit) == ("image", "bilinear", "stretch")
    assert data.limits() == (0, 1)
    for name, split in zip(SPLITS, (data.train, data.tune, data.test), strict=True):
        files = sorted((folder / name).rglob("*.png"))
        assert np.array_equal(split.inputs, [np.asarray(Image.open(file)) for file in files])
        assert split.classes.tolist() == [0, 0, 1, 1]
        assert split.classes.dtype == np.int64
        assert isinstance(split.inputs, np.memmap)
        assert not split.inputs.flags.writeable


def test_jpegs_are_decoded_and_resized_as_pillow_does(tmp_path):
    for number in range(60):
        save(tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg", number, size=(16, 12))
    data = opened(tmp_path / "photos", pictures=Pictures((6, 8, 1), "nearest"))
    photos = sorted((tmp_path / "photos").rglob("*.jpg"))
    expected = {Image.open(p).convert("L").resize((8, 6), 0).tobytes() for p in photos}
    splits = (data.train, data.tune, data.test)
    assert {x.tobytes() for split in splits for x in split.inputs} == expected
    assert sum(len(split.inputs) for split in splits) == 60


def test_opening_again_does_not_look_at_the_photos(folder):
    cache = folder.parent / "cache"
    mark = fingerprint(folder, cache)
    first = open_folder(folder, cache, PICTURES, Choices(), fingerprint=mark)
    folder.rename(folder.parent / "gone")
    again = open_folder(folder, cache, PICTURES, Choices(), fingerprint=mark)
    assert np.array_equal(first.train.inputs, again.train.inputs)


def test_photos_that_may_only_be_read_are_enough_and_are_left_as_they_were(folder):
    everything = [folder, *folder.rglob("*")]
    for one in everything:  # root may write all the same: so their times are looked at, too
        one.chmod(0o555 if one.is_dir() else 0o444)
    before = {one: one.stat().st_mtime_ns for one in everything}
    try:
        assert opened(folder).train.classes.tolist() == [0, 0, 1, 1]
        assert {one: one.stat().st_mtime_ns for one in [folder, *folder.rglob("*")]} == before
    finally:
        for one in everything:
            one.chmod(0o755 if one.is_dir() else 0o644)


def test_thumbnails_and_photos_are_decoded_alike(folder):
    # Enough bytes a file that several threads decode them; noise does not compress.
    files = sorted((folder / "train").rglob("*.png"))
    for number, file in enumerate(files):
        save(file, number + 100, size=(120, 90))
    data = opened(folder, pictures=Pictures((90, 120, 3)))
    assert np.array_equal(data.train.inputs, [np.asarray(Image.open(file)) for file in files])


def test_another_size_or_choice_is_decoded_beside_the_first(folder):
    opened(folder)
    opened(folder, Choices(normalise="symmetric"))
    assert len(decoded(folder)) == 1
    assert opened(folder, pictures=Pictures((3, 4, 3))).shape == (3, 4, 3)
    assert opened(folder, pictures=Pictures((6, 8, 3), "bicubic", "crop")).fit == "crop"
    opened(folder, Choices(skip_duplicates=True))
    assert len(decoded(folder)) == 4


def test_standardising_is_measured_once_and_kept(folder):
    data = opened(folder, Choices(normalise="standard"))
    pixels = data.train.inputs.astype(np.float64)
    assert data.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert data.std == pytest.approx(pixels.std(axis=(0, 1, 2)))
    (file,) = (folder.parent / "cache").glob("*/standard.json")
    file.write_text('{"mean": [1, 2, 3], "std": [4, 5, 6]}')
    assert opened(folder, Choices(normalise="standard")).mean == (1, 2, 3)
    file.write_text("damaged")
    assert opened(folder, Choices(normalise="standard")).mean == data.mean


def test_all_problems_come_in_one_message(folder):
    (folder / "train/ant/0.png").write_bytes(b"no picture")
    (folder / "tune/bee/0.png").write_bytes((folder / "tune/bee/1.png").read_bytes()[:60])
    (folder / "test/bee/1.png").write_bytes((folder / "train/bee/1.png").read_bytes())
    (folder / "tune/ant/0.png").unlink()
    (folder / "tune/ant/1.png").unlink()
    with pytest.raises(UserError) as error:
        opened(folder)
    text = str(error.value)
    assert text.startswith(f"{folder}: ")
    for part in (
        "2 photos that cannot be read:\n    train/ant/0.png: ",
        "\n    tune/bee/0.png: ",
        "1 photo in two splits at once",
        "train/bee/1.png (train) is test/bee/1.png (test)",
        "\n    ant: none in tune\n",
        "skip_unreadable = true",
        "skip_duplicates = true",
    ):
        assert part in text
    assert decoded(folder) == []


def test_of_many_unreadable_photos_the_first_twenty_are_named(folder):
    for number in range(33):
        (folder / f"train/ant/x{number:02}.png").write_text(str(number))
    with pytest.raises(UserError) as error:
        opened(folder)
    assert str(error.value).count("train/ant/x") >= 20
    assert "train/ant/x19.png: " in str(error.value)
    assert "train/ant/x20.png" not in str(error.value)
    assert "and 13 more" in str(error.value)


def test_a_link_to_nowhere_is_an_unreadable_photo(folder):
    (folder / "train/ant/9.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(UserError, match=r"train/ant/9\.png: .*No such file"):
        opened(folder)


def test_unreadable_photos_and_copies_can_be_left_out_and_are_counted_each_time(folder):
    before = opened(folder)
    (folder / "train/ant/0.png").write_bytes(b"no picture")
    (folder / "train/bee/2.png").write_bytes((folder / "test/bee/1.png").read_bytes())
    (folder / "tune/bee/2.png").write_bytes((folder / "test/bee/1.png").read_bytes())
    choices = Choices(skip_unreadable=True, skip_duplicates=True)
    for _ in range(2):
        messages: list[str] = []
        after = opened(folder, choices, says=Says(message=messages.append))
        assert messages == [
            "left out 2 photos that a later split holds too",
            "left out 1 photo that cannot be read",
        ]
        assert np.array_equal(after.train.inputs, before.train.inputs[1:])
        assert after.train.classes.tolist() == [0, 1, 1]
        assert np.array_equal(after.tune.inputs, before.tune.inputs)
        assert np.array_equal(after.test.inputs, before.test.inputs)


def test_copies_inside_one_split_are_kept(folder):
    (folder / "train/ant/2.png").write_bytes((folder / "train/ant/1.png").read_bytes())
    assert len(opened(folder).train.inputs) == 5


def test_leaving_out_can_leave_a_class_empty_and_that_is_an_error(folder):
    for number in (0, 1):
        (folder / f"train/ant/{number}.png").write_text("no picture")
    with pytest.raises(UserError, match="ant: none in train"):
        opened(folder, Choices(skip_unreadable=True))


def test_a_label_that_is_not_one_line_is_refused(folder):
    for number, split in enumerate(SPLITS):
        save(folder / split / "c\nd/0.png", number + 50)
    with pytest.raises(UserError, match=r"cannot be printed:\n    'c\\nd'"):
        opened(folder)


def test_photos_that_change_meanwhile_are_refused(folder):
    cache = folder.parent / "cache"
    mark = fingerprint(folder, cache)
    save(folder / "train/ant/7.png", 70)
    with pytest.raises(UserError, match="changed while it was being read"):
        open_folder(folder, cache, PICTURES, Choices(), fingerprint=mark)

    says = Says(progress=lambda done, total: os.utime(folder / "train/ant/7.png"))
    with pytest.raises(UserError, match="changed while it was being read"):
        opened(folder, says=says)
    assert len(opened(folder).train.inputs) == 5


def test_progress_ends_with_all_of_them(folder):
    seen: list[tuple[int, int]] = []
    opened(folder, says=Says(progress=lambda done, total: seen.append((done, total))))
    assert seen == sorted(seen)
    assert seen[-1] == (12, 12)


def test_progress_is_told_in_between_where_decoding_takes_long(folder, monkeypatch):
    monkeypatch.setattr("tfedge.data.photos._SAY_S", 0)
    seen: list[int] = []
    opened(folder, says=Says(progress=lambda done, total: seen.append(done)))
    assert seen == [4, 8, 12]


def test_an_interrupt_leaves_nothing_that_is_taken_for_finished(folder):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(folder, says=Says(progress=interrupt))
    assert decoded(folder) == []
    assert len(opened(folder).train.inputs) == 4


def test_a_killed_decode_is_started_over_and_its_remains_removed(folder):
    cache = folder.parent / "cache"
    # No guard around the call: a pool of processes would run this script again in each.
    script = f"""
        import os, signal
        from pathlib import Path
        from tfedge.data.choices import Choices, Says
        from tfedge.data.fingerprint import fingerprint
        from tfedge.data.photos import Pictures, open_folder
        folder, cache = Path({str(folder)!r}), Path({str(cache)!r})
        open_folder(folder, cache, Pictures((6, 8, 3)), Choices(),
            fingerprint=fingerprint(folder, cache),
            says=Says(progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL)))
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(cache.glob(".*.partial"))) == 1
    assert decoded(folder) == []

    assert len(opened(folder).train.inputs) == 4
    assert list(cache.glob(".*.partial")) == []


def test_importing_and_opening_loads_no_tensorflow():
    code = "import sys, tfedge.data.photos, tfedge.data.arrays; print('tensorflow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout == "False\n"


def test_a_photo_from_a_phone_that_cannot_be_read_is_named_and_not_left_out(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(40):
            Image.new("RGB", (6, 6), (number, 0, 90)).save(
                tmp_path / "photos" / label / f"{label}{number}.png"
            )
    (tmp_path / "photos/cat/IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=r"cat/IMG_1\.HEIC"):
        open_folder(
            tmp_path / "photos",
            tmp_path / "cache",
            Pictures((4, 4, 3)),
            Choices(skip_duplicates=True),
            fingerprint=fingerprint(tmp_path / "photos", tmp_path / "cache"),
        )
