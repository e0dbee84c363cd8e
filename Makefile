PYTHON ?= python3
VENV ?= .venv
# Which of the two host stacks: onedl (the maintained fork) or openmmlab (upstream).
STACK ?= onedl
# Which torch: torch (the default) or torch-oldest.
TORCH ?= torch
BIN = $(VENV)/bin
# OpenMP threads that spin while they wait make two processes on two cores ten times slower.
export OMP_WAIT_POLICY = PASSIVE
STAMP = $(VENV)/.mmcloformer-installed
BOARDS = $(VENV)/.boards-installed
DEMO = configs/demo/retinanet_cloformer_xxs_shapes.py
DEMO_DIR = work_dirs/demo

.PHONY: install demo demo-all lint test test-slow test-nightly test-upstream test-oldest test-newest-python

install: $(STAMP)

# mmcv builds in isolation on purpose: without torch in the build environment mmcv
# installs without its compiled ops, in seconds, and mmcloformer.compat.mmcv_ops stands in for them.
REQUIREMENTS = requirements/$(TORCH).txt requirements/$(STACK).txt requirements/deploy.txt requirements/dev.txt
$(STAMP): $(REQUIREMENTS) setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(REQUIREMENTS:%=-r %)
	$(BIN)/pip uninstall --yes opencv-python
	$(BIN)/pip install --force-reinstall --no-deps `grep ^opencv-python-headless requirements/$(STACK).txt`
	$(BIN)/pip install --no-deps -e .
	touch $@

# The runtimes for phones and boards, which only slow tests use.
$(BOARDS): requirements/boards.txt $(STAMP)
	$(BIN)/pip install -r requirements/boards.txt
	touch $@

demo: $(STAMP)
	$(BIN)/python tools/dataset_converters/make_shapes.py data/shapes
	$(BIN)/python tools/train.py $(DEMO) --work-dir $(DEMO_DIR)
	$(BIN)/python tools/test.py $(DEMO) `cat $(DEMO_DIR)/last_checkpoint` --work-dir $(DEMO_DIR) --show-dir pictures
	$(BIN)/python tools/analysis_tools/plot_curves.py $(DEMO_DIR)

demo-all: $(STAMP)
	$(BIN)/python tools/dataset_converters/make_shapes.py data/shapes
	$(BIN)/python tools/misc/demo_all.py

# One process per core, each with one thread. A file stays in one process, so that its fixtures
# (trained models) are made once; files start in the order in which tests/conftest.py sorts them.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

test: $(STAMP)
	$(PYTEST) -m "not slow" $(TESTS)

# The fast tests in other environments, or the part of them that TESTS names.
test-upstream:
	$(MAKE) test VENV=.venv-upstream STACK=openmmlab

# The lowest torch on the lowest Python, and the highest Python.
test-oldest:
	$(MAKE) test VENV=.venv-oldest PYTHON=python3.10 TORCH=torch-oldest

test-newest-python:
	$(MAKE) test VENV=.venv-newest-python PYTHON=python3.13

test-slow: $(BOARDS)
	$(PYTEST) -m "slow and not nightly"

test-nightly: $(BOARDS)
	$(PYTEST) -m nightly

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile
