"""BatchNormalization's statistics, held and estimated, in float and in tfmot's wrappers."""

import numpy as np
import pytest
from small_data import stripes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def b():
    from tfedge.training import batchnorm

    return batchnorm


def network(b):
    from tfedge.networks.backend import seed_everything

    b.keras.backend.clear_session()
    seed_everything(0)
    layers = b.keras.layers
    x = inputs = b.keras.Input((8, 8, 1))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, use_bias=False, name="conv")(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    x = layers.BatchNormalization(name="late")(x)
    return b.keras.Model(inputs, layers.Dense(4)(x))


def aware(b):
    from tfedge.training.quantization import quantization_aware

    data = stripes()
    return quantization_aware(network(b), data.normalise(data.tune.inputs[:32]), data.limits())


def trained(b, model, epochs=1):
    data = stripes()
    loss = b.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(b.keras.optimizers.Adam(0.01), loss)
    x = data.normalise(data.train.inputs)
    model.fit(x, data.train.classes, epochs=epochs, batch_size=64, verbose=0)
    return model


def batches(count=4):
    data = stripes()
    x = data.normalise(data.train.inputs).reshape(count, -1, 8, 8, 1).astype(np.float32)
    return [(part, None) for part in x]


@pytest.mark.parametrize("make", [network, aware])
def test_held_statistics_stay_while_weights_scale_and_offset_are_learned(b, make):
    model = make(b)
    trainable = [layer.trainable for layer in model.layers]
    before = {w.name: w.numpy() for w in model.weights}
    with b.held_statistics(model):
        trained(b, model)
    after = {w.name: w.numpy() for w in model.weights}
    assert [layer.trainable for layer in model.layers] == trainable
    for name in ("norm/moving_mean:0", "norm/moving_variance:0", "late/moving_mean:0"):
        assert np.array_equal(before[name], after[name])
    assert not np.array_equal(before["conv/kernel:0"], after["conv/kernel:0"])
    if make is aware:
        assert not np.array_equal(before["norm/gamma:0"], after["norm/gamma:0"])
    trained(b, model)
    (mean,) = (w.numpy() for w in model.weights if w.name == "norm/moving_mean:0")
    assert not np.array_equal(before["norm/moving_mean:0"], mean)


def test_estimated_statistics_are_the_means_over_the_batches(b):
    model = trained(b, network(b))
    conv = b.keras.Model(model.inputs, model.get_layer("conv").output)
    outputs = [conv(x).numpy() for x, _ in batches()]
    b.estimate(model, batches())
    norm = model.get_layer("norm")
    means = [out.mean(axis=(0, 1, 2)) for out in outputs]
    variances = [out.var(axis=(0, 1, 2), ddof=1) for out in outputs]  # as the fused kernel has it
    assert norm.moving_mean.numpy() == pytest.approx(np.mean(means, axis=0), rel=1e-4, abs=1e-6)
    assert norm.moving_variance.numpy() == pytest.approx(np.mean(variances, axis=0), rel=1e-4)


@pytest.mark.parametrize("make", [network, aware])
def test_estimating_changes_the_statistics_alone(b, make):
    model = trained(b, make(b), epochs=2)
    before = {w.name: w.numpy() for w in model.weights}
    momenta = [layer.momentum for layer in b.normalisations(model)]
    b.estimate(model, batches())
    changed = {w.name for w in model.weights if not np.array_equal(w.numpy(), before[w.name])}
    assert changed == {n for n in before if "moving_" in n}
    assert [layer.momentum for layer in b.normalisations(model)] == momenta
