# mtl-train. `make train` and `make test` do all the set-up that they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
ARGS ?= task=digits

.DEFAULT_GOAL := help

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv with everything in it

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0  # first: a plain `torch` may pull a CUDA build of several GB
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $(STAMP)

train: $(STAMP)  ## train; ARGS="task=digits sharing=separate" passes overrides on
	$(BIN)/mtl-train $(ARGS)

# Tests start many processes: each would compile the package anew where Python is told to write no bytecode.
test: $(STAMP)  ## the tests (under 8 minutes on 2 cores)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(STAMP)  ## the slow proofs: quality floors on real data
	$(BIN)/python -m pytest -m slow

test-extras: $(STAMP)  ## trackers, launchers and searches, with the packages that they need (minutes)
	$(BIN)/pip install --quiet --editable '.[dev,joblib,mlflow,optuna,ray,submitit,tensorboard,wandb]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/cli/test_cli_launchers.py tests/cli/test_cli_loggers.py

lint: $(STAMP)  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## static types
	$(BIN)/mypy

check: lint types test  ## all that must pass

bench: $(STAMP)  ## speed, as ratios to hand-written PyTorch loops
	$(BIN)/python tests/benchmarks/bench.py

.PHONY: help install train test test-slow test-extras lint format types check bench
