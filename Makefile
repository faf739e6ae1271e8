# Everything a newcomer or CI does. Needs Python 3.11 or newer with venv and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := train,report,examples,dev
# One file pins what must be pinned; see README, "Choosing a PyTorch build".
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-long lint types floors check bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing secure-fl and what it needs into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@

demo: $(STAMP)
	@$(BIN)/python examples/digits/demo.py

test: $(STAMP)
	@$(BIN)/python -m pytest -q -m "not long"

test-long: $(STAMP)
	@$(BIN)/python -m pytest -q

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

floors: $(STAMP)
	@$(BIN)/lint-imports

check: lint types floors test

bench: $(STAMP)
	@$(BIN)/python benchmarks/masking.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis
