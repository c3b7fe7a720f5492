PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A worker to each core and one for where they wait; one takes 1.3 GiB
SPREAD := -n $(shell $(PYTHON) -c "import os; print(min(4, (os.cpu_count() or 1) + 1))")

.PHONY: demo test lint opencv4 docs fuzz format clean

$(VENV)/.installed: pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --progress-bar off -e '.[dev]'
	$(BIN)/python -c "import torch, torchvision; torchvision.ops.nms; print('torch', torch.__version__, 'torchvision', torchvision.__version__)"
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/opencv4 'opencv-python-headless<5'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/yolomish demo --out runs/demo

test: $(VENV)/.installed
	$(MAKE) --no-print-directory --jobs=2 lint opencv4
	$(BIN)/python -m pytest $(SPREAD) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

opencv4: $(VENV)/.installed  # OpenCV 5 has no Darknet reader
	PYTHONPATH=$(VENV)/opencv4 $(BIN)/python -m pytest $(SPREAD) -k opencv tests/test_darknet*.py tests/test_convert.py tests/test_export.py

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --progress-bar off -e '.[docs]'
	touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fuzz: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python benchmarks/fuzz.py --examples 10000

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf runs build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
