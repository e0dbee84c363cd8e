PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.mmcloformer-installed
DEMO = configs/demo/retinanet_cloformer_xxs_shapes.py
DEMO_DIR = work_dirs/demo

.PHONY: install demo test test-all lint clean-demo

install: $(STAMP)

# mmcv builds in isolation on purpose: without torch in the build environment mmcv
# installs without its compiled ops, in seconds, and mmcloformer.ops stands in for them.
$(STAMP): requirements.txt requirements/onedl.txt requirements/dev.txt setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -r requirements.txt -r requirements/dev.txt
	$(BIN)/pip uninstall --yes opencv-python
	$(BIN)/pip install --force-reinstall --no-deps `grep ^opencv-python-headless requirements/onedl.txt`
	$(BIN)/pip install --no-deps -e .
	touch $@

demo: $(STAMP)
	$(BIN)/python tools/make_shapes.py data/shapes
	$(BIN)/python tools/train.py $(DEMO) --work-dir $(DEMO_DIR)
	$(BIN)/python tools/test.py $(DEMO) `cat $(DEMO_DIR)/last_checkpoint` --work-dir $(DEMO_DIR) --show-dir pictures
	$(BIN)/python tools/plot_curves.py $(DEMO_DIR)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
