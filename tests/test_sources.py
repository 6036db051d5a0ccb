import numpy as np
import pytest
from PIL import Image

from tfedge.errors import UserError
from tfedge.plan import sources
from tfedge.progress import Silent


@pytest.fixture
def windows(tmp_path):
    """Float32 windows of 6 steps and 2 channels, in an .npz."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (400, 6, 2)).astype(np.float32), np.arange(400) % 2
    np.savez(tmp_path / "windows.npz", x=x, y=y)
    return tmp_path


def photos(folder):
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{number}.png")
    return {"use": "folder", "path": "photos", "size": [4, 5], "tune_share": 0.3, "test_share": 0.3}


def test_a_folder_of_photos_opens_at_the_size_asked_for(tmp_path):
    data = sources.read(photos(tmp_path), "[data]", tmp_path).open(tmp_path / "b", Silent())
    assert data.shape == (4, 5, 3)
    assert data.labels == ("cat", "dog")
    assert sum(len(split.classes) for split in (data.train, data.tune, data.test)) == 60


def test_a_new_photo_changes_the_recipe_and_a_moved_folder_does_not(tmp_path):
    table = photos(tmp_path)
    before = sources.read(table, "[data]", tmp_path).recipe(tmp_path / "b")
    (tmp_path / "photos").rename(tmp_path / "moved")
    moved = sources.read({**table, "path": "moved"}, "[data]", tmp_path)
    assert moved.recipe(tmp_path / "b") == before
    Image.new("RGB", (5, 5)).save(tmp_path / "moved/cat/new.png")
    assert moved.recipe(tmp_path / "b") != before


def test_two_channels_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\[data\] channels: must be 1 or 3, got 2"):
        sources.read({**photos(tmp_path), "channels": 2}, "[data]", tmp_path)


def test_an_npz_of_windows_opens_with_mean_0_and_deviation_1(windows):
    source = sources.read({"use": "npz", "path": "windows.npz"}, "[data]", windows)
    data = source.open(windows / "b", Silent())
    seen = data.normalise(data.train.inputs).reshape(-1, 2)
    assert data.kind == "array"
    assert seen.mean(axis=0) == pytest.approx([0, 0], abs=1e-5)
    assert seen.std(axis=0) == pytest.approx([1, 1], abs=1e-5)


def test_a_flip_of_windows_is_refused_as_it_would_swap_their_channels(windows):
    table = {"use": "npz", "path": "windows.npz", "augment": ["mixup", "flip"]}
    with pytest.raises(UserError, match="augment: 'flip' is for images, the data is not"):
        sources.read(table, "[data]", windows).open(windows / "b", Silent())


FUNCTION = """
import numpy as np
def load(path, scale=1.0):
    x = np.loadtxt(path).reshape(-1, 2, 2).astype("float32") * scale
    return {"x": x, "y": np.arange(len(x)) % 2}
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTION)
    np.savetxt(tmp_path / "numbers.txt", np.random.default_rng(0).normal(size=(400, 4)))
    return tmp_path


def function(folder, **arguments):
    return sources.read({"use": "mine.py:load", **arguments}, "[data]", folder)


def test_a_function_finds_files_beside_the_pipeline(own):
    data = function(own, path="numbers.txt").open(own / "b", Silent())
    assert data.shape == (2, 2)


def test_a_file_that_an_argument_names_counts(own):
    before = function(own, path="numbers.txt").recipe(own)
    assert function(own, path="numbers.txt").recipe(own) == before
    np.savetxt(own / "numbers.txt", np.ones((400, 4)))
    assert function(own, path="numbers.txt").recipe(own) != before


def test_an_argument_of_the_function_counts(own):
    before = function(own, path="numbers.txt").recipe(own)
    assert function(own, path="numbers.txt", scale=2.0).recipe(own) != before


def test_a_function_that_raises_names_its_line(own):
    with pytest.raises(UserError, match=r"mine\.py:4: FileNotFoundError: nosuch\.txt"):
        function(own, path="nosuch.txt").open(own / "b", Silent())
