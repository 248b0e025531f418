# Every target builds the environment it needs from nothing: `make demo` and `make test` are all a newcomer types.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP_OF  = $(1)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PIP    := $(call PIP_OF,$(VENV))

.PHONY: demo test lint docs figures release-check test-matrix bench-loss bench-digits bench-alarms bench-diagnosis bench-views bench-cuda kernels bench-methods bench-step bench-collapse clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 numpy
	$(PIP) -e '.[train]'
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

# Two processes of one thread each: the tests are small, and threads that wait for each other are slow on a shared machine.
test: lint  ## format, lint, types, layers and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=10

docs: $(VENV)/.installed-test  ## the documentation, strictly, into build/site; open its index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "documentation: build/site/index.html"

figures: $(VENV)/.installed  ## draw the figures of the documentation again; needs runs/demo
	$(BIN)/python docs/_site/figures.py

# PYTHON:TORCH pairs; those whose Python is not here are left out, a TORCH that is left out is the newest.
MATRIX ?= python3.10:2.6.0 python3.11:2.13.0 python3.12:2.9.0 python3.13:
test-matrix:  ## the tests of the loss, dictionaries, options and theory on several Pythons and torches
	@for pair in $(MATRIX); do \
	  python=$${pair%%:*}; torch=$${pair#*:}; home=build/matrix/$$python-$${torch:-newest}; \
	  command -v $$python > /dev/null || { echo "$$pair: no $$python here"; continue; }; \
	  $$python -m venv $$home \
	  && $$home/bin/python -m pip install --quiet --disable-pip-version-check torch$${torch:+==$$torch} '.[train]' pytest hypothesis \
	  && OMP_NUM_THREADS=1 $$home/bin/python -m pytest -q -W default -p no:cacheprovider \
	    tests/core tests/config tests/dictionary tests/losses/falcon \
	  && echo "$$pair: passed" || exit 1; \
	done

# Some minutes, so not a part of `make test`, whose tests/test_install.py installs the wheel beside links to its three packages.
release-check:  ## build wheel and sdist, install each into an empty environment, use what is there
	rm -rf build/dist build/release && $(PYTHON) -m venv build/release/build
	build/release/build/bin/python -m pip install --quiet --disable-pip-version-check build
	build/release/build/bin/python -m build --outdir build/dist .
	$(PYTHON) -m venv build/release/core && $(PYTHON) -m venv build/release/train
	$(call PIP_OF,build/release/core) torch==2.13.0 $$(ls build/dist/*.whl)
	cd build/release && core/bin/python -c "import torch, falcon_ssl as f; u = torch.eye(64); \
	  print(f.FalconLoss(f.RademacherDictionary(1024, 64))(u, u).as_floats(), f.diagnose(f.Features(z=torch.randn(500, 64))).sentence)"
	$(call PIP_OF,build/release/train) torch==2.13.0 "$$(ls build/dist/*.tar.gz)[train]"
	cd build/release && train/bin/falcon-ssl --version && train/bin/falcon-ssl demo --out demo --overwrite

bench-loss: $(VENV)/.installed  ## time and memory of the loss at every size, and against the number of views
	$(BIN)/python benchmarks/loss.py
	$(BIN)/python benchmarks/many_views.py

bench-digits: $(VENV)/.installed  ## dictionaries on the digits, three seeds each
	$(BIN)/python benchmarks/digits.py

bench-alarms: $(VENV)/.installed  ## what the alarms cost of a training step
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/alarms.py

bench-diagnosis: $(VENV)/.installed  ## time, memory, detections and false alarms of the diagnosis
	$(BIN)/python benchmarks/diagnosis.py

bench-cuda: $(VENV)/.installed  ## loss, steps, waits and launches on a GPU, in under five minutes
	$(BIN)/python benchmarks/cuda.py

kernels: $(VENV)/.installed-test  ## compile the Triton kernels for A100 and H100, without either; half an hour
	$(BIN)/python benchmarks/kernels.py

bench-methods: $(VENV)/.installed  ## what a step of every method costs, side by side
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/methods.py

bench-collapse: $(VENV)/.installed  ## how hard every loss pulls a collapsed network apart
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/collapse_gradients.py

bench-step: $(VENV)/.installed  ## where the time of a whole training step goes
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/step.py

bench-views: build/bench/.installed  ## images a second against Pillow, kornia and lightly
	build/bench/bin/python benchmarks/views.py

# lightly, torchvision and kornia are needed by this benchmark alone.
build/bench/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv build/bench
	build/bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 numpy
	build/bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]' lightly kornia
	touch $@

clean:
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache
