import dataclasses

import numpy as np
import pytest
from small_data import stripes

from tfedge.errors import Paused, UserError
from tfedge.progress import Silent
from tfedge.training.course import Course

pytestmark = pytest.mark.slow

COURSE = Course(epochs=3, batch=64, rate=1e-2)
SEEDS = [np.array(seed) for seed in ([1, 2], [1, 2], [1, 3])]


class StopError(Exception):
    pass


@pytest.fixture(scope="module")
def data():
    return stripes()


@pytest.fixture(scope="module")
def f():
    from tfedge.training import fitting

    return fitting


@pytest.fixture(scope="module")
def keras(f):
    return f.keras


def network(keras, dropout=0.3):
    from tfedge.networks.backend import seed_everything

    keras.backend.clear_session()
    seed_everything(0)
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dropout(dropout)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4)(x))


def pruned(keras):
    from tfedge.training import pruning

    schedule = pruning.Schedule("polynomial", 0, 8, 2, 2)
    return pruning.with_pruning(network(keras), 0.5, schedule, pruning.Pattern("free", (1, 4)), {})


def aware(keras):
    from tfedge.training.quantization import quantization_aware

    data = stripes()
    samples = data.normalise(data.tune.inputs[:32])
    return quantization_aware(network(keras), samples, data.limits())


def pruning_callbacks():
    from tfedge.training.pruning import pruning_step

    return [pruning_step()]


def session(f, data, scratch):
    return f.Session("test", data, ("flip",), 5, scratch, Silent())


def train(f, model, data, scratch, course=COURSE, **options):
    return f.fit(model, course, session(f, data, scratch), **options)


def stop_after(keras, epoch):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, number, logs=None):
            if number == epoch:
                raise StopError

    return Stop()


@pytest.mark.parametrize(
    ("make", "callbacks"),
    [(network, list), (pruned, pruning_callbacks), (aware, list)],
    ids=["plain with dropout", "pruning", "quantization-aware"],
)
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(
    f, keras, data, tmp_path, make, callbacks
):
    whole = make(keras)
    history = train(f, whole, data, tmp_path / "a", callbacks=callbacks())

    for number in (1, 2):  # twice, each time in a model that knows nothing of the other
        broken, calls = make(keras), [*callbacks(), stop_after(keras, number)]
        with pytest.raises(StopError):
            train(f, broken, data, tmp_path / "b", callbacks=calls)
    resumed = make(keras)
    again = train(f, resumed, data, tmp_path / "b", callbacks=callbacks())

    assert again == history
    assert all(map(np.array_equal, resumed.get_weights(), whole.get_weights()))


def test_a_training_that_pauses_goes_on_as_if_it_had_not(f, keras, data, tmp_path):
    course = dataclasses.replace(COURSE, epochs=5)
    whole = network(keras)
    history = train(f, whole, data, tmp_path / "a", course)

    def pause(epochs, row):
        told.append((epochs, row))
        if epochs >= stop:
            raise Paused

    def watched():
        given = dataclasses.replace(session(f, data, tmp_path / "b"), watch=pause)
        return f.fit(model, course, given)

    told, stop, model = [], 2, network(keras)
    with pytest.raises(Paused):
        watched()
    model = network(keras)
    with pytest.raises(Paused):  # it is where it is to stop, and trains nothing
        watched()
    stop, model = 9, network(keras)
    again = watched()

    assert again == history
    assert all(map(np.array_equal, model.get_weights(), whole.get_weights()))
    assert told == [(epochs, history[epochs - 1]) for epochs in (1, 2, 2, 2, 3, 4, 5)]
    watched()  # nothing is left to do, which is told, too
    assert told[-1] == (5, history[-1])
    assert len(told) == 8


def test_the_best_epoch_on_tune_is_kept(f, keras, data, tmp_path):
    model = network(keras)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(self.model.get_weights())

    # So large a step that the last epoch is not the best.
    course = Course(epochs=4, batch=64, rate=0.5, schedule="constant")
    history = train(f, model, data, tmp_path, course, callbacks=[Watch()])
    ranks = [(row["val_accuracy"], -row["val_loss"]) for row in history]
    best = ranks.index(max(ranks))
    assert all(map(np.array_equal, model.get_weights(), seen[best]))

    last = network(keras)
    train(f, last, data, tmp_path / "last", dataclasses.replace(course, keep="last"))
    assert all(map(np.array_equal, last.get_weights(), seen[-1]))


def test_patience_ends_a_training_that_gets_no_better(f, keras, data, tmp_path):
    still = Course(epochs=10, batch=64, rate=0.0, optimizer="sgd", patience=2)
    model = network(keras)
    model.get_layer("batch_normalization").trainable = False
    assert len(train(f, model, data, tmp_path, still)) == 1 + 2
    assert len(train(f, model, data, tmp_path, still)) == 1 + 2  # and stays ended


def test_epochs_before_pruning_has_ended_are_never_the_best(f, keras, data, tmp_path):
    from tfedge.training.keeper import Keeper

    keeper = Keeper(tmp_path, first=2)
    keeper.history = [{"val_accuracy": a, "val_loss": 1.0} for a in (0.9, 0.8, 0.5, 0.6)]
    assert keeper.best == 3


@pytest.mark.parametrize(
    ("step", "rate"),
    # 8 steps of warm-up to 0.4, then half a cosine over the other 24 (4 steps an epoch).
    [(0, 0.05), (3, 0.2), (7, 0.4), (8, 0.4), (20, 0.2), (32, 0.0)],
)
def test_the_step_size_rises_and_then_falls_along_a_cosine(f, step, rate):
    course = Course(epochs=8, rate=0.4, warmup=2.0, optimizer="sgd")
    optimizer = f._optimizer(course, 4)
    optimizer.iterations.assign(step)
    assert float(optimizer.learning_rate) == pytest.approx(rate, abs=1e-6) or float(
        optimizer._learning_rate(step)
    ) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weight_decay_shrinks_weights_that_no_loss_holds(f, keras, optimizer):
    tf = f.tf
    course = Course(epochs=1, rate=0.1, schedule="constant", weight_decay=0.5, optimizer=optimizer)
    variable = tf.Variable([2.0])
    made = f._optimizer(course, 1)
    made.build([variable])
    made.apply_gradients([(tf.constant([0.0]), variable)])
    assert variable.numpy() == pytest.approx([2.0 * (1 - 0.1 * 0.5)], rel=1e-6)


def test_balanced_weights_are_inverse_frequencies_times_the_users_own(f, data):
    course = Course(balance=True, class_weights={"rows": 2.0})
    counts = np.bincount(data.train.classes)
    expected = {number: 256 / (4 * count) for number, count in enumerate(counts.tolist())}
    expected[1] *= 2
    assert f._class_weights(course, data) == pytest.approx(expected)
    assert f._class_weights(Course(), data) is None


def test_a_weight_for_an_unknown_class_is_refused(f, data):
    with pytest.raises(UserError, match="'row' is no class of the data\n  did you mean 'rows'"):
        f._class_weights(Course(class_weights={"row": 2.0}), data)


def test_tune_figures_count_right_answers(f, keras, data):
    model = network(keras)
    answers = model(data.normalise(data.tune.inputs)).numpy().argmax(axis=-1)
    figures = f.tune_figures(model, data)
    assert figures["accuracy"] == pytest.approx(np.mean(answers == data.tune.classes))
    assert figures["count"] == 96


def batches(f, data, **options):
    from tfedge.training.batches import Order, training_batches

    chosen = {"first_epoch": 0, "epochs": 2} | options
    order = Order(len(data.train.classes), 100, chosen.pop("seed", 3))
    made = training_batches(data, chosen.pop("augment", ()), order, **chosen)
    return list(made.as_numpy_iterator())


def test_an_epoch_shows_every_example_once_in_another_order_each_time(f, data):
    found = batches(f, data)
    assert [len(x) for x, _ in found] == [100, 100, 56] * 2
    epochs = [np.concatenate([x for x, _ in found[i : i + 3]]) for i in (0, 3)]
    expected = data.normalise(data.train.inputs)
    for epoch in epochs:
        order = [np.lexsort(images.reshape(256, -1).T) for images in (epoch, expected)]
        assert epoch[order[0]] == pytest.approx(expected[order[1]], abs=1e-6)
    assert not np.array_equal(epochs[0], epochs[1])


def test_what_a_step_shows_depends_on_its_number_alone(f, data):
    options = {"augment": ("flip", "crop", "colour", "cutout", "mixup"), "epochs": 3}
    whole = batches(f, data, **options)[3:]
    tail = batches(f, data, first_epoch=1, **options)
    for (x, y), (u, v) in zip(whole, tail, strict=True):
        assert np.array_equal(x, u)
        assert np.array_equal(y, v)
    assert not np.array_equal(batches(f, data, seed=4, **options)[3][0], whole[0][0])


def test_mixed_targets_still_sum_to_one(f, data):
    for _, y in batches(f, data, augment=("mixup",)):
        assert y.sum(axis=-1) == pytest.approx(1, abs=1e-6)
        assert (y.max(axis=-1) < 1).any()


def test_a_users_augmentation_gets_pixels_and_a_seed(f, data):
    def half(images, seed):
        assert tuple(seed.shape) == (2,)
        return images * 0.5

    x, _ = batches(f, data, augment=(half,))[0]
    plain, _ = batches(f, data)[0]
    assert x == pytest.approx(plain / 2, abs=1e-6)


def test_a_users_augmentation_that_changes_the_shape_is_refused(f, data):
    with pytest.raises(UserError, match=r"made \(2, 4, 8, 1\) of \(2, 8, 8, 1\)"):
        batches(f, data, augment=(lambda images, seed: images[:, :4],))


def test_a_users_augmentation_that_returns_no_floats_is_refused(f, data):
    with pytest.raises(UserError, match="returned NoneType\n  return a tensor of float32"):
        batches(f, data, augment=(lambda images, seed: None,))


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).uniform(0, 255, (64, 16, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["flip", "crop", "colour", "cutout"])
def test_the_same_seed_makes_the_same_change_and_another_another(f, pictures, name):
    from tfedge.training.augmentation import NAMED

    one, same, other = (NAMED[name](pictures, seed).numpy() for seed in SEEDS)
    assert one.shape == pictures.shape
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 255


def test_flip_mirrors_some_and_leaves_the_others(f, pictures):
    from tfedge.training.augmentation import flip

    changed = flip(pictures, np.array([0, 0])).numpy()
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(changed, pictures, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(changed, pictures, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 16 < sum(mirrored) < 48


def test_crop_is_a_window_of_the_mirrored_border(f, pictures):
    from tfedge.training.augmentation import crop

    for image, changed in zip(
        pictures[:8], crop(pictures[:8], np.array([0, 0])).numpy(), strict=True
    ):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), "reflect")
        windows = [padded[r : r + 16, c : c + 12] for r in range(5) for c in range(5)]
        assert any(np.array_equal(changed, window) for window in windows)


def test_cutout_greys_one_rectangle_of_at_most_half_the_height(f, pictures):
    from tfedge.training.augmentation import cutout

    for image, changed in zip(pictures, cutout(pictures, np.array([0, 0])).numpy(), strict=True):
        differs = (image != changed).any(axis=-1)
        rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
        assert differs.sum() == len(rows) * len(columns)
        assert max(len(rows), len(columns)) <= 8
        assert (changed[differs] == 127.5).all()


def first_step(f, keras, data, tmp_path, **settings):
    """Train a dense layer from 0 for one step of all examples; return its kernel."""
    model = keras.Sequential(
        [
            keras.layers.Flatten(input_shape=(8, 8, 1)),
            keras.layers.Dense(4, use_bias=False, kernel_initializer="zeros"),
        ]
    )
    plain = {"epochs": 1, "batch": 256, "optimizer": "sgd", "rate": 0.1, "momentum": 0.0}
    course = Course(**plain, schedule="constant", keep="last", **settings)
    f.fit(model, course, f.Session("test", data, (), 5, tmp_path, Silent()))
    x = data.normalise(data.train.inputs).reshape(256, -1)
    return model.get_weights()[0], x, np.eye(4)[data.train.classes]


def test_a_smoothed_label_is_shared_with_all_classes(f, keras, data, tmp_path):
    kernel, x, y = first_step(f, keras, data, tmp_path, label_smoothing=0.2)
    # From 0, every class has a share of 1/4, and the gradient is x (1/4 - target).
    expected = -0.1 * x.T @ (0.25 - (0.8 * y + 0.05)) / 256
    assert kernel == pytest.approx(expected, abs=1e-6)


def test_a_classs_weight_multiplies_its_examples_loss(f, keras, data, tmp_path):
    kernel, x, y = first_step(f, keras, data, tmp_path, class_weights={"rows": 3.0})
    weights = np.where(data.train.classes == 1, 3.0, 1.0)[:, None]
    assert kernel == pytest.approx(-0.1 * x.T @ (weights * (0.25 - y)) / 256, abs=1e-6)


def test_the_same_seed_trains_the_same_weights_and_another_others(f, keras, data, tmp_path):
    def run(folder, seed):
        model = network(keras)
        course = dataclasses.replace(COURSE, epochs=1)
        f.fit(model, course, f.Session("t", data, ("flip",), seed, tmp_path / folder, Silent()))
        return model.get_weights()

    one, same, other = run("a", 5), run("b", 5), run("c", 6)
    assert all(map(np.array_equal, one, same))
    assert not np.array_equal(one[0], other[0])


def test_tensorboard_is_told_while_it_trains_and_changes_nothing(f, keras, data, tmp_path):
    import tensorflow as tf

    weights = []
    for logs in (None, tmp_path / "logs"):
        model = network(keras)
        scratch = tmp_path / str(logs is None)
        session = f.Session("x", data, (), 1, scratch, Silent(), logs=logs)
        f.fit(model, COURSE, session)
        weights.append(model.get_weights())
    assert all(np.array_equal(*pair) for pair in zip(*weights, strict=True))
    tags = {}
    for file in (tmp_path / "logs").rglob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                tags.setdefault(value.tag, []).append(event.step)
    assert tags["epoch_accuracy"] == [0, 1, 2] * 2  # of train and of tune
    assert tags["epoch_loss"] == [0, 1, 2] * 2
