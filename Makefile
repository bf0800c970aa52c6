# Everything runs from .venv, which `make install` builds from the hash-pinned lock files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo run test check format lock rag bench faults soak clean

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Taximeter needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

install: $(STAMP)  ## everything into .venv, versions pinned by hash

demo: $(STAMP)  ## mixed traffic through a scripted provider; compares our figures with its bill (KEEP=1 leaves it running)
	$(BIN)/taximeter demo $(if $(KEEP),--keep)

run: $(STAMP)  ## serve for real
	$(BIN)/taximeter serve

test: $(STAMP)  ## every test
	$(BIN)/python -m pytest -n $(or $(JOBS),auto) --dist loadgroup $(ARGS)

check: $(STAMP)  ## ruff, mypy --strict, import layers
	$(BIN)/ruff check proxy tests examples
	$(BIN)/ruff format --check proxy tests examples
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)  ## let ruff write
	$(BIN)/ruff check --fix proxy tests examples
	$(BIN)/ruff format proxy tests examples

lock: $(STAMP)  ## resolve the lock files anew (needs uv); names no index host
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links pyproject.toml --group dev -o requirements-dev.lock

rag: $(STAMP)  ## LightRAG's environments (1.6 GB in .venv-rag), then every test of taximeter-rag in them
	$(BIN)/python tests/rag/venvs.py
	$(BIN)/python -m pytest -n $(or $(JOBS),auto) --dist loadgroup tests/rag $(ARGS)

bench: $(STAMP)  ## CPU per call beside nginx; writes docs/benchmarks.md
	PYTHONPATH=tests $(BIN)/python -m bench.run $(ARGS)

faults: $(STAMP)  ## kill, cut, fill and lose everything, then compare the books (SEED=n)
	$(BIN)/python -m pytest tests/faults -n $(or $(JOBS),auto) --dist worksteal $(ARGS)

soak: $(STAMP)  ## MINUTES=20 of steady load; shows the memory's slope
	$(BIN)/python tests/bench/soak.py --minutes $(or $(MINUTES),20)

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
