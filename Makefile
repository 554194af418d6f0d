# Each target works on a fresh clone: the first one makes the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: install demo test lint bench results clean

install: $(STAMP)

# A full environment for development; constraints.txt holds what was tested.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'jaxprune needs Python 3.11 or newer; try: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,export]'
	touch $@

demo: install
	$(BIN)/python -m experiments.main --config=experiments/configs/ltp_digits.py --workdir=runs/ltp_digits

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: install
	$(BIN)/python -m experiments.benchmarks.training_step

clean:
	rm -rf $(VENV) runs data
