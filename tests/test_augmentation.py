import numpy as np
import pytest

pytestmark = pytest.mark.slow

SEED = np.array([3, 4])


@pytest.fixture(scope="module")
def a():
    from tfedge.training import augmentation

    return augmentation


def test_mixup_blends_inputs_and_targets_with_the_same_share_of_the_same_partner(a):
    # One-hot inputs and one-hot targets of as many classes: what comes out must be the same.
    both = np.eye(6, dtype=np.float32)
    inputs, targets = (part.numpy() for part in a.mixup(both.reshape(6, 1, 1, 6), both, SEED))
    assert inputs.reshape(6, 6) == pytest.approx(targets)
    assert targets.sum(axis=1) == pytest.approx(1)
    assert targets.sum(axis=0).sum() == pytest.approx(6)
    assert (np.count_nonzero(targets, axis=1) <= 2).all()
    assert np.count_nonzero(targets) > 6


def test_colour_changes_each_image_on_its_own_and_by_a_fifth_at_most(a):
    grey = np.full((40, 8, 8, 3), 100, np.float32)  # without contrast and saturation
    changed = a.colour(grey, SEED).numpy()
    levels = changed[:, 0, 0, 0]
    assert changed == pytest.approx(np.broadcast_to(levels[:, None, None, None], grey.shape))
    assert levels.min() >= 80 - 1e-3
    assert levels.max() <= 120 + 1e-3
    assert levels.std() > 5


def test_cutout_reaches_every_corner(a):
    images = np.zeros((500, 8, 8, 1), np.float32)
    hidden = (a.cutout(images, SEED).numpy() != 0).mean(axis=0)[..., 0]
    assert hidden.min() > 0


def test_crop_moves_by_every_shift_about_as_often(a):
    rows = np.broadcast_to(np.arange(16, dtype=np.float32)[:, None, None], (500, 16, 16, 1))
    middle = a.crop(rows, SEED).numpy()[:, 8, 0, 0]
    shifts, counts = np.unique(middle - 8, return_counts=True)
    assert shifts.tolist() == [-2, -1, 0, 1, 2]
    assert counts.min() > 60
