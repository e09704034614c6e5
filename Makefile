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
PORT ?=
# Compiled once, also where the environment asks for no bytecode: else every process compiles all it imports again.
export PYTHONDONTWRITEBYTECODE :=

# The first Python that this user may run, is new enough, and can make virtual environments.
# (The `python3` first on PATH may belong to somebody else, or lack Debian's python3-venv.)
CANDIDATES := python3.11 python3 /usr/bin/python3.11 /usr/bin/python3 python3.12 python3.13
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do "$$p" -c '$(USABLE)' >/dev/null 2>&1 && echo "$$p" && break; done)

.PHONY: help setup run test test-thorough test-slow lint check format bench mutation lock clean

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(STAMPS)/project $(STAMPS)/browser-packages ## Install the locked packages into .venv and node_modules; nothing if already done

run: setup ## Start everything and print one URL (PORT=8000)
	@exec setpriv --pdeathsig TERM $(BIN)/python -m sandbox.supervisor $(if $(PORT),--port $(PORT))

# The files are shared out among one process more than there are cores (five at most), each with servers of its own:
# about a quarter of the time a test waits, for a process or for a page.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); echo $$((n < 4 ? n + 1 : 5)))

PYTEST = $(BIN)/python -m pytest $(if $(filter-out 1,$(JOBS)),-n $(JOBS) --dist loadscope --no-loadscope-reorder)

test: setup ## Run all tests (ARGS="tests/ledger -q -x" JOBS=1)
	@$(PYTEST) $(ARGS)

# More variants of the same: the other themes and widths, signals, programs, and longer lives.
test-thorough: setup ## What CI runs besides: more variants of the same (minutes)
	@$(PYTEST) -m thorough $(ARGS)
	@LLAMASKETCH_FUZZ_SECONDS=3 $(PYTEST) tests/fuzz
	@LLAMASKETCH_PROOF_EXAMPLES=$(or $(EXAMPLES),40) LLAMASKETCH_LIVES=3 $(PYTEST) tests/proof/test_ledger_machine.py $(MACHINES)

MACHINES = tests/ledger/test_machine.py tests/generation/domain/test_job_machine.py tests/generation/core/test_machine.py $(addprefix tests/rails/core/test_, \
  payment_properties.py purchase_properties.py refund_machine.py subscription_properties.py)

# The others begin although one failed, and the failure is still told.
test-slow: setup ## Suites with a schedule of their own (hours): images, broken rules, long lives, mutants, chaos
	@failed=0; \
	$(BIN)/python -m pytest -m slow_suite $(ARGS) || failed=1; \
	LLAMASKETCH_PROOF_EXAMPLES=$(or $(EXAMPLES),2000) $(BIN)/python -m pytest tests/proof/test_ledger_machine.py || failed=1; \
	LLAMASKETCH_FUZZ_SECONDS=60 $(BIN)/python -m pytest tests/fuzz || failed=1; \
	$(MAKE) mutation || failed=1; \
	$(BIN)/llamasketch bench chaos || failed=1; \
	exit $$failed

lint: setup ## Lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## The same, and the house rules
	$(BIN)/python -m pytest -q tests/house

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Measure (several minutes)
	@$(BIN)/llamasketch bench $(ARGS)

mutation: setup ## Break the code on purpose and count what the tests notice (MODULE=ledger.domain BUDGET=900 seconds)
	@$(BIN)/python -m bench mutation -- $(or $(MODULE),ledger.domain) --budget-seconds $(or $(BUDGET),900) $(ARGS)

COMPILE = $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
  --custom-compile-command "make lock" --quiet $(ARGS)

# One resolution for all (dev.txt); the images' locks are parts of it, so that what runs is what was tested.
lock: $(STAMPS)/uv ## Write requirements/*.txt anew from requirements/*.in
	@$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	@$(COMPILE) --override requirements/overrides.txt requirements/dev.in -o requirements/dev.txt
	@for name in api worker sandbox; do \
	  $(COMPILE) --override requirements/overrides.txt --constraint requirements/dev.txt \
	    requirements/$$name.in -o requirements/$$name.txt; \
	done

clean: ## Remove everything that setup and tests made; data in var/ stays
	rm -rf $(VENV) node_modules build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis .mutation
	find . -name __pycache__ -not -path './var/*' -prune -exec rm -rf {} +

# --- set-up, one stamp per step: what is done is not done again ---

# Also heals a virtual environment whose making was interrupted.
$(STAMPS)/venv:
	@if [ -z "$(PYTHON)" ]; then \
	  echo "No usable Python found: install Python 3.11 or newer with venv (on Debian: apt-get install python3-venv)." >&2; \
	  exit 1; \
	fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  .ci/with-progress "Making the virtual environment" $(PYTHON) -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# uv is itself locked by hash. It installs everything else in seconds.
$(STAMPS)/uv: requirements/bootstrap.txt $(STAMPS)/venv
	@.ci/with-progress "Fetching the installer" \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# The lock is complete, so nothing is resolved: what overrides.txt leaves out stays out.
# pip is the second try because it may know a mirror (pip.conf) that uv does not.
$(STAMPS)/packages: requirements/dev.txt $(STAMPS)/uv
	@.ci/with-progress "Installing Python packages" \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r $< || \
	.ci/with-progress "uv could not install the packages; trying pip" \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

# The project itself, editable. Its build tool is one of the locked packages: no network.
$(STAMPS)/project: pyproject.toml $(STAMPS)/packages
	@.ci/with-progress "Installing the project" \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --offline --no-build-isolation --no-deps \
	  --config-settings editable_mode=compat --reinstall-package llamasketch --editable .
	@touch $@

$(STAMPS)/browser-packages: $(wildcard package.json package-lock.json .npmrc) | $(STAMPS)/packages
	@if ! command -v npm >/dev/null; then \
	  echo "npm is missing: install Node 20 or newer (on Debian: apt-get install nodejs npm)." >&2; exit 1; \
	fi
	@if [ -f package-lock.json ]; then \
	  .ci/with-progress "Installing browser packages" npm ci --no-audit --no-fund --loglevel=error; \
	fi
	@touch $@
