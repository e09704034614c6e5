# LlamaSketch. `make run` is all a newcomer needs; `make help` lists the rest.
# Wants Python 3.11 or newer, Node 20 and make; everything else is locked and fetched by `setup`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PORT ?= 8000

# The first Python that this user may run, is new enough, and can make virtual environments.
# (The `python3` first on PATH may belong to somebody else, or lack Debian's python3-venv.)
CANDIDATES := python3.11 python3 /usr/bin/python3.11 /usr/bin/python3 python3.12 python3.13
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do "$$p" -c '$(USABLE)' >/dev/null 2>&1 && echo "$$p" && break; done)

.PHONY: help setup run test check format bench lock clean

help: ## List what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(STAMPS)/project $(STAMPS)/browser-packages ## Install the locked packages into .venv and node_modules; nothing if already done

run: setup ## Start everything and print one URL (PORT=8000)
	@exec setpriv --pdeathsig TERM $(BIN)/python -m gateway.supervisor --port $(PORT)

test: setup ## Run all tests
	@$(BIN)/python -m pytest $(ARGS)

check: setup ## Lint, types, import rules, house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/house

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Measure (several minutes)
	@$(BIN)/llamasketch bench $(ARGS)

lock: $(STAMPS)/uv ## Write requirements/*.txt anew from requirements/*.in
	@for name in bootstrap run dev; do \
	  $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	    --custom-compile-command "make lock" --quiet $(ARGS) \
	    requirements/$$name.in -o requirements/$$name.txt; \
	done

clean: ## Remove everything that setup and tests made; data in var/ stays
	rm -rf $(VENV) node_modules build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
	find . -name __pycache__ -not -path './var/*' -prune -exec rm -rf {} +

# --- set-up, one stamp per step: what is done is not done again ---

# Also heals a virtual environment whose making was interrupted.
$(STAMPS)/venv:
	@if [ -z "$(PYTHON)" ]; then \
	  echo "No usable Python found: install Python 3.11 or newer with venv (on Debian: apt-get install python3-venv)." >&2; \
	  exit 1; \
	fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# uv is itself locked by hash. It installs everything else in seconds.
$(STAMPS)/uv: requirements/bootstrap.txt $(STAMPS)/venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# pip is the second try because it may know a mirror (pip.conf) that uv does not.
$(STAMPS)/packages: requirements/dev.txt $(STAMPS)/uv
	@echo "Installing Python packages …"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r $< || { \
	  echo "uv could not install the packages; trying pip …" >&2; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<; }
	@touch $@

# The project itself, editable. Its build tool is one of the locked packages: no network.
$(STAMPS)/project: pyproject.toml $(STAMPS)/packages
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --offline --no-build-isolation --no-deps \
	  --config-settings editable_mode=compat --reinstall-package llamasketch --editable .
	@touch $@

$(STAMPS)/browser-packages: $(wildcard package.json package-lock.json .npmrc) | $(STAMPS)/packages
	@if ! command -v npm >/dev/null; then \
	  echo "npm is missing: install Node 20 or newer (on Debian: apt-get install nodejs npm)." >&2; exit 1; \
	fi
	@if [ -f package-lock.json ]; then \
	  echo "Installing browser packages …"; \
	  npm ci --no-audit --no-fund --loglevel=error; \
	fi
	@touch $@
