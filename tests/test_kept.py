"""What `convert` says of zeros and shared values, held against the file's own numbers."""

import numpy as np
import pytest
from compressed import COUNTS, SPARSE, compressed_network, file_kernels, kernels_of

pytestmark = pytest.mark.slow

LIMITS = (0.0, 1.0)
SHAPES = {"first": (16, 3, 3, 2), "separable": (16, 1, 1, 16), "answer": (4, 8)}


def inputs(count=64):
    return np.random.default_rng(0).uniform(0, 1, (count, 8, 8, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def k():
    from tfedge.tflite import kept

    return kept


def converted(k, model, repairs=(), form="int8"):
    """Convert a network; return the figures, the notes and, by layer, the file's kernels."""
    from tfedge.tflite.conversion import convert
    from tfedge.tflite.names import of_network

    made = convert(model, form, inputs(), LIMITS)
    by_shape = {kernel.shape: kernel for kernel in file_kernels(made)}
    kernels = {name: by_shape[shape] for name, shape in SHAPES.items() if shape in by_shape}
    return *k.kept(k.compressed(compressed_network()), made, of_network(model), repairs), kernels


def most(kernel):
    return max(np.unique(channel).size for channel in kernel)


def test_a_network_is_seen_to_share_values_and_to_be_sparse_by_its_weights_alone(k):
    model = compressed_network()
    found = {one.layer: one for one in k.compressed(model)}
    assert set(found) == {*COUNTS, *SPARSE}
    for name, kernel in kernels_of(model).items():
        if name in found:
            zeros = int(np.sum(kernel.numpy() == 0)) if name in SPARSE else 0
            assert (found[name].clusters, found[name].zeros) == (COUNTS.get(name, 0), zeros)


def test_the_figures_count_the_files_own_numbers(k):
    figures, notes, kernels = converted(k, compressed_network())
    assert figures["clusters"] == {name: most(kernels[name]) for name in COUNTS}
    assert all(figures["clusters"][name] <= count for name, count in COUNTS.items())
    assert np.mean(kernels["separable"] == 0) >= 0.49
    # One range for each channel, and BatchNormalization between them: numbers differ by channel.
    assert np.unique(kernels["first"]).size > COUNTS["first"]
    at_most = max(figures["clusters"].values())
    assert notes == [
        f"kept in the file: the shared values of 2 layers ({at_most} a channel at most)"
        " and the zeros of 3 layers"
    ]


def test_what_a_repair_loses_is_named_with_the_repair(k):
    from tfedge.networks.equalisation import equalised
    from tfedge.networks.separable import split_separable

    model = equalised(split_separable(compressed_network()))
    figures, notes, kernels = converted(k, model, ("equalise",))
    grown = most(kernels["separable"])
    assert grown > COUNTS["separable"]
    assert figures["clusters"]["separable"] == grown
    assert f"separable: 6 values became {grown} in a channel of the file; equalisation" in notes[1]
    assert "1 layer (" in notes[0]


def test_zeros_and_values_that_another_network_lost_are_named(k):
    from tfedge.networks.backend import keras

    other = compressed_network()
    rng = np.random.default_rng(0)
    for kernel in kernels_of(other).values():
        kernel.assign(np.copysign(rng.uniform(0.5, 1, kernel.shape), rng.normal(size=kernel.shape)))
    assert isinstance(other, keras.Model)
    _, notes, kernels = converted(k, other)
    zeros = int(np.sum(kernels["answer"] == 0))
    assert zeros == 0
    assert "answer: 16 zeros became 0 in the file" in notes[-1]
    assert f"first: 8 values became {most(kernels['first'])} in a channel of the file" in notes
    assert not any(note.startswith("kept") for note in notes)


def test_a_kernel_that_is_not_found_is_not_called_kept(k):
    from tfedge.tflite.conversion import convert

    made = convert(compressed_network(), "int8", inputs(), LIMITS)
    before = [k.Compressed("elsewhere", 10, 4, 0)]
    assert k.kept(before, made, ()) == (
        {},
        ["elsewhere: not found in the file, so what it kept is not known"],
    )


def test_one_range_for_a_dense_layer_is_named_where_batchnormalization_follows(k):
    from compressed import compressed

    from tfedge.networks.backend import keras
    from tfedge.tflite.conversion import convert
    from tfedge.tflite.names import of_network

    layers = keras.layers
    given = keras.Input((8, 8, 2))
    x = layers.Dense(8, name="hidden")(layers.GlobalAveragePooling2D()(given))
    x = layers.Dense(16, name="wide")(x)
    model = keras.Model(given, layers.BatchNormalization(name="norm")(x))
    kernel = model.get_layer("wide").kernel
    kernel.assign(compressed(kernel.numpy(), 4, sparse=False))
    gamma = np.linspace(0.5, 2, 16).astype(np.float32)
    model.get_layer("norm").set_weights([gamma, 0 * gamma, 0 * gamma, gamma])
    made = convert(model, "int8", inputs(), LIMITS)
    figures, notes = k.kept(k.compressed(model), made, of_network(model))
    found = np.unique(next(f for f in file_kernels(made) if f.shape == (16, 8))).size
    assert found > 4
    assert figures == {"clusters": {"wide": found}}
    assert notes == [
        f"wide: 4 values became {found} in the file;"
        " BatchNormalization gives each output channel a factor of its own"
    ]


def test_a_network_that_was_not_compressed_has_nothing_to_keep(k):
    from tfedge.networks.backend import keras

    given = keras.Input((8, 8, 2))
    assert k.compressed(keras.Model(given, keras.layers.Conv2D(4, 3)(given))) == []
    assert k.kept([], b"", ()) == ({}, [])
