from pathlib import Path

import pytest

from tfedge.data.choices import Choices
from tfedge.data.folder import arrange
from tfedge.data.listing import list_photos
from tfedge.errors import UserError


def tree(folder: Path, *names: str) -> Path:
    """Make empty files, and folders where a name ends in "/"."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    return folder


def layout(folder, **choices):
    return arrange(list_photos(folder), Choices(**choices))


def test_photos_are_found_at_any_depth_and_nothing_else_is(tmp_path):
    photos = ["cat/a.jpg", "cat/deep/er/b.JPEG", "dog/c.PNG", "dog/d.webp", "dog/e.bmp"]
    others = ["cat/.hidden.jpg", "cat/notes.txt", "dog/Thumbs.db", ".git/x.jpg", "dog/e.json"]
    tree(tmp_path, *photos, *others, "dog/f.Gif")
    found = layout(tmp_path)
    assert [photo.name for photo in found.photos] == sorted([*photos, "dog/f.Gif"])
    assert {photo.label for photo in found.photos} == {"cat", "dog"}


def test_labels_are_sorted_and_a_class_without_photos_has_one_too(tmp_path):
    tree(tmp_path, "zebra/a.jpg", "Ant/a.jpg", "bee/")
    assert layout(tmp_path).labels == ("Ant", "bee", "zebra")


def test_adding_photos_moves_none_to_another_split(tmp_path):
    tree(tmp_path, *(f"{label}/{number}.jpg" for label in "ab" for number in range(40)))
    before = set(layout(tmp_path).photos)
    tree(tmp_path, *(f"{label}/new{number}.jpg" for label in "abc" for number in range(40)))
    after = set(layout(tmp_path).photos)
    assert before < after
    assert {photo.split for photo in before} == {"train", "tune", "test"}


def test_the_split_does_not_depend_on_where_the_folder_lies(tmp_path):
    names = [f"{label}/{number}.jpg" for label in "ab" for number in range(40)]
    one, other = tree(tmp_path / "one", *names), tree(tmp_path / "other", *names)
    assert layout(one) == layout(other)


@pytest.mark.parametrize("tune", ["tune", "val", "valid", "validation", "VAL"])
def test_folders_of_splits_are_taken_at_their_word(tmp_path, tune):
    tree(tmp_path, *(f"{top}/{label}/x.jpg" for top in ("Train", tune, "test") for label in "ab"))
    found = layout(tmp_path)
    assert found.labels == ("a", "b")
    assert {(photo.name, photo.split, photo.label) for photo in found.photos} == {
        (f"{top}/{label}/x.jpg", split, label)
        for top, split in (("Train", "train"), (tune, "tune"), ("test", "test"))
        for label in "ab"
    }


def test_without_a_tune_folder_tune_is_taken_out_of_train_and_test_left_whole(tmp_path):
    tops = ("train", "test")
    tree(tmp_path, *(f"{top}/{c}/{n}.jpg" for top in tops for c in "ab" for n in range(100)))
    photos = layout(tmp_path, tune_share=0.2, test_share=0.5).photos
    assert {p.name for p in photos if p.split == "test"} == {
        p.name for p in photos if p.name.startswith("test/")
    }
    tune = sum(photo.split == "tune" for photo in photos)
    assert 20 < tune < 60  # 200 photos at 0.2, give or take


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no class folder"),
        (["a.jpg"], "1 photo outside the class folders:\n    a.jpg"),
        (["cat/a.jpg"], "holds one class only, 'cat'"),
        (["cat/a.jpg", "dog/a.jpg", "b.jpg"], "put photos into <class>/*.jpg"),
        (["train/cat/a.jpg", "test/cat/a.jpg"], "holds one class only, 'cat'"),
        (["train/a.jpg", "test/a.jpg"], "put photos into {train,tune,test}/<class>/*.jpg"),
        (["train/c/a.jpg", "test/c/b.jpg", "dog/a.jpg"], "splits (test, train) and others (dog)"),
        (["train/c/a.jpg", "val/c/a.jpg"], "holds train, val but no test"),
        (["val/c/a.jpg", "tune/c/a.jpg"], "two folders for one split: tune, val"),
        (["val/c/a.jpg"], "no test and no train"),
    ],
)
def test_a_folder_that_is_not_laid_out_as_it_should_be_is_refused(tmp_path, names, message):
    with pytest.raises(UserError) as error:
        layout(tree(tmp_path / "photos", *names))
    assert str(error.value).startswith(f"{tmp_path / 'photos'}: ")
    assert message in str(error.value)


def test_a_missing_folder_and_a_file_in_its_place_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list_photos(tmp_path / "photos")
    (tmp_path / "photos").touch()
    with pytest.raises(UserError, match="is a file"):
        list_photos(tmp_path / "photos")


def test_linked_folders_are_followed_and_circles_refused(tmp_path):
    elsewhere = tree(tmp_path / "elsewhere", "a.jpg")
    photos = tree(tmp_path / "photos", "dog/a.jpg")
    (photos / "cat").symlink_to(elsewhere)
    assert [file.name for file in list_photos(photos).files] == ["cat/a.jpg", "dog/a.jpg"]

    (elsewhere / "again").symlink_to(photos)
    with pytest.raises(UserError, match="is a link to a folder that it lies in"):
        list_photos(photos)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    photos = tree(tmp_path / "photos", "cat/a.jpg")
    # More links in a row than the system follows; unlike permissions, this stops root as well.
    (photos / "dog").symlink_to(photos / "dog")
    with pytest.raises(UserError, match="cannot be listed: Too many levels of symbolic links"):
        list_photos(photos)
