# Every target sets up what it needs; nothing is installed outside this folder (uv's cache aside).
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9

.PHONY: install demo test proof check docs bench gpu clean constraints
.DELETE_ON_ERROR:

install: $(STAMP)

# uv lives in the environment it fills and links files from its cache, so a second clone costs seconds, not gigabytes.
# pyproject.toml says which traps the versions avoid; constraints.txt says which set was tried.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || { echo "sp-data needs Python 3.11 or 3.12; found $$($(PYTHON) --version). Try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --link-mode hardlink \
	  --constraints constraints.txt --editable '.[ray,s3,ui,dev]'
	@touch $@

# Prefect's database of the demo lies in this folder too, unless you have a home or a server of your own.
demo: export PREFECT_HOME := $(or $(PREFECT_HOME),$(CURDIR)/.prefect)
demo: $(STAMP)
	$(BIN)/sp-data run demo

# The tests start Python some hundred times. Where PYTHONDONTWRITEBYTECODE is set and the environment has no bytecode
# yet, each start would compile torch and Prefect once more, which takes longer than all the rest. Empty is "not set".
test proof: export PYTHONDONTWRITEBYTECODE :=

# Two workers of one thread each: threads of two processes on two cores wait for each other hundreds of times a step.
# In the order of tests/conftest.py: whole runs (tests/e2e) are few and long, and by their number would come last, alone.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not proof" --numprocesses 2 --dist loadgroup --no-loadscope-reorder

proof: $(STAMP)
	$(BIN)/python -m pytest -m proof --timeout 7200

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# docs/cli.md from the commands' help.
docs: $(STAMP)
	$(BIN)/python -m sp_data.cli.reference > docs/cli.md.new
	mv docs/cli.md.new docs/cli.md

bench: $(STAMP)
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script --quick || exit 1; done

# On a machine with a GPU: eight minutes that say whether training works there, and how fast.
gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py

constraints: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --output-file constraints.txt

clean:
	rm -rf $(VENV) lake .prefect .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
