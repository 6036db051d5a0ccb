import pytest
from tiny_conv import G, Op, T, model_of
from tiny_model import tiny_model

from tfedge.errors import UserError
from tfedge.tflite.gates import check_int8

SCALED = ((1 / 255,), (-128,))


def refusal(flatbuffer, limits=(0.0, 1.0)):
    with pytest.raises(UserError) as caught:
        check_int8(flatbuffer, limits, "[int8]")
    return str(caught.value)


def test_a_model_that_is_int8_throughout_passes():
    assert check_int8(tiny_model(), (0.0, 1.0), "[int8]") is None


def test_an_input_of_another_range_is_refused():
    assert "[int8]: its input covers another range than -1 to 1" in refusal(
        tiny_model(), (-1.0, 1.0)
    )


def test_a_float_tensor_in_the_middle_is_named():
    tensors = (
        T("image", "int8", (1, 4), None, *SCALED),
        T("middle", "float32", (1, 4)),
        T("answer", "int8", (1, 4), None, *SCALED),
    )
    steps = (Op("DEQUANTIZE", (0,), (1,), 2), Op("QUANTIZE", (1,), (2,)))
    assert "stays float in middle" in refusal(model_of(G("main", tensors, steps, (0,), (2,))))


def test_an_operator_of_tensorflows_own_and_a_float_end_are_named():
    tensors = (T("image", "int8", (1, 4), None, *SCALED), T("answer", "float32", (1, 4)))
    said = refusal(model_of(G("main", tensors, (Op("FlexErf", (0,), (1,)),), (0,), (1,))))
    assert "needs operators that no board has: FlexErf" in said
    assert "takes or gives float32, int8 instead of int8" in said
