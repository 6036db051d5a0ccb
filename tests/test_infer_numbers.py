from __future__ import annotations

import os

import numpy as np
import pytest
from tiny_board import interpreted, pixels, write
from tiny_model import OUTPUT_SCALE, OUTPUT_ZERO, tiny_model


def test_pixels_of_a_plain_model_are_quantised_by_subtracting_128(infer, model):
    image = pixels()
    tensor = infer.Classifier(model).quantise(image)
    assert tensor.dtype == np.int8
    assert np.array_equal(tensor, (image.astype(int) - 128)[None])


@pytest.mark.parametrize(
    ("mean", "std", "scale", "zero"),
    [
        ([0, 0, 0], [255, 255, 255], 0.006, -100),
        ([127.5] * 3, [127.5] * 3, 0.0079, 3),
        ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4], 0.0187, -14),
        ([0, 10, 0], [1, 1, 1], 0.3, 0),  # much of it is beyond int8
        ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4], 0.0175, -14),  # a little of it
    ],
)
def test_every_pixel_value_is_quantised_as_the_formula_says(
    infer, tmp_path, mean, std, scale, zero
):
    def change(card):
        card["input"].update(mean=mean, std=std)

    shape = (256, 1, 3)
    file = write(tmp_path, shape, change=change, input_scale=scale, input_zero=zero)
    image = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    exact = (image - np.float64(mean)) / std / scale + zero
    tensor = infer.Classifier(file).quantise(image)
    assert np.abs(tensor - exact.clip(-128, 127))[0].max() <= 0.5001
    assert tensor.shape == (1, *shape)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_fast_gives_the_bytes_of_the_plain_formula(infer, tmp_path, seed):
    random = np.random.default_rng(seed)
    mean, std = random.uniform(100, 130, 3).tolist(), random.uniform(50, 60, 3).tolist()
    if seed > 5:  # where the halves between two steps are the rule
        mean, std = [127.5, 127, 126.5], [127.5] * 3

    def change(card):
        card["input"].update(mean=mean, std=std)

    scale = 2 / 255 if seed > 5 else 255 / (50 * random.uniform(200, 256))
    file = write(tmp_path, (256, 2, 3), change=change, input_scale=scale, input_zero=seed - 9)
    classifier, image = infer.Classifier(file), pixels(seed, (256, 2, 3))
    image[:, 0] = np.arange(256)[:, None]
    plain = classifier._normalise(image.astype(np.float32))
    assert np.array_equal(classifier.quantise(image)[0], plain)
    assert np.array_equal(classifier.quantise(image[::-1])[0], plain[::-1])


def test_a_picture_need_not_lie_in_order_in_memory(infer, model):
    classifier, image = infer.Classifier(model), pixels()
    turned = np.asfortranarray(image)
    flipped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    for each in (turned, flipped):
        assert np.array_equal(classifier.raw(each), classifier.raw(image))


def test_arrays_are_normalised_and_quantised(infer, tmp_path):
    def change(card):
        card["input"].update(mean=[1, -2], std=[0.5, 4])

    file = write(tmp_path, (5, 2), change=change, input_scale=0.04, input_zero=10)
    x = np.random.default_rng(0).normal(0, 2, (5, 2)).astype(np.float32)
    x[0] = [np.inf, -np.inf]
    exact = ((x.astype(float) - [1, -2]) / [0.5, 4]) / 0.04 + 10
    tensor = infer.Classifier(file).quantise(x)
    assert np.abs(tensor[0] - exact.clip(-128, 127)).max() <= 0.5001


def test_the_answer_is_the_runtimes_dequantised_and_shared_out(infer, model):
    classifier, image = infer.Classifier(model), pixels(5)
    raw = interpreted(tiny_model(), (image.astype(int) - 128).astype(np.int8)[None])
    logits = (raw.astype(float) - OUTPUT_ZERO) * OUTPUT_SCALE
    shares = np.exp(logits) / np.exp(logits).sum()
    assert np.array_equal(classifier.raw(image), raw)
    assert classifier.raw(image).dtype == np.int8
    assert classifier.logits(image).dtype == np.float32
    assert classifier.logits(image) == pytest.approx(logits, rel=1e-6)
    best = sorted(zip(["cat", "dog", "eel"], shares, strict=True), key=lambda pair: -pair[1])
    found = classifier.classify(image, 3)
    assert [label for label, _ in found] == [label for label, _ in best]
    assert [share for _, share in found] == pytest.approx([share for _, share in best], rel=1e-5)
    assert classifier.classify(image, 2) == found[:2]
    assert classifier.classify(image, 99) == found


def test_answers_do_not_change_once_given(infer, model):
    classifier = infer.Classifier(model)
    first = classifier.raw(pixels(1))
    kept, tensor = first.copy(), classifier.quantise(pixels(1))
    again = tensor.copy()
    classifier.raw(pixels(2))
    assert np.array_equal(first, kept)
    assert np.array_equal(tensor, again)


def test_a_classifier_says_what_it_is(infer, model):
    classifier = infer.Classifier(str(model))
    assert classifier.labels == ["cat", "dog", "eel"]
    assert classifier.shape == (4, 4, 3)
    assert classifier.card["made_by"]["pipeline"] == "tiny"
    assert classifier.runtime.startswith("ai-edge-litert 2.")


@pytest.mark.parametrize("wanted", [0, 1, 10_000])
def test_threads_are_no_more_than_the_usable_cores(infer, model, wanted):
    usable = len(os.sched_getaffinity(0))
    assert infer.Classifier(model, wanted).threads == min(wanted or 4, usable)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"expected uint8 \(4, 4, 3\), got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), r"expected uint8 \(4, 4, 3\), got float32 \(4, 4, 3\)"),
    ],
)
def test_a_wrong_shape_or_type_is_refused(infer, model, x, message):
    with pytest.raises(infer.ModelError, match=message):
        infer.Classifier(model).raw(x)


def test_nan_is_refused(infer, tmp_path):
    with pytest.raises(infer.ImageError, match="it holds NaN; fill the gaps first"):
        infer.Classifier(write(tmp_path, (5, 2))).raw(np.full((5, 2), np.nan, np.float32))
