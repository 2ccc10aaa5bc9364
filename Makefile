# What can be done with a clone. Every target sets up what it needs.

PYTHON ?= python3
BIN := .venv/bin
KILLS ?= 50
MOVES ?= 0
HOSTS ?= 0
SEEDS ?= 200
FLIPS ?= 2000
PAIRS ?= 8
RUNS ?= 5
TESTS ?= tests/api tests/client tests/core tests/gateway tests/processes tests/simulation tests/store

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

# The stamps say for which settings and which files the environment was made: the install is a tree
# of links, one for each module, so a module that comes or goes asks for another.
SHAPE := pyproject.toml setup.py $(shell find api runtime -type d ! -name __pycache__)

.venv/.package: $(SHAPE)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/.dev: $(SHAPE)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ .venv/.package

.PHONY: demo
demo: .venv/.package ## count the words of the standard library's source, with all cores
	$(BIN)/python -m examples.word_count

.PHONY: test
test: .venv/.dev ## run every test, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: pythons
pythons: .venv/.dev ## run tests on each other Python from 3.11 up that is found: TESTS=tests/core
	.ci/pythons $(TESTS)

.PHONY: crash
crash: .venv/.dev ## kill workers and the supervisor again and again: KILLS=50 MOVES=0
	$(BIN)/python -m tests.crash.kill_loop --kills $(KILLS) --moves $(MOVES)

.PHONY: flips
flips: .venv/.dev ## flip bits anywhere in a store, and cut it: FLIPS=2000
	$(BIN)/python -m tests.store.flips $(FLIPS)

.PHONY: simulate
simulate: .venv/.dev ## run the core on a simulated network, disk and clock: SEEDS=200, MOVES=1: slots move in each, HOSTS=1: shards live on hosts
	$(BIN)/python -m tests.simulation.campaign --seeds $(SEEDS) $(if $(filter-out 0,$(MOVES)),--moves) $(if $(filter-out 0,$(HOSTS)),--hosts)

.PHONY: reach
reach: .venv/.dev ## lines and branches of the core that are reached under faults: SEEDS=200
	$(BIN)/coverage run --rcfile=/dev/null --branch --source=skerry.runtime.core -m tests.simulation.reach $(SEEDS)
	$(BIN)/coverage report --rcfile=/dev/null

.PHONY: mutants
mutants: .venv/.dev ## plant bugs in copies of the code, one by one: all must be caught
	$(BIN)/python -m tests.mutants.plant

.PHONY: bench
bench: .venv/.dev ## what moved since the last landed commit, both measured alternately: PAIRS=8
	$(BIN)/python -m benchmarks.compare --pairs $(PAIRS)

.PHONY: figures
figures: .venv/.dev ## measure the table, beside this machine's bare ceiling: RUNS=5
	$(BIN)/python -m benchmarks.run --all --runs $(RUNS)

.PHONY: peers
peers: .venv/.package ## skerry beside what would be picked instead, in one run: PEERS="bytewax redis"
	$(BIN)/python -m benchmarks.peers $(if $(PEERS),--only $(PEERS))

.PHONY: micro
micro: .venv/.dev ## time the parts of the hot path, each alone
	$(BIN)/python -m pytest benchmarks/micro --benchmark-enable --benchmark-columns=min,median,ops

.PHONY: docs
docs: .venv/.dev ## build the documentation site into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: lint
lint: .venv/.dev ## style, formatting, who imports whom, and definitions that nobody uses
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/vulture

.PHONY: types
types: .venv/.dev ## mypy --strict and pyright
	$(BIN)/mypy -p skerry
	ln -sfn $$(basename build/__editable__.skerry-*) build/tree
	$(BIN)/pyright

.PHONY: cover
cover: .venv/.dev ## run every test and report the lines that none reached
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
