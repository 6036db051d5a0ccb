"""All exits of a network trained at once."""

import dataclasses

import numpy as np
import pytest
from small_data import stripes

from tfedge.errors import UserError
from tfedge.progress import Silent
from tfedge.training.course import Course
from tfedge.training.teaching import Joint, Teaching

pytestmark = pytest.mark.slow

COURSE = Course(epochs=3, batch=64, rate=1e-2)
SHARES = Joint(exit_weights=(1.0, 3.0), self_distillation=0.25, exit_temperature=2.0)


@pytest.fixture(scope="module")
def t():
    from tfedge.training import exits

    return exits


@pytest.fixture(scope="module")
def keras(t):
    return t.keras


@pytest.fixture(scope="module")
def data():
    return stripes()


def network(keras, dropout=0.0):
    """Two exits, of 64 features of the first layer each and of what the second makes of them."""
    from tfedge.networks.backend import seed_everything

    keras.backend.clear_session()
    seed_everything(0)
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, use_bias=False, name="first")(x)
    x = layers.Dropout(dropout)(layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x)))
    early = layers.Dense(4, name="exit_0_logits")(layers.GlobalAveragePooling2D()(x))
    x = layers.Conv2D(4, 3, name="second")(x)
    return keras.Model(inputs, [early, layers.Dense(4, name="last")(layers.Flatten()(x))])


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def soft(teacher, student, temperature):
    """Return KL(teacher || student) at a temperature, times its square, of each row."""
    p, q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    return temperature**2 * (np.exp(p) * (p - q)).sum(axis=-1)


def compiled(t, model):
    model.compile("sgd", t.keras.losses.CategoricalCrossentropy(from_logits=True), ["accuracy"])
    return model


@pytest.mark.parametrize("taught", [False, True])
def test_the_loss_is_that_of_the_formula(taught, t, keras, data):
    rng = np.random.default_rng(0)
    first, last, teacher = rng.normal(0, 2, (3, 8, 4)).astype(np.float32)
    y = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 8)]
    weight = rng.uniform(0.5, 2, 8).astype(np.float32)
    teaching = Teaching("x", temperature=5.0, alpha=0.4)
    model = compiled(t, t.JointTraining(network(keras), SHARES, None, teaching))

    def own(z):
        labels = -(y * log_softmax(z)).sum(axis=-1)
        return 0.4 * labels + 0.6 * soft(teacher, z, 5.0) if taught else labels

    early = 0.75 * own(first) + 0.25 * soft(last, first, 2.0)
    expected = (weight * (0.5 * early + 1.5 * own(last))).mean()
    answers, labels = [t.tf.constant(first), t.tf.constant(last)], t.tf.constant(y)
    got = model.loss_of(answers, labels, teacher if taught else None, t.tf.constant(weight))
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_the_last_exit_learns_nothing_from_the_others(t, keras, data):
    """Only their weights differ: with all on the early exit, the last one's layers stay."""
    x, y = data.normalise(data.train.inputs), np.eye(4, dtype=np.float32)[data.train.classes]
    model = compiled(t, t.JointTraining(network(keras), Joint((1.0, 0.0))))
    before = {layer.name: layer.get_weights() for layer in model.network.layers}
    model.fit(x, y, verbose=0)
    moved = {
        layer.name
        for layer in model.network.layers
        if not all(map(np.array_equal, layer.get_weights(), before[layer.name]))
    }
    assert moved == {"first", "batch_normalization", "exit_0_logits"}


def test_only_the_proportion_of_weights_counts(t, keras, data):
    def trained(*weights):
        model = compiled(t, t.JointTraining(network(keras), Joint(weights)))
        x, y = data.normalise(data.train.inputs), np.eye(4, dtype=np.float32)[data.train.classes]
        model.fit(x, y, verbose=0, shuffle=False)
        return model.get_weights()

    alike = trained()
    assert all(map(np.array_equal, alike, trained(2.0, 2.0)))
    assert not all(map(np.array_equal, alike, trained(2.0, 4.0)))


def test_evaluating_measures_each_exit_and_moves_nothing(t, keras, data):
    model = compiled(t, t.JointTraining(network(keras), Joint()))
    before = model.network.get_weights()
    x, classes = data.normalise(data.tune.inputs), data.tune.classes
    figures = model.evaluate(x, np.eye(4)[classes], verbose=0, return_dict=True)
    first, last = (z.numpy() for z in model.network(x, training=False))
    rights = [np.mean(z.argmax(axis=-1) == classes) for z in (first, last)]
    assert figures["exit_0_accuracy"] == pytest.approx(rights[0])
    assert figures["accuracy"] == pytest.approx(rights[1])
    labels = -log_softmax(last)[np.arange(len(classes)), classes].mean()
    assert figures["loss"] == pytest.approx(labels, rel=1e-4)
    assert all(map(np.array_equal, model.network.get_weights(), before))
    assert np.array_equal(model.predict(x, verbose=0), model.network.predict(x, verbose=0)[-1])


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


def session(data, place, progress):
    from tfedge.training.fitting import Session

    return Session("x", data, ("flip",), 1, place, progress)


def fitted(t, data, place, epochs=3, teacher=None, progress=None, **stop):
    from tfedge.training.fitting import fit

    model = network(t.keras, dropout=0.3)
    teaching = Teaching("x", views=2, teacher_precision="float32")
    lessons = place / "lessons"
    joint = t.jointly(model, Joint(), teacher, teaching, lessons)
    course = dataclasses.replace(COURSE, epochs=epochs)
    history = fit(joint, course, session(data, place / "scratch", progress or Silent()), **stop)
    return model, history


class PowerError(Exception):
    pass


@pytest.mark.parametrize("with_teacher", [False, True])
def test_one_killed_goes_on_and_ends_as_one_that_was_not(with_teacher, t, data, tmp_path):
    teacher = network(t.keras) if with_teacher else None

    def stop(epoch, logs):
        if epoch == 1:
            raise PowerError

    dying = t.keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    whole, history = fitted(t, data, tmp_path / "whole", teacher=teacher)
    with pytest.raises(PowerError):
        fitted(t, data, tmp_path / "killed", teacher=teacher, callbacks=[dying])
    again, rows = fitted(t, data, tmp_path / "killed", teacher=teacher)
    assert all(map(np.array_equal, whole.get_weights(), again.get_weights()))
    assert rows == history
    assert {"exit_0_accuracy", "val_exit_0_accuracy", "val_accuracy"} <= set(history[0])


def test_a_line_an_epoch_tells_the_accuracy_of_each_exit_on_tune(t, data, tmp_path):
    progress = Listening()
    _, (row,) = fitted(t, data, tmp_path, epochs=1, progress=progress)
    (line,) = progress.said
    assert line.endswith(f"  tune {row['val_exit_0_accuracy']:.4f} {row['val_accuracy']:.4f}")


def test_it_learns_all_exits_and_keeps_the_epoch_that_is_best_in_the_mean(t, data, tmp_path):
    from tfedge.training.fitting import tune_figures

    model, history = fitted(t, data, tmp_path, epochs=12)
    figures = tune_figures(model, data)
    means = [(row["val_accuracy"] + row["val_exit_0_accuracy"]) / 2 for row in history]
    exits = figures["exits"]
    found = [exits["exit_0"]["accuracy"], exits["exit_1"]["accuracy"]]
    assert np.mean(found) == pytest.approx(max(means), abs=1e-6)
    assert figures["accuracy"] == found[1] > 0.5
    assert found[0] > 0.5


def test_a_network_with_exits_teaches_with_its_last(t, keras, data):
    from tfedge.training.distillation import teacher_of

    model = network(keras)
    x = data.normalise(data.tune.inputs)
    (taught,) = teacher_of(model, [])(x)
    assert np.array_equal(taught, model(x, training=False)[-1])


@pytest.mark.parametrize(
    ("joint", "message"),
    [
        (Joint((1.0,)), "exit_weights: the network has 2 exits, the last included, got 1 weights"),
        (Joint((1.0, 1.0, 1.0)), "got 3 weights\n  write one for each"),
    ],
)
def test_weights_that_do_not_fit_are_refused(joint, message, t, keras):
    with pytest.raises(UserError) as caught:
        t.JointTraining(network(keras), joint)
    assert message in str(caught.value)


def test_of_equal_networks_the_one_of_better_exits_is_chosen(t, keras, data):
    from tfedge.training.choosing import choose

    model = network(keras)
    x, classes = data.normalise(data.tune.inputs), data.tune.classes
    lucky = model.get_weights()
    answers = model(x, training=False)[0].numpy()
    often = np.bincount(answers.argmax(axis=-1)[:0], minlength=4)  # nothing is answered yet
    bias = model.get_layer("exit_0_logits").bias
    accuracies = {}
    for kind in range(4):
        bias.assign(100.0 * np.eye(4, dtype=np.float32)[kind] + often)
        accuracies[kind] = np.mean(classes == kind), model.get_weights()
    best = max(accuracies, key=lambda kind: accuracies[kind][0])
    worst = min(accuracies, key=lambda kind: accuracies[kind][0])
    candidates = {"worst": accuracies[worst][1], "best": accuracies[best][1]}
    assert choose(model, candidates, data) == "best"
    assert len(lucky) == len(candidates["best"])
