"""A teacher's answers that are kept: as good as the teacher itself."""

from types import SimpleNamespace

import numpy as np
import pytest
from small_data import stripes

from tfedge.errors import UserError
from tfedge.progress import Silent
from tfedge.training.course import Course
from tfedge.training.teaching import Teaching

pytestmark = pytest.mark.slow

EPOCHS, VIEWS = 5, 2


class StopError(Exception):
    pass


@pytest.fixture(scope="module")
def m():
    import tensorflow as tf

    from tfedge.networks.backend import keras, seed_everything
    from tfedge.training import batches, distillation, fitting, lessons

    return SimpleNamespace(
        tf=tf,
        keras=keras,
        seed=seed_everything,
        Order=batches.Order,
        Distiller=distillation.Distiller,
        Hints=distillation.Hints,
        taught=distillation.taught,
        fitting=fitting,
        Lessons=lessons.Lessons,
        lessons=lessons,
    )


def network(m, width):
    layers = m.keras.layers
    x = inputs = m.keras.Input((8, 8, 1))
    x = layers.Conv2D(width, 3)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    return m.keras.Model(inputs, layers.Dense(4)(x))


def stop_in(m, number):
    class Stop(m.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == number:
                raise StopError

    return Stop()


def distilled(m, folder, lessons, *callbacks, precision="float32"):
    """Train with a teacher that counts its calls; return history, weights and count."""
    m.keras.backend.clear_session()
    m.seed(0)
    teaching = Teaching(teacher="t", alpha=0.3, views=VIEWS, teacher_precision=precision)
    teacher, student = network(m, 6), network(m, 4)
    distiller = m.taught(student, teacher, teaching, m.Hints(), folder / "lessons")
    if lessons:
        distiller.lessons = lessons(folder / "lessons", VIEWS)
    teach, calls = distiller.teach, []

    def counting(inputs):
        with m.tf.control_dependencies([m.tf.py_function(lambda: calls.append(1), [], [])]):
            return teach(m.tf.identity(inputs))

    distiller.teach = counting
    course = Course(epochs=EPOCHS, batch=48, rate=1e-2, class_weights={"rows": 2.0}, keep="last")
    data = stripes(train=200, tune=48)
    session = m.fitting.Session("t", data, ("flip", "mixup"), 1, folder, Silent())
    history = m.fitting.fit(distiller, course, session, callbacks=callbacks)
    return history, student.get_weights(), len(calls)


@pytest.fixture(scope="module")
def live(m, tmp_path_factory):
    """The same training with a teacher that runs at every step."""

    class Forgetful(m.Lessons):
        def recall(self, number):
            return np.zeros_like(super().recall(number))

    return distilled(m, tmp_path_factory.mktemp("live"), Forgetful)


@pytest.fixture(scope="module")
def kept(m, tmp_path_factory):
    return distilled(m, tmp_path_factory.mktemp("kept"), None)


def test_kept_answers_train_the_very_weights_that_the_live_teacher_does(live, kept):
    assert kept[0] == live[0]
    assert all(map(np.array_equal, kept[1], live[1]))


def test_the_teacher_runs_once_a_batch_of_a_view(live, kept):
    steps = 5  # 200 inputs, 48 at a time
    assert live[2] == steps * EPOCHS
    assert kept[2] == steps * VIEWS


@pytest.mark.parametrize("step", [3, 8, 17])
def test_a_training_killed_within_an_epoch_ends_alike_and_asks_nothing_twice(
    m, kept, tmp_path, step
):
    with pytest.raises(StopError):
        distilled(m, tmp_path, None, stop_in(m, step))
    history, weights, calls = distilled(m, tmp_path, None)
    assert history == kept[0]
    assert all(map(np.array_equal, weights, kept[1]))
    assert calls == 5 * VIEWS - min(step, 5 * VIEWS)


def test_a_teacher_in_bfloat16_has_answers_of_its_own_precision(m, tmp_path):
    _, _, calls = distilled(m, tmp_path, None, precision="bfloat16")
    assert calls == 5 * VIEWS
    file = next((tmp_path / "lessons").rglob("view-0000.npy"))
    kept = np.load(file)
    assert kept.dtype == np.float32
    assert np.isfinite(kept).all()


def opened(m, folder, views=2, seed=0, epochs=9):
    lessons = m.Lessons(folder, views)
    lessons.open(m.Order(10, 4, seed, views), 3, epochs)
    return lessons


def test_a_batch_is_recalled_as_it_was_learned_also_by_others(m, tmp_path):
    lessons, logits = opened(m, tmp_path), np.arange(6, dtype=np.float32).reshape(2, 3)
    lessons.learn(np.int64(5), logits)  # the last of the second epoch, of two inputs
    for other in (lessons, opened(m, tmp_path)):
        assert np.array_equal(other.recall(np.int64(5)), np.c_[logits, [1, 1]])
        assert not other.recall(np.int64(4)).any()
    assert not opened(m, tmp_path, seed=1).recall(np.int64(5)).any()


def test_a_stage_that_begins_at_the_same_moment_empties_no_file(m, tmp_path, monkeypatch):
    first, logits = opened(m, tmp_path), np.ones((4, 3), np.float32)
    first.learn(np.int64(0), logits)
    count = len(list(tmp_path.rglob("*.npy")))
    whole, looks = m.lessons._is_whole, iter([False] * count)  # before the first had made them
    monkeypatch.setattr(m.lessons, "_is_whole", lambda *given: next(looks, whole(*given)))
    second = opened(m, tmp_path)
    assert list(looks) == []
    assert np.array_equal(second.recall(np.int64(0))[:, :3], logits)
    assert len(list(tmp_path.rglob("*.npy*"))) == count


def test_files_are_made_for_the_epochs_alone_that_there_are(m, tmp_path):
    opened(m, tmp_path, views=8, epochs=3)
    assert len(list(tmp_path.rglob("*.npy"))) == 3


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", None])
def test_a_damaged_file_is_made_anew(m, tmp_path, content):
    opened(m, tmp_path).learn(np.int64(0), np.ones((4, 3), np.float32))
    file = min(tmp_path.rglob("*.npy"))
    file.write_bytes(file.read_bytes()[:-1] if content is None else content)
    assert not opened(m, tmp_path).recall(np.int64(0)).any()


def test_what_the_disk_does_not_hold_is_refused_with_what_to_write(m, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=319))
    with pytest.raises(UserError, match=r"needs 320 bytes .* has 319 left\n.*views = 0"):
        opened(m, tmp_path)


@pytest.mark.parametrize(("views", "pairs"), [(0, {}), (2, {"dense": "dense"})])
def test_without_views_or_with_hints_the_teacher_runs_at_every_step(m, tmp_path, views, pairs):
    m.keras.backend.clear_session()
    teacher = network(m, 6)
    m.keras.backend.clear_session()
    student = network(m, 4)
    teaching = Teaching(teacher="t", views=views, teacher_precision="float32")
    assert m.taught(student, teacher, teaching, m.Hints(pairs), tmp_path).lessons is None
