# Everything a developer or a first-time user runs. Each target sets up .venv by itself.
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

help: ## What can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

venv: $(STAMP) ## .venv with both packages and what tests and checks need

$(STAMP): pyproject.toml trainer/pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once; a few minutes)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade --constraint constraints.txt pip
	$(PIP) install --constraint constraints.txt --editable '.[test,lint]' --editable './trainer[fp8]'
	@touch $@

demo: $(STAMP) ## A six-camera drive to verified shards; RECORDING=path does it with yours
	@$(BIN)/python -m tools.demo --out $(OUT) $(if $(RECORDING),--recording "$(RECORDING)")

test: $(STAMP) ## All tests but the slow ones
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 8 --dist loadfile

test-slow: $(STAMP) ## The slow tests
	$(BIN)/python -m pytest -m slow -n auto --maxprocesses 2 --dist loadfile

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

peers: $(STAMP) ## The streaming benchmark beside other loaders, which need an environment of their own
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip --disable-pip-version-check --quiet install --requirement benchmarks/peers.txt --editable .
	$(BIN)/python -m benchmarks.stream --python .peers/bin/python

readme: $(STAMP) ## Every command of the README, as CI runs it
	$(BIN)/python -m tools.check_readme README.md

clean: ## Remove what the targets made
	rm -rf $(VENV) demo build .pytest_cache .ruff_cache .import_linter_cache .hypothesis
