"""What training in 8 bits leaves of zeros and shared values, layer by layer."""

import numpy as np
import pytest
from compressed import COUNTS, SPARSE, compressed_network, file_kernels, kernels_of

pytestmark = pytest.mark.slow

LIMITS = (0.0, 1.0)


def inputs(count=64):
    return np.random.default_rng(0).uniform(0, 1, (count, 8, 8, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def made():
    """The network before, its quantization-aware twin after a short training, and what it learned.

    The depthwise layer is left in float.
    """
    from tfedge.networks.kernels import kernels
    from tfedge.training.preserving import Preserving
    from tfedge.training.quantization import float_twin, measure_kernels, quantization_aware

    before = compressed_network()
    aware = quantization_aware(before, inputs(), LIMITS, leave=["depthwise"])
    aware.compile("adam", "mse")
    y = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32)
    kept = Preserving(kernels(aware).values())
    aware.fit(inputs(), y, batch_size=16, epochs=3, verbose=0, callbacks=[kept])
    measure_kernels(aware)
    return before, aware, float_twin(aware, before)


def pairs(made):
    old, new = kernels_of(made[0]), kernels_of(made[2])
    return {name: (old[name].numpy(), new[name].numpy()) for name in old}


def test_weights_that_were_zero_are_zero_and_no_others_are(made):
    for name, (old, new) in pairs(made).items():
        assert np.array_equal(old == 0, new == 0), name
        assert np.mean(new == 0) == pytest.approx(0.5 * (name in SPARSE), abs=0.05), name


def test_weights_that_were_equal_are_equal_at_a_value_that_was_learned(made):
    for name, count in COUNTS.items():
        old, new = pairs(made)[name]
        assert np.unique(new).size == np.unique(old).size == count
        for value in np.unique(old):
            assert np.unique(new[old == value]).size == 1
            assert (new[old == value] != value).all() == (value != 0)


def test_weights_beside_them_are_trained_one_by_one(made):
    old, new = pairs(made)["whole"]
    assert np.unique(new).size == new.size
    assert (old != new).all()


def test_the_whole_kernel_of_a_file_has_so_many_numbers_not_each_channel_others(made):
    from tfedge.tflite.conversion import to_int8

    first, *others = file_kernels(to_int8(made[1], inputs(), LIMITS))
    assert first.shape == (16, 3, 3, 2)
    assert np.unique(first).size <= COUNTS["first"]
    separable = next(kernel for kernel in others if kernel.shape == (16, 1, 1, 16))
    assert np.unique(separable).size <= COUNTS["separable"]
    assert np.mean(separable == 0) >= 0.49


def test_a_clusters_value_moves_by_the_mean_of_what_its_weights_would():
    from tfedge.networks.backend import keras
    from tfedge.training.preserving import Preserving

    layer = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.layers.InputLayer((4,)), layer])
    layer.set_weights([np.float32([[1, 2], [1, 2], [0, 1], [2, 0]])])
    kept = Preserving([layer.kernel])
    layer.kernel.assign_add(np.float32([[0.1, 1], [0.2, 2], [5, 0.3], [3, 5]]))
    kept.on_train_batch_end(0)
    expected = np.float32([[1.2, 4], [1.2, 4], [0, 1.2], [4, 0]])
    assert model.get_weights()[0] == pytest.approx(expected, abs=1e-6)
