import numpy as np
import pytest
from tiny_conv import G, Op, T, model_of
from tiny_model import tiny_model

from tfedge.errors import UserError
from tfedge.tflite.gates import check

SCALED = ((1 / 255,), (-128,))
LAYERS = (("in", "InputLayer"), ("swish", "Activation"), ("out", "Dense"))


def refusal(flatbuffer, form="int8", limits=(0.0, 1.0), layers=(), kept=()):
    with pytest.raises(UserError) as caught:
        check(flatbuffer, form, limits, "[int8]", layers, kept)
    return str(caught.value)


def one_step(dtype, *, scales=(), zeros=(), operator="RELU", made="net/out/Relu", ends=""):
    """Return a model of one operator from `dtype` to `dtype`, or to `ends`."""
    tensors = (
        T("image", dtype, (1, 4), None, scales, zeros),
        T(made, ends or dtype, (1, 4), None, scales, zeros),
    )
    return model_of(G("main", tensors, (Op(operator, (0,), (1,)),), (0,), (1,)))


def with_float_inside():
    tensors = (
        T("image", "int8", (1, 4), None, *SCALED),
        T("net/swish/Sigmoid", "float32", (1, 4)),
        T("net/out/MatMul", "int8", (1, 4), None, *SCALED),
    )
    steps = (Op("DEQUANTIZE", (0,), (1,), 2), Op("QUANTIZE", (1,), (2,)))
    return model_of(G("main", tensors, steps, (0,), (2,)))


def test_a_model_that_is_int8_throughout_passes():
    assert check(tiny_model(), "int8", (0.0, 1.0), "[int8]") is None


@pytest.mark.parametrize(
    ("scale", "zero", "limits", "fine"),
    [
        (1 / 255, -128, (0.0, 1.0), True),
        (1.009 / 255, -128, (0.0, 1.0), True),
        (1.011 / 255, -128, (0.0, 1.0), False),
        (0.99 / 255, -128, (0.0, 1.0), False),  # the largest pixels would be clipped
        (1 / 255, 0, (0.0, 1.0), False),  # as wide, and somewhere else
        (2 / 255, 0, (-1.0, 1.0), True),  # half a step aside, for zero's sake
        (2 / 255, -1, (-1.0, 1.0), True),
        (2 / 254, 0, (-1.0, 1.0), True),
        (2 / 255, -3, (-1.0, 1.0), False),
        (2 / 255, -128, (0.5, 2.0), True),  # zero has to be in it
        (1.5 / 255, -128, (0.5, 2.0), False),
    ],
)
def test_an_input_covers_what_it_must_and_at_most_a_hundredth_more(scale, zero, limits, fine):
    flatbuffer = tiny_model(input_scale=scale, input_zero=zero)
    if fine:
        check(flatbuffer, "int8", limits, "[int8]")
    else:
        said = refusal(flatbuffer, limits=limits)
        low, high = limits
        assert f"[int8]: its input covers another range than {low:g} to {high:g}\n" in said


def test_a_float_tensor_in_the_middle_is_named_by_its_layer():
    assert "stays float in net/swish/Sigmoid\n" in refusal(with_float_inside())
    said = refusal(with_float_inside(), layers=LAYERS)
    assert "stays float in layer 'swish' (Activation)\n" in said
    assert "replace the layer by others" in said
    assert 'form = "float16"' in said


def test_a_layer_that_hands_its_numbers_to_one_in_float_is_not_at_fault():
    tensors = (
        T("image", "int8", (1, 4), None, *SCALED),
        T("net/swish/Relu", "int8", (1, 4), None, *SCALED),
        T("net/swish/Relu1", "float32", (1, 4)),
        T("net/out/Elu", "float32", (1, 4)),
        T("made.up", "int8", (1, 4), None, *SCALED),
    )
    steps = (
        Op("RELU", (0,), (1,)),
        Op("DEQUANTIZE", (1,), (2,), 2),
        Op("ELU", (2,), (3,)),
        Op("QUANTIZE", (3,), (4,)),
    )
    said = refusal(model_of(G("main", tensors, steps, (0,), (4,))), layers=LAYERS)
    assert "stays float in layer 'out' (Dense)\n" in said


def test_a_layer_that_is_meant_to_be_float_may_be():
    check(with_float_inside(), "int8", (0.0, 1.0), "[int8]", LAYERS, kept=("swish",))
    assert "stays float" in refusal(with_float_inside(), layers=LAYERS, kept=("in",))


def test_an_operator_of_tensorflows_own_and_a_float_end_are_named():
    erf = one_step("int8", scales=SCALED[0], zeros=SCALED[1], operator="FlexErf", ends="float32",
                   made="net/swish/Erf")  # fmt: skip
    said = refusal(erf, layers=LAYERS)
    assert "operators that no board has: FlexErf, which layer 'swish' (Activation) is" in said
    assert "takes or gives float32, int8 instead of int8" in said


def test_the_ends_of_every_signature_count():
    relu = (Op("RELU", (0,), (1,)),)
    ends = tuple(T(name, "int8", (1, 4), None, *SCALED) for name in "ab")
    first = G("main", ends, relu, (0,), (1,))
    second = G("other", (T("c", "int16", (1, 4)), T("d", "int16", (1, 4))), relu, (0,), (1,))
    assert "takes or gives int16, int8 instead of int8" in refusal(model_of(first, second))


def test_16_bit_activations_take_a_symmetric_range():
    step = 1 / 32767
    fine = one_step("int16", scales=(step,), zeros=(0,))
    check(fine, "int16x8", (0.0, 1.0), "[x]")
    check(fine, "int16x8", (-1.0, 0.5), "[x]")
    assert "covers another range than 0 to 2" in refusal(fine, "int16x8", (0.0, 2.0))
    assert "takes or gives int16 instead of int8" in refusal(fine, "int8", (-1.0, 1.0))


@pytest.mark.parametrize("form", ["dynamic", "float16", "float32"])
def test_other_forms_take_and_give_float_and_need_no_operator_of_tensorflows_own(form):
    check(one_step("float32"), form, (0.0, 1.0), "[x]")
    assert "takes or gives int8 instead of float32" in refusal(tiny_model(), form)
    assert "no board has: FlexErf" in refusal(one_step("float32", operator="FlexErf"), form)


def test_only_a_few_of_many_are_listed():
    count = 9
    tensors = [T("image", "int8", (1, 4), None, *SCALED)]
    tensors += [T(f"net/l{i}/Relu", "float32", (1, 4)) for i in range(count)]
    steps = [Op("RELU", (i,), (i + 1,)) for i in range(count)]
    said = refusal(model_of(G("main", tuple(tensors), tuple(steps), (0,), (count,))))
    assert "stays float in net/l0/Relu, " in said
    assert f"and {count - 5} more" in said
    assert np.all([f"l{i}/" in said for i in range(5)])
