# Two commands do all set-up on a fresh machine: make run, make test. Both need only Python 3.11 (or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run test demo bench bench-rivals lint install clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tutelage needs Python 3.11 or newer; set PYTHON=...")'
	@echo "Installing into $(VENV); this takes about a minute, once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed

run: install
	@exec $(BIN)/tutelage up $(ARGS)

test: install
	$(BIN)/python -m pytest -n 2 $(ARGS)

demo: install
	@exec $(BIN)/tutelage demo $(ARGS)

bench: install
	@exec $(BIN)/python -m bench $(ARGS)

# Other gateways to measure beside us, about 900 MB into .rivals/; Portkey's needs Node and npm.
bench-rivals: install
	$(BIN)/python -m bench.rivals

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
