# Everything that a developer or a first-time user runs. Each target sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RECORDING ?=
OUT ?= demo
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow lint format bench peers readme clean

help: ## Lists the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

venv: $(STAMP) ## .venv with both packages and what tests and checks need

$(STAMP): pyproject.toml trainer/pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once; a few minutes)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade --constraint constraints.txt pip
	$(PIP) install --constraint constraints.txt --editable '.[test,lint]' --editable './trainer[fp8]'
	@touch $@

demo: $(STAMP) ## A six-camera drive to verified shards and a trained model; RECORDING=path does it with your recording
	@$(BIN)/python -m tools.demo --out $(OUT) $(if $(RECORDING),--recording "$(RECORDING)")

test: $(STAMP) ## All tests except the slow ones
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 8 --dist loadfile

test-slow: $(STAMP) ## The slow tests, and the property tests with all of their examples
	MMPACK_EXAMPLES=all $(BIN)/python -m pytest -m "slow or hypothesis" -n auto --maxprocesses 2 --dist loadfile

lint: $(STAMP) ## ruff, pyright and the architecture's contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## All benchmarks; tables to the screen, JSON to benchmarks/results
	@for name in build_shards packing masks plan trainer_data; do $(BIN)/python -m benchmarks.$$name || exit 1; done

peers: $(STAMP) ## The streaming benchmark next to other loaders, which need their own environment
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip --disable-pip-version-check --quiet install --requirement benchmarks/peers.txt --editable .
	$(BIN)/python -m benchmarks.stream --python .peers/bin/python

readme: $(STAMP) ## Runs every command and program of the documents, as CI does
	$(BIN)/python -m tools.check_readme README.md

clean: ## Removes what the targets wrote
	rm -rf $(VENV) demo build .pytest_cache .ruff_cache .import_linter_cache .hypothesis
