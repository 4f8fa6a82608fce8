SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --log $(VENV)/install.log -c constraints.txt
# Most tests keep one core busy. A process that has none left takes over half of what another one still has.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
INSTALLED := $(VENV)/.installed

.PHONY: help install serve test quick check mutants fuzz sanitize format clean

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(INSTALLED) ## create .venv and install everything at the pinned versions (PYTHON=python3.11 picks the Python)
	@echo "ready: $(BIN)/nkat"

# Without the C++ kernels the server runs, slowly, so `make install` and `make serve` go on without them and say so. A run
# of the tests does not (NKAT_REQUIRE_NATIVE=1), unless NKAT_NATIVE=0 leaves them out on purpose.
$(INSTALLED): pyproject.toml constraints.txt $(wildcard native/*)
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("nkat needs Python 3.11 to 3.13: make install PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/install.log
	$(PIP_INSTALL) -e '.[dev]' || { \
		grep -q 'CMake build failed\|CMake configuration failed' $(VENV)/install.log || exit 1; \
		why=$$(grep -m 3 -E ': (fatal )?error: |CMake Error|No CMAKE_CXX_COMPILER' $(VENV)/install.log | sed -E 's/^[^ ]+ +/  /'); \
		hint="Install a C++20 compiler (Debian, Ubuntu: g++), then: make -B install"; \
		if [ "$${NKAT_REQUIRE_NATIVE:-}" = 1 ]; then \
			printf 'nkat: the C++ kernels could not be built:\n%s\n%s\n' "$$why" "$$hint"; exit 1; \
		fi; \
		NKAT_NATIVE=0 $(PIP_INSTALL) --quiet -e '.[dev]'; \
		echo "nkat: installed WITHOUT the C++ kernels, which make the CPU several times faster. They could not be built:"; \
		printf '%s\n%s\n' "$$why" "$$hint"; \
	}
	@touch $@

serve: $(INSTALLED) ## start the server with the demo model (ARGS="--port 5002" passes flags)
	$(BIN)/nkat demo $(ARGS)

# Two threads on every machine: tests that run a model neither crowd a small machine nor change with a large one. They
# sleep at barriers: spinning beside any other process is ten times slower.
test quick check mutants fuzz sanitize: export OMP_NUM_THREADS = 2
test quick check mutants fuzz sanitize: export OMP_WAIT_POLICY = PASSIVE
ifneq ($(NKAT_NATIVE),0)
test quick check mutants fuzz: export NKAT_REQUIRE_NATIVE = 1
endif

test: $(INSTALLED) ## run all tests (ARGS="-k name" narrows them)
	$(PYTEST) $(ARGS)

quick: $(INSTALLED) ## run the tests that a change usually breaks, in about 90 seconds
	$(PYTEST) -m "not slow" $(ARGS)

check: $(INSTALLED) ## what CI runs: format, lint, types, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) --durations=20 $(ARGS)

mutants: $(INSTALLED) ## put faults into a copy of the code and see which tests notice (ARGS="-k name" narrows them)
	$(BIN)/python -m tests.mutants $(ARGS)

fuzz: $(INSTALLED) ## load and run thousands of damaged model files (ARGS="--count 1 --seed N" repeats one)
	$(BIN)/python -m tests.fuzz_files $(ARGS)

# The sanitizers' library must come first into the process; what Python itself never frees is no leak.
SANITIZED := build/sanitize/libnkat_kernels.so
SANITIZER_ENVIRONMENT = ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so.6)" \
	NKATTEST_LIBRARY=$(CURDIR)/$(SANITIZED)
NATIVE_TESTS := $(addprefix tests/engine/, kernels/test_border.py kernels/test_native.py kernels/test_packing.py \
	gguf/test_string_array.py sampling/test_shortlist.py)

sanitize: $(INSTALLED) ## run the C++ kernels under address and undefined behaviour sanitizers: their tests and a fuzz
	CXX=$(CXX) cmake -S native -B build/sanitize -DNKAT_SANITIZE=ON
	cmake --build build/sanitize
	$(SANITIZER_ENVIRONMENT) $(BIN)/python -m pytest -n0 $(NATIVE_TESTS)
	$(SANITIZER_ENVIRONMENT) $(BIN)/python -m tests.fuzz_files --no-limit --cpu 30 --count 500 $(ARGS)

format: $(INSTALLED) ## rewrite the code in the house format and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
