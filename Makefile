# Two commands do all set-up on a fresh machine: make run, make test. Both need only Python 3.11 (or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
NODE := tests/node
NPM_INSTALL := npm install --no-package-lock --no-audit --no-fund --ignore-scripts \
	--fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=2000
NODE_STAMP := $(NODE)/node_modules/.installed

.PHONY: run test demo bench bench-rivals lint install node screenshots clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tutelage needs Python 3.11 or newer; set PYTHON=...")'
	@echo "Installing into $(VENV); this takes about a minute, once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/.installed

run: install
	@exec $(BIN)/tutelage up $(ARGS)

# The clients written in Node, where npm is there. Without a network their tests are skipped and say why; the next
# make test tries again.
$(NODE_STAMP): $(NODE)/package.json
	@echo "Installing the Node clients that the tests run, once."
	@cd $(NODE) && if $(NPM_INSTALL) >npm.log 2>&1; then touch node_modules/.installed; \
	else echo "npm install failed (see $(NODE)/npm.log): the tests of Node clients are skipped."; fi

node: $(if $(shell command -v npm),$(NODE_STAMP))

# Three at a time on two cores: tests wait for processes more than they compute.
test: install node
	$(BIN)/python -m pytest -n 3 $(ARGS)

demo: install
	@exec $(BIN)/tutelage demo $(ARGS)

bench: install
	@exec $(BIN)/python -m bench $(ARGS)

# Other gateways to measure beside us, about 900 MB into .rivals/; Portkey's needs Node and npm.
bench-rivals: install
	$(BIN)/python -m bench.rivals

# A picture of every page of the console over the demo's data, into docs/screenshots/; takes a Chromium that is installed.
screenshots: install
	$(BIN)/python -m tests.browser.screenshots $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache $(NODE)/node_modules $(NODE)/npm.log
