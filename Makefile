# One environment for everything; constraints.txt holds the exact versions that are known to work.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint infra/constraints.txt

.PHONY: help nightly test test-e2e format lint wheel up down clean

help:  ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

nightly: $(VENV)/installed  ## Run one night on the embedded default
	$(BIN)/recdistill nightly

test: $(VENV)/installed-dev lint  ## Format, lint, types, import contracts, tests with coverage
	$(BIN)/pytest -m "not slow and not gpu" --numprocesses 2 --dist loadfile --cov --cov-report=
	$(BIN)/coverage report --include='recsys_core/*' --fail-under=85
	$(BIN)/coverage report --include='tasks/*' --fail-under=80
	$(BIN)/coverage report --include='flows/*' --fail-under=80

test-e2e: $(VENV)/installed-dev  ## Slow end-to-end checks: servers, schedule, kills
	$(BIN)/pytest -m slow --numprocesses 4 --dist loadfile

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/typos
	$(BIN)/lint-imports
	$(BIN)/python -m infra.stage_versions
	$(BIN)/pyright

format: $(VENV)/installed-dev  ## Format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(VENV)/bin/python  ## Build dist/recdistill-*.whl, which runs without this folder
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

up: $(VENV)/installed  ## Start Prefect, MLflow and a worker on loopback, and deploy
	$(BIN)/recdistill up

down: $(VENV)/installed  ## Stop the services that `up` started
	$(BIN)/recdistill down

clean:  ## Remove the environment; workspace/ and data/ stay
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml infra/constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV); this takes a few minutes the first time."
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable ".[dev]"
	@touch $@
