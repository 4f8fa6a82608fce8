SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
# Most tests keep one core busy. A process that has none left takes over half of what another one still has.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
INSTALLED := $(VENV)/.installed

.PHONY: help install serve test check format clean

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(INSTALLED) ## create .venv and install everything at the pinned versions (PYTHON=python3.11 picks the Python)
	@echo "ready: $(BIN)/nkat"

# The kernels in C++ are built by the installation; without a compiler it goes on without them.
$(INSTALLED): pyproject.toml constraints.txt $(wildcard native/*)
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("nkat needs Python 3.11 to 3.13: make install PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

serve: $(INSTALLED) ## start the server with the demo model (ARGS="--port 5002" passes flags)
	$(BIN)/nkat demo $(ARGS)

# Two threads on every machine: tests that run a model neither crowd a small machine nor change with a large one. They
# sleep at barriers: spinning beside any other process is ten times slower.
test check: export OMP_NUM_THREADS = 2
test check: export OMP_WAIT_POLICY = PASSIVE

test: $(INSTALLED) ## run all tests (ARGS="-k name" narrows them)
	$(PYTEST) $(ARGS)

check: $(INSTALLED) ## what CI runs: format, lint, types, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST)

format: $(INSTALLED) ## rewrite the code in the house format and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
