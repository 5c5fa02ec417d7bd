# Everything a fresh machine needs. `make run` does the main job, `make test` sets up the tests and passes them.

# A distribution's Python first: it is built for speed, one of pyenv's is not and takes up to a third longer.
PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
  && echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
PEERS ?= $(wildcard ../shared/bin)
WORKERS ?= 3
# Three for two processors: many tests wait. They sync files all the time, which costs nothing in memory; the one disk
# that has to be full is the test's own, and what a kill -9 leaves is the same in both.
SCRATCH ?= $(shell [ "$$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $$4 }')" -gt 4000000 ] 2>/dev/null && echo /dev/shm)

.PHONY: help run test setup setup-tests lint format bench clean

help:
	@echo "make run          set up, then serve on http://localhost:8080 (ARGS='-flag=value ...')"
	@echo "make test         set up the tests, a real Kafka included, and run them (ARGS='-k name')"
	@echo "make setup        virtual environment, pinned dependencies, compiled kernels"
	@echo "make lint         ruff and import contracts"
	@echo "make bench        ingest and query benchmarks beside the peers that are installed"

run: $(VENV)/.installed
	@$(BIN)/mimir-ingest warm --needed-at-start
	@nice -n 19 $(BIN)/mimir-ingest warm --with-parent >/dev/null 2>&1 & exec $(BIN)/mimir-ingest $(ARGS) # the rest, while it serves

setup: $(VENV)/.installed
	@$(BIN)/mimir-ingest warm

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mimir-ingest needs Python 3.11 or later; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup-tests: setup $(VENV)/.installed-tests tests/kafka/libs/.complete

$(VENV)/.installed-tests: requirements-test.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-test.lock
	@touch $@

tests/kafka/libs/.complete: tests/kafka/pom.xml
	@if command -v mvn >/dev/null && command -v java >/dev/null; then \
	  echo "fetching Apache Kafka's artifacts"; \
	  mvn --quiet --batch-mode -f tests/kafka/pom.xml dependency:copy-dependencies && touch $@; \
	elif [ -n "$$CI" ]; then echo "java and mvn are needed for the Kafka tests" >&2; exit 1; \
	else echo "java or mvn is missing: the Kafka tests will be skipped"; fi

test: # packages, jars and the linters wait for others or have work for one processor: they go beside the compiler
	@$(MAKE) --no-print-directory --jobs=4 setup-tests lint
	$(if $(SCRATCH),TMPDIR=$(SCRATCH)) MIMIR_INGEST_PEERS=$${MIMIR_INGEST_PEERS:-$(abspath $(PEERS))} $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.installed-tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

format: $(VENV)/.installed-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-tests
	MIMIR_INGEST_PEERS=$${MIMIR_INGEST_PEERS:-$(abspath $(PEERS))} $(BIN)/python -m benchmarks.ingest
	MIMIR_INGEST_PEERS=$${MIMIR_INGEST_PEERS:-$(abspath $(PEERS))} $(BIN)/python -m benchmarks.query

clean:
	rm -rf $(VENV) build *.egg-info tests/kafka/libs
