# Two commands on a machine with Python 3.11 or later and make: `make curves` and `make test`.
PYTHON ?= $(shell command -v python3 || command -v python)
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: help setup setup-dev setup-peer curves experiments benchmarks test test-all lint clean

help:
	@echo 'make curves     the main job on the embedded data: trains 4 networks, draws runs/curves/curves.png'
	@echo 'make experiments  every experiment on the embedded data, and the report: runs/all/report.html'
	@echo 'make benchmarks speed and memory beside PyTorch and plain Flax: runs/benchmarks/*.csv'
	@echo 'make test       sets up and runs the tests'
	@echo 'make test-all   the long tests, too, and those that compare with PyTorch'
	@echo 'make lint       ruff and mypy'
	@echo 'make setup      the environment in $(VENV), with this checkout: import resnet_flax, and resnet-flax, anywhere'

curves: setup
	$(RUN) -m experiments.plain_vs_residual --config=configs/digits.py --depths=20,56 --seeds=0 --workdir=runs/curves

experiments: setup
	$(RUN) -m experiments.all --config=configs/digits.py --workdir=runs/all

# What a machine can do, on a CPU in about half an hour; on a GPU networks, batches and dtypes are more.
benchmarks: setup-peer
	for name in train_step convolution compile_time memory input pipeline roofline scaling time_to_figure; do \
	  $(RUN) -m benchmarks.$$name --output=runs/benchmarks/$$name.csv || exit $$?; done

# A worker that dies ends the tests: pytest-xdist would go on in another one, and wait forever for the tests it lost.
PYTEST := $(RUN) -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart=0 --durations=15

test: setup-dev
	$(PYTEST) -m 'not slow'

test-all: setup-peer
	$(PYTEST)

lint: setup-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

setup: $(VENV)/requirements.done $(VENV)/checkout.done
setup-dev: setup $(VENV)/requirements-dev.done
setup-peer: setup-dev $(VENV)/requirements-peer.done

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo 'error: no python3 found; install Python 3.11 or later' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version); Python 3.11 or later is needed: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.done: %.txt requirements.txt requirements-dev.txt | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --progress-bar=off -r $<
	@touch $@

$(VENV)/requirements-peer.done: $(VENV)/requirements-dev.done

# The checkout itself: the package is then found from any folder, and so is the command resnet-flax.
$(VENV)/checkout.done: pyproject.toml | $(VENV)/requirements.done
	$(RUN) -m pip install --quiet --disable-pip-version-check --progress-bar=off --no-deps --editable .
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
