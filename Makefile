# aioxide's front door: `make help` lists the targets. `make run` and `make test` prepare everything they need.
#
# PYTHON=...        the interpreter to use (else python3 if new enough, else the newest python3.x)
# PYTHONS=...       a folder of more interpreters for test-all, see tools/get_pythons.sh
# RUN_FLAGS=...     options for examples/python/run_all.py       BENCH_FLAGS=...   for benchmarks/run.py
# COST_FLAGS=...    for benchmarks/cost.py                       FUZZ_SECONDS=...  for each target of fuzz, default 60
# PYTEST_FLAGS=...  options for pytest (default: one worker per processor)
#
# The virtual environment's files .created, .packages, .extension, .ecosystem record finished steps: nothing is done twice.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:

VENV ?= .venv
PYTEST_FLAGS ?= -n auto
FUZZ_SECONDS ?= 60
BIN := $(VENV)/bin
# Another PYTHON than last time is another environment.
CREATED := $(VENV)/.created$(subst /,-,$(PYTHON))
RUST_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find crates -path '*/src/*' -type f -o -name Cargo.toml)
REQUIREMENTS := $(wildcard examples/python/requirements.txt)
BENCH_REQUIREMENTS := $(wildcard benchmarks/requirements.txt)
ECOSYSTEM := tests/ecosystem/requirements.txt
LOOM := RUSTFLAGS="--cfg loom" cargo test --profile loom --target-dir target/loom
DENY := $(or $(shell command -v cargo-deny),.tools/bin/cargo-deny)
# One interpreter for every cargo command, or each would rebuild what the other built.
export PYO3_PYTHON := $(abspath $(BIN))/python

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.extension redis ## the example programs, on stock asyncio and on aioxide with both drivers
	$(BIN)/python examples/python/run_all.py $(RUN_FLAGS)

test: test-rust test-loom test-python ## everything: Rust, model checks, pytest with both drivers

test-rust: tools $(VENV)/.packages ## the Rust tests: driver contract, runtime, documentation examples
	tools/test_rust.sh

test-loom: tools ## every interleaving of the waker and the inbox
	$(LOOM) -p aioxide-driver --lib
	$(LOOM) -p aioxide-runtime --test loom

test-python: $(VENV)/.extension $(VENV)/.ecosystem redis postgresql ## pytest: the loop on both drivers, CPython's own tests, libraries, examples
	tools/test_python.sh $(BIN)/python $(PYTEST_FLAGS)

fuzz: .tools/bin/cargo-fuzz ## the decoders fed with what no server would send, for FUZZ_SECONDS each (nightly Rust)
	PATH="$(abspath .tools/bin):$$PATH" tools/fuzz.sh $(FUZZ_SECONDS)

miri: tools ## the protocols' and the awaitables' tests in an interpreter that sees undefined behaviour (nightly Rust with miri)
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p aioxide-awaitable-abi
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p aioxide-redis --lib proto::
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p aioxide-redis --test proto

test-all: ## test-python on every CPython 3.11 or newer on this machine
	MAKE="$(MAKE)" tools/test_all.sh

# One run for both modes: development mode implies the debug mode of asyncio.
test-strict: $(VENV)/.extension $(VENV)/.ecosystem redis postgresql ## pytest again in debug and development mode, every ResourceWarning an error
	PYTHONASYNCIODEBUG=1 PYTHONDEVMODE=1 PYTHONWARNINGS=error::ResourceWarning $(BIN)/python -m pytest $(PYTEST_FLAGS)

bench: $(VENV)/.extension $(VENV)/.rivals ## aioxide beside asyncio, uvloop and others: a table and JSON
	$(BIN)/python benchmarks/run.py $(BENCH_FLAGS)

bench-redis: $(VENV)/.extension $(VENV)/.ecosystem $(VENV)/.rivals redis ## aioxide.redis beside redis-py and other clients, on one server
	$(BIN)/python benchmarks/redis_clients.py $(BENCH_FLAGS)

bench-page: $(VENV)/.extension ## benchmarks/RESULTS.md from the saved runs beside it
	$(BIN)/python benchmarks/write_results.py

bench-requests: $(VENV)/.extension $(VENV)/.rivals ## instructions of a request to uvicorn and aiohttp, by library and loop, by valgrind
	$(BIN)/python benchmarks/request_cost.py $(BENCH_FLAGS)

check-cost: $(VENV)/.extension ## instructions per operation, counted by valgrind, against those in the repository
	$(BIN)/python benchmarks/cost.py $(COST_FLAGS)

bench-floor: $(VENV)/.extension ## how much faster rows would be if our own code cost nothing, by valgrind
	$(BIN)/python benchmarks/floor.py $(BENCH_FLAGS)

check: check-rust check-python ## formatting, lints, layering, types

check-rust: $(VENV)/.packages $(DENY) ## fmt, clippy, cargo deny, documentation warnings
	cargo fmt --all --check
	# Clocks and threads are banned by the crates' clippy.toml in what ships, not in their tests.
	cargo clippy --locked --workspace --all-features --lib --bins -- -D warnings
	cargo clippy --locked --workspace --all-features --all-targets -- -D warnings -A clippy::disallowed_methods
	$(DENY) --log-level error --all-features check bans licenses sources
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --document-private-items

check-python: $(VENV)/.extension ## ruff, mypy, stubtest
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/stubtest aioxide._rust

docs: $(VENV)/.packages ## the Rust documentation, in target/doc
	cargo doc --workspace --all-features --no-deps

format: $(VENV)/.packages ## rewrites the sources as `make check` wants them
	cargo fmt --all && $(BIN)/ruff check --quiet --fix . && $(BIN)/ruff format --quiet .

clean: ## removes everything that was built or installed here
	rm -rf target .venv .venvs .tools python/aioxide/_rust.*.so

tools:
	@tools/check_tools.sh

redis:
	@tools/prepare_redis.sh

postgresql:
	@tools/prepare_postgresql.sh

$(CREATED): tools/create_venv.sh
	tools/create_venv.sh $(VENV) && touch $@

$(VENV)/.packages: $(CREATED) pyproject.toml $(REQUIREMENTS)
	$(BIN)/pip install --quiet --group dev $(addprefix -r ,$(REQUIREMENTS)) && touch $@

$(VENV)/.extension: $(VENV)/.packages $(RUST_SOURCES) | tools
	PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --target-dir $(VENV)/target && touch $@

$(VENV)/.ecosystem: $(VENV)/.packages tools/install_ecosystem.sh $(ECOSYSTEM)
	tools/install_ecosystem.sh $(BIN)/pip $(ECOSYSTEM) && touch $@

$(VENV)/.rivals: $(CREATED) tools/install_rivals.sh $(BENCH_REQUIREMENTS)
	tools/install_rivals.sh $(BIN)/pip $(BENCH_REQUIREMENTS) && touch $@

# Hardly optimised: it runs for less than a second and builds in half the time.
.tools/bin/cargo-deny: | tools
	CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	  cargo install --quiet --locked --root .tools cargo-deny@0.20.2

.tools/bin/cargo-fuzz: | tools
	CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off cargo install --quiet --locked --root .tools cargo-fuzz@0.13.2

.PHONY: help run test test-rust test-loom test-python test-all test-strict fuzz miri bench bench-redis bench-page bench-floor bench-requests check-cost check check-rust check-python docs format clean tools redis postgresql
