# Everything works on a fresh machine with only Python >= 3.11, make and a package index: the first target that needs the environment makes it.
#   make demo        the whole way on the embedded base, on a CPU: dataset, LoRAs, grids, scores, report
#   make test        the suite (seconds per file);  make test-slow  the rest of it, with what each test took
#   make lint        ruff, mypy --strict, import layers, generated reference
#   make bench       the CPU's table of speeds, in at most 15 minutes; needs 9 GB

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.vez-installed
DEMO    ?= demo
PYTEST  := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest
ARGS    ?=
# 3.11 first: constraints.txt was resolved on it. A name on PATH that does not run, is too old, or cannot make a venv is passed over.
PYTHON  ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint reference bench clean

help:
	@sed -n 's/^#  *make/make/p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "vez needs Python 3.11 or newer with the venv module; none was found on PATH." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and alone: its exact version, of whichever build (CPU, CUDA) the index in use offers.
	$(BIN)/python -m pip install --quiet -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/vez demo $(DEMO)

test: $(STAMP)
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(STAMP)
	$(PYTEST) -m slow --durations=0 --durations-min=1 $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m vez.reference --check docs/reference.md

reference: $(STAMP)
	$(BIN)/python -m vez.reference --write docs/reference.md
	$(BIN)/python -c "from pathlib import Path; from vez.kohya_config.options import on_page; p = Path('docs/coming-from-kohya.md'); p.write_text(on_page(p.read_text()))"

bench: $(STAMP)
	$(BIN)/python bench/table.py $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
