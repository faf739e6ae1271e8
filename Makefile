# Everything a newcomer or CI does. Needs Python 3.11 or newer with venv and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := ckks,train,hf,exact,flower,simulation,report,examples,dev
# One process per core, each with one thread: the tests are many and small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses=auto --maxprocesses=4 --dist=worksteal
# One file pins what must be pinned; see README, "Choosing a PyTorch build".
STAMP := $(VENV)/.installed

FLOWER := .venv-flower
FLOWER_STAMP := $(FLOWER)/.installed

.PHONY: setup browser demo test test-long lint types floors check bench bench-tenseal bench-train bench-flower results clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing secure-fl and what it needs into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@

# Chromium, a font and Node.js packages: with them the tests look at the report's pages.
browser: $(STAMP)
	@tests/browser/install $(BIN)/python

demo: $(STAMP)
	@$(BIN)/python examples/digits/demo.py

test: $(STAMP)
	@$(PYTEST) -m "not long"

test-long: $(STAMP)
	@$(PYTEST)

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

# TenSEAL, as others configure it, beside ours; ARGS="--quick" for a small case.
bench-tenseal: $(STAMP)
	@$(BIN)/python benchmarks/against_tenseal.py $(ARGS)

# Ways to fine-tune beside each other; ARGS="--quick", ARGS="--data FOLDER" for texts.
bench-train: $(STAMP)
	@$(BIN)/python benchmarks/training.py $(ARGS)

# docs/results.* anew, from real data: make results DATA=FOLDER (hours; it can be stopped).
results: $(STAMP)
	@$(BIN)/python examples/results.py --data $(DATA)

# Flower beside ours, in an environment of its own; ARGS="--quick" for one case.
$(FLOWER_STAMP): pyproject.toml constraints.txt
	@test -d $(FLOWER) || $(PYTHON) -m venv $(FLOWER)
	@echo "installing secure-fl and flwr into $(FLOWER) (once)"
	@$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[flower]"
	@touch $@

bench-flower: $(FLOWER_STAMP)
	@$(FLOWER)/bin/python benchmarks/against_flower.py $(ARGS)

clean:
	rm -rf $(VENV) $(FLOWER) .mypy_cache .ruff_cache .import_linter_cache .hypothesis
