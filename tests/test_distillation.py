import numpy as np
import pytest

from tfedge.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


@pytest.fixture(scope="module")
def d(tf):
    from tfedge.training import distillation

    return distillation


@pytest.fixture(scope="module")
def keras(d):
    return d.keras


def loss(keras):
    return keras.losses.CategoricalCrossentropy(from_logits=True)


def network(keras, width, name="net"):
    layers = keras.layers
    x = inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(width, 3, padding="same", name="middle")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(3, name="answer")(x), name=name)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (8, 4, 4, 2)).astype(np.float32)
    return x, np.eye(3, dtype=np.float32)[rng.integers(0, 3, 8)]


def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def test_soft_loss_matches_the_definition_worked_out_in_numpy(d):
    teacher, student, temperature = np.float32([[1, 2, 4]]), np.float32([[0, 1, 5]]), 2.0
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum()
    assert d.soft_loss(teacher, student, temperature).numpy() == pytest.approx([expected], rel=1e-5)


def test_soft_loss_is_zero_where_student_and_teacher_agree(d, tf):
    logits = tf.random.stateless_normal((4, 10), seed=(0, 0))
    assert d.soft_loss(logits, logits + 3.0, 4.0).numpy() == pytest.approx(0, abs=1e-5)


def test_soft_loss_gradient_does_not_shrink_with_temperature(d, tf):
    # For zero-mean logits it tends to (student - teacher) / classes (Hinton et al. 2015, eq. 4).
    teacher, student = tf.constant([[1.0, -1.0]]), tf.constant([[3.0, -3.0]])
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = d.soft_loss(teacher, student, temperature=100.0)
    expected = np.float32([[1.0, -1.0]])
    assert tape.gradient(value, student).numpy() == pytest.approx(expected, rel=1e-2)


def test_hint_loss_is_the_mean_square_of_the_difference(d):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 4, 4, 3)).astype(np.float32)
    expected = np.square(a - b).mean(axis=(1, 2, 3))
    assert d.hint_loss(a, b).numpy() == pytest.approx(expected, rel=1e-5)


def test_the_student_learns_and_nothing_of_the_teacher_changes(d, keras, batch):
    teacher, student = network(keras, 6), network(keras, 4)
    before = [model.get_weights() for model in (teacher, student)]
    distiller = d.Distiller(student, d.teacher_of(teacher, []), temperature=2.0, alpha=0.5)
    distiller.compile("sgd", loss(keras))

    distiller.fit(*batch, verbose=0)

    assert all(map(np.array_equal, teacher.get_weights(), before[0]))
    assert teacher.trainable
    assert all(layer.trainable for layer in teacher.layers)
    assert not all(map(np.array_equal, student.get_weights(), before[1]))
    assert len(distiller.weights) == len(student.weights)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_one_step_is_the_step_worked_out_by_hand(d, keras, tf, alpha):
    """One dense layer: the gradient of both losses is known in closed form."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(8, 5)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 8)]
    teacher, student = (
        keras.Sequential([keras.layers.Dense(3, input_shape=(5,), use_bias=False)]) for _ in "ts"
    )
    (w,), (v,), t, rate = student.get_weights(), teacher.get_weights(), 3.0, 0.1
    distiller = d.Distiller(student, d.teacher_of(teacher, []), temperature=t, alpha=alpha)
    distiller.compile(keras.optimizers.SGD(rate), loss(keras))
    distiller.fit(x, y, batch_size=8, verbose=0)

    hard = softmax(x @ w) - y
    soft = t * (softmax(x @ w / t) - softmax(x @ v / t))  # T^2 times 1/T of the inner derivative
    expected = w - rate * x.T @ (alpha * hard + (1 - alpha) * soft) / len(x)
    assert student.get_weights()[0] == pytest.approx(expected, abs=1e-5)


def test_evaluating_a_distiller_is_evaluating_the_student(d, keras, batch):
    student = network(keras, 4)
    distiller = d.Distiller(
        student, d.teacher_of(network(keras, 6), []), temperature=2.0, alpha=0.1
    )
    for model in (distiller, student):
        model.compile("sgd", loss(keras), metrics=["accuracy"])
    before = student.get_weights()
    figures = distiller.evaluate(*batch, verbose=0, return_dict=True)
    assert figures == student.evaluate(*batch, verbose=0, return_dict=True)
    assert all(map(np.array_equal, student.get_weights(), before))


def test_batchnorm_moves_as_in_plain_training(d, keras, batch):
    """With alpha 1 a distiller is plain training, moving statistics and all."""
    plain = network(keras, 4)
    student = keras.models.clone_model(plain)
    student.set_weights(plain.get_weights())
    distiller = d.Distiller(
        student, d.teacher_of(network(keras, 6), []), temperature=2.0, alpha=1.0
    )
    for model in (distiller, plain):
        model.compile(keras.optimizers.SGD(0.1), loss(keras))
        model.fit(*batch, batch_size=8, verbose=0)
    for mine, theirs in zip(student.get_weights(), plain.get_weights(), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)


def test_a_projection_is_learned_and_not_kept_in_the_student(d, keras, batch, tmp_path):
    teacher, student = network(keras, 6), network(keras, 4)
    parameters = student.count_params()
    channels = d.match_features(student, teacher, {"middle": "middle"})
    assert channels == {"middle": 6}
    distiller = d.Distiller(
        student,
        d.teacher_of(teacher, ["middle"]),
        temperature=2.0,
        alpha=0.5,
        hints=channels,
        hint_weight=10.0,
    )
    distiller.compile(keras.optimizers.SGD(0.01), loss(keras))
    (projection,) = distiller.projections
    before = projection.get_weights()[0].copy()

    distiller.fit(*batch, verbose=0)

    assert before.shape == (4, 6)
    assert not np.array_equal(projection.get_weights()[0], before)
    assert student.count_params() == parameters
    distiller.save(tmp_path / "saved.h5")
    saved = keras.models.load_model(tmp_path / "saved.h5", compile=False)
    assert np.array_equal(saved(batch[0]), student(batch[0]))


def test_hints_draw_the_students_features_to_the_teachers(d, keras, batch):
    teacher, student = network(keras, 6), network(keras, 6)
    distiller = d.Distiller(
        student,
        d.teacher_of(teacher, ["middle"]),
        temperature=2.0,
        alpha=1.0,
        hints={"middle": 6},
        hint_weight=1.0,
    )
    distiller.compile(keras.optimizers.Adam(0.02), loss(keras))

    def distance():
        seen = [keras.Model(m.inputs, m.get_layer("middle").output) for m in (teacher, student)]
        features = [model(batch[0]) for model in seen]
        return float(np.square(features[0] - features[1]).mean())

    before = distance()
    distiller.fit(*batch, epochs=60, verbose=0)
    assert distance() < before / 4


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"midle": "middle"}, "no layer 'midle'\n  did you mean 'middle'?"),
        ({"middle": "midle"}, "no layer 'midle'\n  did you mean 'middle'?"),
        ({"middle": "answer"}, "hints: 'middle' gives (4, 4, 4), 'answer' gives (3,)"),
    ],
)
def test_a_pair_that_does_not_fit_is_named(d, keras, pairs, message):
    with pytest.raises(UserError) as caught:
        d.match_features(network(keras, 4), network(keras, 6), pairs)
    assert message in str(caught.value)


def test_no_gradient_reaches_the_teacher(d, keras, tf, batch):
    teacher = network(keras, 6)
    teach = d.teacher_of(teacher, ["middle"])
    with tf.GradientTape() as tape:
        x = tf.constant(batch[0])
        tape.watch(x)
        logits, features = teach(x)
        total = tf.reduce_sum(logits) + tf.reduce_sum(features)
    sources = [x, *teacher.trainable_variables]
    assert tape.gradient(total, sources) == [None] * len(sources)
    assert features.shape == (8, 4, 4, 6)
    assert np.array_equal(logits, teacher(batch[0], training=False))


def test_weights_of_examples_count_in_both_losses_and_regularisers_count_whole(d, keras):
    rng = np.random.default_rng(1)
    x, share = rng.normal(size=(8, 5)).astype(np.float32), 0.3
    y, weights = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 8)], rng.uniform(0, 2, 8)
    options = {"input_shape": (5,), "use_bias": False, "kernel_regularizer": "l2"}
    teacher, student = (keras.Sequential([keras.layers.Dense(3, **options)]) for _ in "ts")
    (w,), (v,), rate = student.get_weights(), teacher.get_weights(), 0.1
    distiller = d.Distiller(student, d.teacher_of(teacher, []), temperature=1.0, alpha=share)
    distiller.compile(keras.optimizers.SGD(rate), loss(keras))
    distiller.fit(x, y, sample_weight=weights, batch_size=8, verbose=0)

    target = share * y + (1 - share) * softmax(x @ v)  # at temperature 1 the losses are one
    gradient = x.T @ (weights[:, None] * (softmax(x @ w) - target)) / len(x)
    expected = w - rate * (gradient + 2 * 0.01 * w)
    assert student.get_weights()[0] == pytest.approx(expected, abs=1e-5)


def test_without_hints_a_distillers_weights_are_the_students(d, keras):
    student, teach = network(keras, 4), d.teacher_of(network(keras, 6), [])
    distiller = d.Distiller(student, teach, temperature=2.0, alpha=0.5)
    assert all(map(np.array_equal, distiller.get_weights(), student.get_weights()))
    assert len(distiller.get_weights()) == len(student.get_weights())


def distilled(d, keras, folder, precision, *callbacks):
    from small_data import stripes

    from tfedge.networks.backend import seed_everything
    from tfedge.networks.precision import in_precision
    from tfedge.progress import Silent
    from tfedge.training.course import Course
    from tfedge.training.fitting import Session, fit

    def net(width):
        layers = keras.layers
        x = inputs = keras.Input((8, 8, 1))
        x = layers.Conv2D(width, 3, name="middle")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Dropout(0.3)(layers.Flatten()(x))
        return in_precision(keras.Model(inputs, layers.Dense(4)(x)), precision)

    keras.backend.clear_session()
    seed_everything(0)
    teach, student = d.teacher_of(net(6), ["middle"]), net(4)
    distiller = d.Distiller(student, teach, temperature=4.0, alpha=0.5, hints={"middle": 6})
    course = Course(epochs=2, batch=64, rate=1e-2, class_weights={"rows": 2.0})
    session = Session("t", stripes(), ("flip", "mixup"), 1, folder, Silent())
    history = fit(distiller, course, session, callbacks=callbacks)
    return history, student.get_weights() + distiller.projections[0].get_weights()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_distillation_ends_as_one_that_was_not(d, keras, tmp_path, precision):
    class StopError(Exception):
        pass

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise StopError

    history, weights = distilled(d, keras, tmp_path / "a", precision)
    with pytest.raises(StopError):
        distilled(d, keras, tmp_path / "b", precision, Stop())
    again, resumed = distilled(d, keras, tmp_path / "b", precision)
    assert again == history
    assert all(map(np.array_equal, resumed, weights))
