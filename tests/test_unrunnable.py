"""A network whose int8 file the runtime refuses: its channels' scales are too far apart."""

import numpy as np
import pytest
from hard_model import READER, SCALED, hard_model, scale
from small_data import stripes

from tfedge.errors import CheckError, UserError
from tfedge.tflite import gates
from tfedge.tflite.wishes import Wishes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data():
    return stripes(train=512, tune=200, test=20)


@pytest.fixture(scope="module")
def model(data):
    made = hard_model(data, spread=1.0)
    scale(made, np.where(np.arange(16) % 2, 1e6, 1.0))
    return made


def converted(model, data, **wishes):
    from tfedge.tflite.making import Conversion

    return Conversion(model, data, "[small]", Wishes(**wishes)).run()


def test_it_is_refused_with_the_settings_that_help(model, data):
    with pytest.raises(UserError, match="the runtime cannot run what the network became") as caught:
        converted(model, data)
    said = str(caught.value)
    assert 'write repair = "auto" or max_drop = 0.01 with fallback = "int16x8"' in said
    assert 'form = "int8"' not in said


def test_auto_repairs_it_and_counts_what_does_not_run_as_nothing_right(model, data):
    made = converted(model, data, repair="auto")
    assert gates.why_not(made.flatbuffer) == ""
    assert made.figures["trials"]["none"] == 0
    assert max(made.figures["trials"].values()) > 0.9


@pytest.mark.parametrize("repair", ["ranges", "biases"])
def test_a_repair_that_does_not_help_is_refused_with_one_that_may(model, data, repair):
    with pytest.raises(UserError, match='write repair = "auto"'):
        converted(model, data, repair=repair)


def test_a_fallback_takes_the_layers_at_fault_out(model, data):
    made = converted(model, data, max_drop=0.02, fallback="float")
    assert gates.why_not(made.flatbuffer) == ""
    assert set(made.figures["kept_out"]) == {SCALED, READER}
    assert "host_time_ratio" not in made.figures
    assert "the runtime does not run it" in made.figures["notes"][0]


def test_a_fallback_that_does_not_help_is_named(model, data):
    with pytest.raises(CheckError, match='fallback = "float"'):
        converted(model, data, max_drop=0.02, fallback="int16x8")
