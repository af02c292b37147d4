# Two commands do everything on a machine with Python >= 3.11 (with venv) and make:
#   make demo   set up, compile and run a real model, show the result and its latency
#   make test   set up, run every check and test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := compiler frontend ir passes codegen tests benchmarks examples

.PHONY: demo test setup lint typecheck unit quick slow mutants bench-layers clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/python examples/digits/demo.py

test: lint typecheck unit

lint: setup
	$(BIN)/ruff check .

# An editable install is invisible to static checkers: check an installed copy.
typecheck: setup
	rm -rf build/typecheck build/lib
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/typecheck .
	rm -rf build/lib
	MYPYPATH=build/typecheck $(BIN)/mypy --strict -p aisc

# Processes of tests at once; idle ones take tests from busy ones.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

unit: setup
	$(PYTEST) -m "not slow"

# Without code generation: seconds, for every save.
quick: setup
	$(PYTEST) -m "not slow and not llvm"

slow: setup
	$(PYTEST) -m slow --hypothesis-profile default

# Small random faults in the sources, and what found them: docs/mutants.md.
COUNT ?= 80
SEED ?= 0
FOLDERS ?= ir passes codegen frontend

mutants: setup
	$(BIN)/python tests/mutants.py --count $(COUNT) --seed $(SEED) --folders $(FOLDERS) --jobs $(JOBS)

# Random layers beside the best of other runtimes: docs/benchmarks.md. COUNT and SEED as above.
bench-layers: setup
	$(BIN)/python benchmarks/layer_fuzz.py --count $(COUNT) --seed $(SEED)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
