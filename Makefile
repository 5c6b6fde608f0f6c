# make install | demo | docs | test | bench | lint: each sets up .venv first where it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo docs test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    the first five minutes: two commands on real data, and what they found"
	@echo "make docs    the documentation's site, in build/site"
	@echo "make test    format, lint, types, import contract, site, tests, doctests, notebook, wheel"
	@echo "make bench   the tables that the README quotes"
	@echo "make install .venv with everything in it (demo and test do this by themselves)"

# The stamp is newer than what it was made from, or pip runs again.
install: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1' # for dependency groups
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[full,onnx]' --group dev \
		--group integrations-test --group docs
	touch $@

demo: install
	$(BIN)/python scripts/demo.py

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every warning is an error: a dead link or anchor, a page in no list, a docstring that cannot be read. A test does this too.
docs: install
	$(BIN)/python -m sphinx -q -E -W --keep-going -d build/doctrees docs build/site

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

bench: install
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv build dist runs src/*.egg-info
