# Both start from a fresh clone on a machine with Python 3.11 to 3.13 and make.
#   make demo    handwritten digits to an int8 .tflite, and a few of them read back with it
#   make test    every test;  make fast  those that take half a minute;  make lint  style and types
#   make test-long  those that take many minutes each: killed builds, large networks
# Some tests run on an emulated Pi, which apt-get and pip fetch into ~/.cache/tfedge; they need cc.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

demo: $(INSTALLED)
	$(BIN)/tfedge build pipelines/digits.toml
	$(BIN)/python pipelines/digits.py build/digits/held_out
	$(BIN)/python device/infer.py build/digits/digits.tflite --selftest
	$(BIN)/python device/infer.py build/digits/digits.tflite build/digits/held_out

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=90

test-long: $(INSTALLED)
	$(BIN)/python -m pytest -m very_slow

fast: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[examples]" --group dev
	$(BIN)/python -m pip install --quiet --no-deps --target .venv/tflite-runtime \
	    'tflite-runtime == 2.14.0; python_version < "3.12"' "numpy < 2"  # boards of 32 bits have it
	touch $@

clean:
	rm -rf build .venv .mypy_cache .pytest_cache .ruff_cache

.PHONY: demo test test-long fast lint clean
