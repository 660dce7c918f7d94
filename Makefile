# Two commands do everything: `make repro` and `make test`. Both make .venv on first use.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help install repro repro-parallel share fetch test lint format lock

help:
	@echo "make repro   run what changed, then show the result"
	@echo "make repro-parallel   the same, side by side on all cores"
	@echo "make share   give the team what was computed here"
	@echo "make fetch   take from the team what the present parameters need"
	@echo "make test    run the test suite"
	@echo "make lint    lint, format and type checks"
	@echo "make format  format the code"
	@echo "make lock    resolve pyproject.toml anew into constraints.txt"

install: $(VENV)/installed

$(VENV)/installed: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Makefile: needs Python 3.11 or newer, got `$(PYTHON) -V`; run: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement constraints.txt
	@touch $@

repro: install
	@python -m stages check
	@python -m stages summary --mark
	@dvc repro
	@python -m stages summary

repro-parallel: install
	@python -m stages check
	@python -m stages summary --mark
	@snakemake
	@python -m stages summary

share: install
	@python -m workflow share

fetch: install
	@python -m workflow fetch

test: install
	@python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: install
	@ruff check .
	@ruff format --check .
	@mypy

format: install
	@ruff check --fix .
	@ruff format .

lock:
	rm -rf $(VENV)/lock && $(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet .
	@{ echo "# Every package, pinned; made by \`make lock\` from pyproject.toml."; \
	  $(VENV)/lock/bin/python -m pip freeze --all --exclude pip --exclude fine-tuning-pipeline | sed 's/+cpu$$//'; } > constraints.txt
	rm -rf $(VENV)/lock
