# The front door. Every target sets up what it needs in .venv; nothing else on the machine is touched.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 4
# Byte code is kept (git ignores it): without it every process compiles our files and rewrites the tests' assertions again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup native native-audit demo test test-fast engines vectors interop lint style format bench chaos trust-report sources-report docs docs-serve docs-look lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## make .venv with everything that is needed

$(READY): requirements.lock pyproject.toml
	@echo "==> setting up $(VENV) (once, and when dependencies change)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Watchword needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# --no-deps: the lock file is complete, and older pips take an extra's requirement for another, unpinned package.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

native: $(READY) ## build the native engine into .venv (needs Rust's cargo)
	@if ! command -v cargo >/dev/null; then echo "==> cargo is not on this machine: Watchword runs on its Python engine"; \
	else \
	    set -e; echo "==> building the native engine"; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall ./native; \
	    $(BIN)/python -c 'from watchword import engine; print("==> engine:", engine.name())'; \
	fi

native-audit: ## the native engine's format, lints, own tests, licences and sources, as far as the tools are here (needs cargo)
	@if ! command -v cargo >/dev/null; then echo "==> cargo is not on this machine: the native engine was not looked at"; \
	else \
	    set -e; cd native; has() { cargo $$1 --version >/dev/null 2>&1 || { echo "==> cargo $$1 is not on this machine"; false; }; }; \
	    if has fmt; then cargo fmt --check; fi; \
	    if has clippy; then cargo clippy --quiet --all-targets -- -D warnings; fi; \
	    cargo test --quiet --release --no-default-features; \
	    if has deny; then cargo deny --log-level error check bans licenses sources; fi; \
	fi

demo: $(READY) ## agents and an attacker on a real NATS server, without and with Watchword
	@$(BIN)/watchword demo $(DEMO)

test: $(READY) ## every suite, on the best brokers that this machine can run (ONLY=tests/unit narrows it)
	@echo "==> running the tests"
	@rm -f .coverage .coverage.*
ifdef ONLY
	@$(BIN)/coverage run -m pytest $(ONLY)
else
	@# Most tests wait for brokers: so more processes than processors. All use one Kafka; each has its own NATS and Redis.
	@$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal
	@$(BIN)/coverage combine --quiet
	@echo "==> coverage: src/ wants 100 %, adapters/ 95 %"
	@$(BIN)/coverage report --include='src/*' --fail-under=100
	@$(BIN)/coverage report --include='adapters/*' --fail-under=95
endif

test-fast: $(READY) ## what needs no server and is not slow (WORKERS=2)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not broker and not slow' $(ONLY)

# What is not the same with both engines, and what it stands on. All of it is reached by these tests, whichever engine
# is at work; the others of the core's properties are about machines that know of no engine.
CORE := tests/unit/core tests/vectors tests/attacks/core \
    $(addprefix tests/properties/test_,bulk.py deliveries.py engines.py signature_sets.py)
BOTH := algorithms engine stretch checks guard slices packed quota hashing keys replay_check signatures verification
comma := ,
space := $() $()

engines: $(READY) ## the core's tests and attacks with each engine (without cargo a stand-in plays the native one)
	@echo "==> the core with the Python engine"
	@rm -rf build/engines
	@mkdir -p build/engines
	@WATCHWORD_ENGINE=python $(BIN)/coverage run --data-file=build/engines/coverage -m pytest -n auto --dist worksteal $(CORE)
	@$(BIN)/coverage combine --quiet --data-file=build/engines/coverage build/engines
	@$(BIN)/coverage report --data-file=build/engines/coverage --fail-under=100 \
	    --include='$(subst $(space),$(comma),$(BOTH:%=src/watchword/%.py))'
	@echo "==> the core with the native engine, for messages that come alone too"
	@WATCHWORD_ENGINE= $(BIN)/python -m pytest -n auto --dist worksteal --runs-of-one $(CORE)

vectors: $(READY) ## write tests/vectors, one vector a line; a test compares
	@$(BIN)/python -m tests.vectors.generate

interop: $(READY) ## every test vector in Go, and messages between Go and Python over real brokers (needs Go)
	@if ! command -v go >/dev/null; then echo "==> Go is not on this machine: the implementation in interop/ did not run"; \
	elif ! (cd interop && go mod download); then echo "==> Go's modules are not available: the implementation in interop/ did not run"; \
	else \
	    set -e; (cd interop && gofmt -l . | diff /dev/null - && go vet ./... && go test -count=1 -v ./... | grep -E ' vectors$$| key sets$$|^(ok|FAIL)'); \
	    $(BIN)/python -m pytest tests/interop; \
	fi

lint: $(READY) style ## format, ruff, mypy --strict, import contracts, language
	@echo "==> linting"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

style: $(READY) ## spelling, home-made phrases (tests/style/idioms.py), the records in docs/decisions
	@echo "==> checking the language"
	@$(BIN)/codespell
	@$(BIN)/python -m tests.style.idioms
	@$(BIN)/python -m tests.style.decisions

format: $(READY) ## let ruff put the code into shape
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: $(READY) ## what it costs here, beside plain clients and peers: tables, build/reports/bench.json, plots (PARTS=, SMALL=1, BEFORE=a tree)
	@$(if $(BEFORE),WATCHWORD_BENCH_BEFORE='$(BEFORE)') $(BIN)/watchword bench $(addprefix --part ,$(PARTS)) $(if $(SMALL),--small)

chaos: $(READY) ## kills, restarts and replays on real brokers: a table, and build/reports/chaos.json (BUSES=, SEED=, HONEST=)
	@$(BIN)/python -m chaos $(if $(BUSES),--buses $(BUSES)) $(if $(SEED),--seed $(SEED)) $(if $(HONEST),--honest $(HONEST))

trust-report: $(READY) ## how fast trust moves, what rules and floods cost: build/reports/trust.json (SMALL=1)
	@$(BIN)/python -m benchmarks.trust.report $(if $(SMALL),--small)

sources-report: $(READY) ## how fast each key source learns and forgets keys, what each place of private keys costs: build/reports/sources.json
	@$(BIN)/python -m benchmarks.sources.report $(addprefix --source ,$(SOURCES))

docs: $(READY) ## build the documentation into build/docs, offline, links and anchors checked
	@# Not --quiet: mkdocs would not count warnings then, and --strict would let everything pass.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict && echo "==> build/docs/index.html"

docs-serve: $(READY) ## the documentation at http://127.0.0.1:8000, built again as its files change (ADDRESS=)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --strict --dev-addr $(or $(ADDRESS),127.0.0.1:8000)

docs-look: docs ## every page in headless Chromium, wide and narrow: nothing cut; screenshots in build/site (PAGES=, DARK=1)
	@$(BIN)/python -m website.look $(if $(DARK),--dark) $(PAGES)

lock: $(READY) ## renew requirements.lock from the ranges in pyproject.toml (PINNED=1 only adds what is missing)
	@# Not --all-extras: no index has the native engine yet.
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra all --group dev $(if $(PINNED),,--upgrade) \
	    --no-header --no-annotate --no-emit-package watchword --output-file requirements.lock pyproject.toml

clean: ## remove what make has made
	@rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
