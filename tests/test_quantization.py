import numpy as np
import pytest

from tfedge.errors import UserError
from tfedge.tflite.facts import facts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def q():
    from tfedge.training import quantization

    return quantization


@pytest.fixture(scope="module")
def c():
    from tfedge.tflite import conversion

    return conversion


def inputs(count=64, low=0.0):
    return np.random.default_rng(0).uniform(low, 1, (count, 8, 8, 2)).astype(np.float32)


def network(q, middle=None):
    q.keras.backend.clear_session()
    q.keras.utils.set_random_seed(0)
    layers = q.keras.layers
    x = given = q.keras.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, use_bias=False, name="first")(x)
    x = layers.ReLU(name="active")(layers.BatchNormalization(name="norm")(x))
    x = middle(x) if middle else x
    x = layers.Conv2D(8, 3, name="second")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return q.keras.Model(given, layers.Dense(4, name="answer")(x))


def trained(q, model, limits=(0.0, 1.0), *, eagerly=True):
    """Return the network after eight steps, for which it takes longest to trace a graph."""
    from tfedge.networks.kernels import kernels
    from tfedge.training.preserving import Preserving

    x = inputs(low=limits[0])
    aware = q.quantization_aware(model, x, limits)
    aware.compile("adam", "mse", run_eagerly=eagerly)
    y = np.random.default_rng(1).normal(size=(len(x), 4)).astype(np.float32)
    kept = Preserving(kernels(aware).values())
    aware.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[kept])
    return aware


@pytest.fixture(scope="module")
def plain(q):
    """The network, and its twin trained as a graph, for tests that change neither."""
    model = network(q)
    return model, trained(q, model, eagerly=False)


def answers(flatbuffer, x):
    """Run a bare int8 .tflite; return dequantised answers and the output's step."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=flatbuffer)
    run.allocate_tensors()
    (given,), (answer,) = run.get_input_details(), run.get_output_details()
    (scale, zero), (step, origin) = given["quantization"], answer["quantization"]
    found = []
    for item in x:
        pixel = np.clip(np.round(item / scale) + zero, -128, 127).astype(np.int8)
        run.set_tensor(given["index"], pixel[None])
        run.invoke()
        found.append((run.get_tensor(answer["index"])[0].astype(np.float32) - origin) * step)
    return np.stack(found), step


def test_the_int8_file_answers_as_the_quantization_aware_network(plain, c):
    _, aware = plain
    x = np.round(inputs(200) * 255) / 255  # values that the input's grid holds
    found, step = answers(c.to_int8(aware, inputs(), (0.0, 1.0)), x.astype(np.float32))
    expected = aware(x, training=False).numpy()
    assert np.abs(found - expected).max() <= 2 * step
    assert np.mean(found.argmax(-1) == expected.argmax(-1)) >= 0.98


@pytest.mark.parametrize(
    ("limits", "scale", "zero"),
    # -1 to 1 in 255 steps would put 0 half a step beside the grid; either end may be the longer.
    [((0.0, 1.0), 1 / 255, {-128}), ((-1.0, 1.0), 1 / 127, {-1, 0})],
)
@pytest.mark.parametrize("kind", ["float", "aware"])
def test_the_inputs_scale_and_zero_point_are_those_of_the_limits(q, c, kind, limits, scale, zero):
    model = network(q) if kind == "float" else trained(q, network(q), limits)
    middling = 0.2 + 0.5 * inputs()  # nothing near the limits
    (given,) = facts(c.to_int8(model, middling, limits), "x").inputs
    assert given.scales == (pytest.approx(scale, rel=1e-6),)
    assert given.zero_points[0] in zero


def test_zeros_stay_zeros_in_the_file(q, c):
    model = network(q)
    for name in ("first", "second"):
        kernel, *rest = model.get_layer(name).get_weights()
        small = np.abs(kernel) < np.quantile(np.abs(kernel), 0.6)
        model.get_layer(name).set_weights([np.where(small, 0, kernel), *rest])
    kernels = [model.get_layer(name).get_weights()[0] for name in ("first", "second")]
    found = facts(c.to_int8(trained(q, model), inputs(), (0.0, 1.0)), "x")
    convolutions = [weight.zeros for weight in found.weights if len(weight.shape) == 4]
    assert len(convolutions) == 2
    for zeros, kernel in zip(convolutions, kernels, strict=True):
        assert zeros >= (kernel == 0).sum() > 0.55 * kernel.size


@pytest.mark.parametrize("relu", ["ReLU", "Activation"])
@pytest.mark.parametrize("pruned", [False, True])
def test_weights_before_a_relu_layer_are_trained_in_8_bits_and_keep_zeros(q, c, relu, pruned):
    layers = q.keras.layers
    active = layers.ReLU if relu == "ReLU" else lambda: layers.Activation("relu")
    x = given = q.keras.Input((8, 8, 2))
    x = active()(layers.Conv2D(8, 3, name="whole")(x))
    x = active()(layers.DepthwiseConv2D(3, name="depthwise")(x))
    x = active()(layers.Dense(8, name="hidden")(layers.GlobalAveragePooling2D()(x)))
    model = q.keras.Model(given, layers.Dense(4, name="answer")(x))
    for name in ("whole", "hidden") if pruned else ():
        kernel, bias = model.get_layer(name).get_weights()
        small = np.abs(kernel) < np.quantile(np.abs(kernel), 0.6)
        model.get_layer(name).set_weights([np.where(small, 0, kernel), bias])
    aware = trained(q, model)
    learned = q.float_twin(aware, model)
    for name in ("whole", "hidden"):
        share = np.mean(learned.get_layer(name).get_weights()[0] == 0)
        assert share == (pytest.approx(0.6, abs=0.02) if pruned else 0)
    for name in ("whole", "depthwise", "hidden"):
        wrapper = aware.get_layer(f"quant_{name}")
        assert any("kernel_max" in weight.name for weight in wrapper.weights), name
    x = np.round(inputs(100) * 255) / 255
    found, step = answers(c.to_int8(aware, inputs(), (0.0, 1.0)), x.astype(np.float32))
    assert np.abs(found - aware(x, training=False).numpy()).max() <= 2 * step


def test_batchnormalization_after_a_convolution_leaves_no_operator_of_its_own(plain, c):
    for model in plain:
        found = facts(c.to_int8(model, inputs(), (0.0, 1.0)), "x")
        names = {name for name, _ in found.operators}
        assert names == {"CONV_2D", "MEAN", "FULLY_CONNECTED"}


def test_activations_start_with_the_ranges_that_the_float_network_shows(q):
    model = network(q)
    aware = q.quantization_aware(model, inputs(), (0.0, 1.0))
    ends = {w.name: float(w.numpy()) for w in aware.weights if "output_m" in w.name}
    seen = q.keras.Model(model.inputs, model.get_layer("active").output)(inputs()).numpy()
    (high,) = [value for name, value in ends.items() if "active" in name and "max" in name]
    assert high == pytest.approx(seen.max(), rel=1e-5)


def test_before_any_training_the_network_answers_as_the_float_one_and_the_file_as_it(q, c):
    model = network(q)
    aware = q.quantization_aware(model, inputs(), (0.0, 1.0))
    x = (np.round(inputs(200) * 255) / 255).astype(np.float32)
    found, step = answers(c.to_int8(aware, inputs(), (0.0, 1.0)), x)
    emulated, real = aware(x, training=False).numpy(), model(x, training=False).numpy()
    assert np.abs(found - emulated).max() <= 2 * step
    assert np.abs(emulated - real).max() < 0.05 * np.ptp(real)


def test_kernels_are_measured_with_the_weights_that_there_are(q):
    aware = q.quantization_aware(network(q), inputs(), (0.0, 1.0))
    kernel = next(w for w in aware.weights if w.name == "second/kernel:0")
    kernel.assign(3 * kernel)
    q.measure_kernels(aware)
    ends = {w.name: w.numpy() for w in aware.weights if "quant_second/kernel_m" in w.name}
    largest = np.abs(kernel.numpy()).max(axis=(0, 1, 2))
    assert len(ends) == 2
    for name, end in ends.items():
        assert end == pytest.approx(largest if "max" in name else -largest, rel=1e-6)


def test_what_tfmot_cannot_train_is_named_and_is_int8_in_the_file_all_the_same(q, c):
    layers = q.keras.layers

    def middle(x):
        return layers.PReLU(shared_axes=[1, 2], name="odd")(
            layers.BatchNormalization(name="alone")(layers.MaxPooling2D(name="half")(x))
        )

    model = network(q, middle)
    assert q.left_alone(model) == {
        "alone": "BatchNormalization that follows no convolution or dense layer",
        "odd": "tfmot has no rule for PReLU",
    }
    found = facts(c.to_int8(trained(q, model), inputs(), (0.0, 1.0)), "x")
    assert found.float_tensors == ()


def test_what_is_trained_with_8_bits_of_its_output_alone_is_named(q):
    layers = q.keras.layers
    model = network(q, lambda x: layers.Multiply(name="square")([x, layers.ELU(name="curve")(x)]))
    assert q.by_output(model) == {"square": "Multiply", "curve": "ELU"}
    assert q.by_output(model, ["curve"]) == {"square": "Multiply"}


def test_a_layer_may_be_left_by_name(q):
    assert q.left_alone(network(q), ["sec*"]) == {"second": "named in leave"}
    with pytest.raises(UserError, match="no layer matches 'sceond'\n  did you mean 'second'"):
        q.quantization_aware(network(q), inputs(), (0.0, 1.0), ["sceond"])


def test_a_network_in_a_network_is_refused_by_name(q):
    layers, model = q.keras.layers, network(q)
    model._name = "inner"
    outer = q.keras.Sequential([layers.InputLayer((8, 8, 2)), model])
    with pytest.raises(UserError, match="layer 'inner' is a network in a network"):
        q.quantization_aware(outer, inputs(), (0.0, 1.0))


def test_a_float_twin_has_the_weights_that_were_learned(q, plain):
    model, aware = plain
    twin = q.float_twin(aware, model)
    learned = {weight.name: weight.numpy() for weight in aware.weights}
    assert np.array_equal(twin.get_layer("second").get_weights()[0], learned["second/kernel:0"])
    assert not np.array_equal(
        twin.get_layer("second").get_weights()[0], model.get_layer("second").get_weights()[0]
    )


def test_a_saved_quantization_aware_network_answers_as_before(plain, tmp_path):
    from tfedge.networks.saving import load_model, save_model

    _, aware = plain
    save_model(aware, tmp_path / "model.h5")
    x = inputs()
    again = load_model(tmp_path / "model.h5")
    assert np.array_equal(again(x, training=False), aware(x, training=False))
    assert [path.name for path in tmp_path.iterdir()] == ["model.h5"]


def test_a_dense_layer_has_one_scale_and_a_convolution_one_a_channel(q, c):
    found = facts(c.to_int8(network(q), inputs(), (0.0, 1.0)), "x")
    by_rank = {
        len(tensor.shape): len(tensor.scales)
        for tensor in found.subgraphs[0].tensors
        if tensor.stored and tensor.dtype == "int8"
    }
    assert by_rank == {2: 1, 4: 8}
    assert found.inputs[0].shape == (1, 8, 8, 2)


def test_the_same_network_makes_the_same_bytes(q, c):
    one, two = (c.to_int8(network(q), inputs(), (0.0, 1.0)) for _ in "ab")
    assert one == two


def test_a_float_file_answers_as_the_network_does(q, c):
    from ai_edge_litert.interpreter import Interpreter

    model, x = network(q), inputs(4)
    run = Interpreter(model_content=c.to_float(model))
    (signature,) = run.get_signature_list()
    step = run.get_signature_runner(signature)
    found = np.concatenate([step(inputs=item[None])["logits"] for item in x])
    assert found == pytest.approx(model(x, training=False).numpy(), abs=1e-5)


def test_after_training_on_stripes_file_and_network_agree(q, c, tmp_path):
    from small_data import stripes

    from models.resnet import resnet8
    from tfedge.data.sampling import calibration
    from tfedge.networks.backend import seed_everything
    from tfedge.progress import Silent
    from tfedge.training.course import Course
    from tfedge.training.fitting import Session, fit, logits_of

    q.keras.backend.clear_session()
    seed_everything(0)
    data = stripes(test=300)
    model = resnet8(data.shape, 4, width=4)
    course = Course(epochs=6, batch=32, rate=1e-2)
    fit(model, course, Session("t", data, (), 0, tmp_path / "float", Silent()))
    samples = calibration(data, 60)
    assert q.left_alone(model) == {}
    aware = q.quantization_aware(model, samples, data.limits())
    course = Course(epochs=1, batch=32, rate=1e-4)
    session = Session("t", data, (), 0, tmp_path / "aware", Silent())
    (row,) = fit(aware, course, session, callbacks=[q.kernel_ranges(aware)])

    flatbuffer = c.to_int8(aware, samples, data.limits())
    on_tune = answers(flatbuffer, data.normalise(data.tune.inputs))[0].argmax(-1)
    assert np.mean(on_tune == data.tune.classes) == pytest.approx(row["val_accuracy"], abs=0.011)
    found = answers(flatbuffer, data.normalise(data.test.inputs))[0].argmax(-1)
    assert np.mean(found == logits_of(aware, data, data.test).argmax(-1)) >= 0.99
    assert np.mean(found == data.test.classes) > 0.9
    names = {name for name, _ in facts(flatbuffer, "x").operators}
    assert names == {"CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"}


def test_a_batchnormalization_after_an_activation_is_trained_in_float(q, c):
    def middle(x):
        layers = q.keras.layers
        return layers.BatchNormalization(name="late")(layers.Conv2D(8, 1, activation="relu")(x))

    model = network(q, middle)
    assert list(q.left_alone(model)) == ["late"]
    assert facts(c.to_int8(trained(q, model), inputs(), (0.0, 1.0)), "x").float_tensors == ()


def test_with_a_convolution_its_batchnormalization_is_left_as_well(q):
    model = network(q)
    assert q.left_alone(model, ["first"]) == {
        "first": "named in leave",
        "norm": "BatchNormalization after first, which is left, too",
    }
    aware = q.quantization_aware(model, inputs(), (0.0, 1.0), ["first"])
    kinds = {layer.name: type(layer).__name__ for layer in aware.layers}
    assert kinds["first"] == "Conv2D"
    assert kinds["quant_second"] == "QuantizeWrapperV2"


def test_to_leave_every_layer_is_refused(q):
    with pytest.raises(UserError, match="has no layer left to train in 8 bits"):
        q.quantization_aware(network(q), inputs(), (0.0, 1.0), ["*"])


def test_a_separable_convolution_is_trained_under_names_of_its_own(q, c, tmp_path):
    """Tfmot calls its halves conv2d and depthwise_conv2d, as other layers are called."""
    from tfedge.networks.saving import load_model, save_model

    layers = q.keras.layers
    q.keras.backend.clear_session()
    q.keras.utils.set_random_seed(0)
    x = given = q.keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3)(x)
    x = layers.ReLU()(layers.BatchNormalization()(layers.SeparableConv2D(6, 3, name="s")(x)))
    x = layers.GlobalAveragePooling2D()(x)
    save_model(q.keras.Model(given, layers.Dense(4)(x)), tmp_path / "m.h5")
    q.keras.backend.clear_session()
    model = load_model(tmp_path / "m.h5")
    assert model.layers[1].name == "conv2d"

    aware = trained(q, model)
    twin = q.float_twin(aware, model)
    learned = {weight.name: weight.numpy() for weight in aware.weights}
    depthwise, pointwise, bias = twin.get_layer("s").get_weights()
    assert np.array_equal(depthwise, learned["s_depthwise/depthwise_kernel:0"])
    assert np.array_equal(pointwise, learned["s/kernel:0"])
    assert np.array_equal(bias, learned["s/bias:0"])
    assert not np.array_equal(pointwise, model.get_layer("s").get_weights()[1])
    found = facts(c.to_int8(aware, inputs(), (0.0, 1.0)), "x")
    assert {name for name, _ in found.operators} >= {"CONV_2D", "DEPTHWISE_CONV_2D"}
    assert found.float_tensors == ()


def test_a_float_twin_has_every_weight_that_was_learned(q):
    model = network(q, q.keras.layers.PReLU(shared_axes=[1, 2]))
    aware = trained(q, model)
    learned = {weight.name: weight.numpy() for weight in aware.weights}
    for weight, kept in zip(model.weights, q.float_twin(aware, model).get_weights(), strict=True):
        assert np.array_equal(kept, learned[weight.name])


def test_a_network_of_1d_convolutions_is_int8_throughout(q, c):
    layers = q.keras.layers
    q.keras.backend.clear_session()
    x = given = q.keras.Input((16, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(4, 3)(x)))
    model = q.keras.Model(given, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))
    samples = np.random.default_rng(0).uniform(-3, 3, (32, 16, 3)).astype(np.float32)
    aware = q.quantization_aware(model, samples, (-4.0, 4.0))
    found = facts(c.to_int8(aware, samples, (-4.0, 4.0)), "x")
    assert found.float_tensors == ()
    assert found.inputs[0].scales == (pytest.approx(8 / 254, rel=1e-5),)


@pytest.mark.parametrize("kind", ["AveragePooling2D", "UpSampling2D"])
def test_a_layer_that_keeps_its_inputs_scale_is_int8_after_training(q, c, kind):
    layers = q.keras.layers
    q.keras.backend.clear_session()
    q.keras.utils.set_random_seed(0)
    given = q.keras.Input((8, 8, 2))
    start = layers.Conv2D(4, 3, padding="same")(given)
    x = getattr(layers, kind)(2)(start)
    x = layers.Conv2D(4, 3)(x)
    model = q.keras.Model(given, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    aware = q.quantization_aware(model, inputs(), (0.0, 1.0))
    loss = q.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    aware.compile(q.keras.optimizers.SGD(0.5), loss, run_eagerly=True)
    aware.fit(inputs(), np.arange(len(inputs())) % 4, epochs=3, verbose=0)
    assert facts(c.to_int8(aware, inputs(), (0.0, 1.0)), "x").float_tensors == ()
