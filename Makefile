# Two commands do all the set-up by themselves: `make demo` and `make test`. They need Python 3.11 or newer, and pip.

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/.ready

.PHONY: demo test faults exact bench peers readme check format clean

demo: $(READY)  ## the whole pipeline on packaged reviews
	$(VENV)/bin/ulmpipe demo

test: $(READY)  ## every test; those marked `data` need $$ULMPIPE_DATA
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist loadfile

faults: $(READY)  ## kills, crashes, full disks, flipped bits, hostile files: half an hour
	ULMPIPE_FAULTS=all OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/faults -n auto

exact: $(READY)  ## every corpus of $$ULMPIPE_DATA, both engines, every preset: a quarter of an hour
	$(VENV)/bin/python bench/exact.py

bench: $(READY)  ## every bench on little work, to see that it measures; bench/all.py --full does it all
	$(VENV)/bin/python bench/all.py

peers: $(READY)  ## what benches compare with, in an environment of its own: PEER_PYTHON=.venv-peers/bin/python
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --no-deps -r bench/peers.txt

readme: $(READY)  ## every command of README, on little data
	$(VENV)/bin/python bench/readme.py

check: $(READY)  ## formatter, linter, types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright

format: $(READY)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV)

# PIP_CONSTRAINT and not -c, so that it holds in pip's own build environment too.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[demo,dev,vision]'
	@touch $@
