# Every target builds the environment it needs from nothing: `make demo` and `make test` are all a newcomer types.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 numpy
	$(PIP) -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -e '.[test]'
	touch $@

demo: $(VENV)/.installed  ## pretrain on real digits, evaluate, diagnose, write runs/demo/report.html
	$(BIN)/falcon-ssl demo --overwrite

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint  ## format, lint, types, layers and all tests
	$(BIN)/python -m pytest -q --durations=10

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
