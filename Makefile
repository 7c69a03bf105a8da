# Two commands on a fresh machine: `make train` and `make test`. Each makes the environment it needs.
PYTHON ?= python3
VENV ?= .venv
NEWEST ?= .venv-newest
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: train test lint types suite docs newest parity peers browser start dist format clean

train: $(VENV)/.train
	$(BIN)/python train.py --model ccnet --override backbone.width=16 channels=128 \
		--workdir runs/quickstart

test: lint types suite

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/pyright --pythonpath $(BIN)/python

suite: $(VENV)/.test
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

# The documentation as pages in docs/_build/html. Warnings are errors; then the pages are checked, and
# what they tell to type is run.
docs: $(VENV)/.docs
	rm -rf docs/_build
	$(BIN)/python -m sphinx -b html -n -W --keep-going -q docs docs/_build/html
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal tests/site

# The suite with the newest versions that the index has for $(PYTHON), which are written down if it
# passes.
newest:
	rm -rf $(NEWEST)
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/pip install --quiet --disable-pip-version-check torch
	$(NEWEST)/bin/pip install --quiet --disable-pip-version-check -e '.[test]'
	$(NEWEST)/bin/pytest -n $(WORKERS) --dist worksteal
	{ echo "# The newest versions that the suite passed with, by make newest: $$($(NEWEST)/bin/python -V)"; \
		$(NEWEST)/bin/pip freeze --exclude-editable | grep -v '^nvidia-\|^cuda-\|^triton' \
		| sed 's/+.*//'; } > constraints-newest.txt

# Lets mmsegmentation, transformers, timm and onnxruntime load what we export: minutes.
peers: $(VENV)/.peers
	$(BIN)/pytest -n $(WORKERS) -o filterwarnings=default tests/peers

# Looks at the demo's page, an exported folder and the documentation in Chromium, which must be
# installed: apt-get install -y chromium.
browser: $(VENV)/.browser $(VENV)/.docs
	$(BIN)/python -m sphinx -b html -q docs docs/_build/html
	$(BIN)/pytest -o filterwarnings=default tests/browser

# Types README's Start in an empty environment with the wheel, with a file of every published layout:
# minutes, and gigabytes below $TMPDIR that go away again.
start: $(VENV)/.test
	$(BIN)/pytest -n $(WORKERS) -o filterwarnings=default tests/start

# Prints how far each network is from its PyTorch twin, and fails beyond the bounds.
parity: $(VENV)/.test
	$(BIN)/python -m convert.parity

# The wheel and the source archive in dist/, as an index would take them.
dist: $(VENV)/.test
	rm -rf dist
	$(BIN)/python -m hatchling build
	$(PIP) twine
	$(BIN)/twine check --strict dist/*

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.train: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

# torch goes first and by its exact version, so that nothing else chooses a build for it.
$(VENV)/.test: $(VENV)/.train
	$(PIP) torch==2.13.0
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/.docs: $(VENV)/.test
	$(PIP) -e '.[docs]'
	touch $@

$(VENV)/.peers: $(VENV)/.test tests/peers/requirements.txt
	$(PIP) -r tests/peers/requirements.txt
	touch $@

$(VENV)/.browser: $(VENV)/.test tests/browser/requirements.txt
	$(PIP) -r tests/browser/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(NEWEST)
