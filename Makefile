# Each target works on a fresh clone: the first one makes the environment.
PYTHON ?= python3
VENV := .venv
DOCS := .venv-docs
BIN := $(VENV)/bin
RUNS := $(VENV)/.experiments
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-newest test-mutants docs-check lint bench results docs dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv with everything that development needs

# constraints.txt holds what was tested. The experiments need less than development.
# Most of what is installed is never imported: compiling it would take half of the time.
PIP_FLAGS := --quiet --no-compile --constraint constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install $(PIP_FLAGS)

$(RUNS): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'jaxprune needs Python 3.11 or newer; try: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable '.[experiments]'
	touch $@

$(STAMP): $(RUNS)
	$(PIP_INSTALL) --editable '.[dev,export]'
	touch $@

demo: $(RUNS) ## prune a small network on digits; the report is in runs/digits/garrote
	$(BIN)/python -m experiments train --config=digits/garrote --workdir=runs/digits/garrote \
	  --config.phases.prune=14 --config.phases.finetune=6

test: install ## run the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: install ## run the rows that `test` leaves out: full networks, 300 random ones
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

test-newest: ## run a broad part of the tests on a newer Python with the newest jax
	.ci/newest

test-mutants: install ## plant faults in the core modules, and list those that no test sees
	$(BIN)/python -m tests.mutation

docs-check: install ## print what share of the public functions documents what
	$(BIN)/python -m tests.support.docstrings

lint: install ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: install ## measure what methods cost and what compact networks gain
	$(BIN)/python -m experiments bench suite --out=runs/bench.json

results: $(RUNS) ## write the tables of docs/results/ again, from the files beside them
	for name in $(filter-out %_recorded,$(basename $(notdir $(wildcard docs/results/*.csv)))); do \
	  case $$name in *_flow) times=--times;; *) times=;; esac; \
	  $(BIN)/python -m experiments table --name=$$name $$times || exit 1; \
	done

$(DOCS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install $(PIP_FLAGS) --editable '.[docs]'
	touch $@

docs: $(DOCS)/.installed ## build the documentation into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet

$(VENV)/.dist: $(STAMP)
	$(PIP_INSTALL) --editable '.[dist]'
	touch $@

dist: $(VENV)/.dist ## build the wheel and the source distribution into dist/, and check them
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean: ## remove the environments, and what builds, runs and downloads left
	rm -rf $(VENV) $(DOCS) .venv-newest build dist site runs data
