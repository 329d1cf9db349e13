# make install | demo | test | lint | clean. Needs Python 3.11+ and a package index, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= config.yaml

.PHONY: install demo test lint format clean help

help:
	@sed -n '1s/^# //p' Makefile

# torch and brainspace come first: torch, because a CPU-only box that offers torch 2.13.0+cpu satisfies the pin;
# brainspace without its dependencies, because only its data files are read.
$(VENV)/.installed: pyproject.toml envs/constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps brainspace==0.3.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c envs/constraints.txt -e '.[test]'
	@touch $@

install: $(VENV)/.installed
	@echo "Installed in $(VENV). Activate with: source $(VENV)/bin/activate"

# the demo's jobs are small: on two cores two of one thread each are done sooner than one of two threads after another
SMALL := $(addsuffix =1,evaluate_model few_shot_model zero_shot_model interpret_model)
demo: install
	@$(BIN)/boldmill demo-data --out resources/demo
	@PATH="$(abspath $(BIN)):$$PATH" snakemake --profile local --set-threads $(SMALL) --configfile $(CONFIG)
	@echo "Report: $(abspath results/report/index.html)"

# cortex_mae holds the published flat mask, which a test compares ours with; its code is not used.
test: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps cortex_mae==0.1.1
	@# one thread per process: two processes that each wait for two threads take several times as long
	OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest tests/unit -n 2 --dist loadfile
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest tests/dag tests/e2e tests/slurm

lint: install
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow

format: install
	$(BIN)/ruff check --fix src tests
	$(BIN)/ruff format src tests
	$(BIN)/snakefmt Snakefile workflow

# Results and their records stay: `boldmill clean` says what of them could be freed.
clean:
	rm -rf $(VENV) build src/*.egg-info
