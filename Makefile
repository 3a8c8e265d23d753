# Everything a newcomer needs; `make help` lists it. What needs more than a line is in integration-tests/setup.sh and examples/.
CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/highwater/target
# Whole, so that paths into it hold anywhere.
override export CARGO_TARGET_DIR := $(if $(filter /%,$(CARGO_TARGET_DIR)),,$(CURDIR)/)$(CARGO_TARGET_DIR)
# Before a distribution's cargo, which is older and knows nothing of rust-toolchain.toml.
export PATH := $(HOME)/.cargo/bin:$(PATH)
# Where programs are, also if cargo is told to build for a named target.
PROGRAMS := $(CARGO_TARGET_DIR)$(addprefix /,$(CARGO_BUILD_TARGET))/debug
SETUP := integration-tests/setup.sh
# With the integration tests, so that every target chooses the same features and nothing is compiled twice.
BUILD := cargo build --package highwater --package integration-tests --bins --locked

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

build: ## compile everything
	@$(SETUP) build
	cargo build --workspace --all-targets --locked

bin: ## build the program; with -s its path is all that goes to stdout
	@$(SETUP) build >&2
	$(BUILD)
	@echo '$(PROGRAMS)/highwater'

demo: ## flights from Parquet, then the same SQL as a stream and as a job of a server, and comparisons
	@$(SETUP) build
	@examples/demo.sh

demo-kafka: ## the same with a real Kafka broker in between, which it starts and stops
	@$(SETUP) test
	@examples/demo-kafka.sh

test: ## install what the tests need, check format and lints, run every test
	@$(SETUP) test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BUILD)
	cargo test --workspace --locked --no-fail-fast

chaos: ## kill runs, servers, brokers and databases at random: KILLS=n (default 200), SEED=s, JOBS=n side by side (default 2)
	@$(SETUP) test
	$(BUILD)
	HIGHWATER_CHAOS_KILLS=$(or $(KILLS),200) HIGHWATER_CHAOS_SEED=$(or $(SEED),1) HIGHWATER_CHAOS_JOBS=$(or $(JOBS),2) cargo test --package integration-tests --package highwater --test suite --locked -- --nocapture random_kills

failpoints: ## every step of the epoch protocol fails once in each way (minutes); FAULTS=decide.before=kill@1 plays a part of them
	@$(SETUP) test
	$(BUILD)
	HIGHWATER_FAILPOINTS=$(or $(FAULTS),all) cargo test --package integration-tests --package highwater --test suite --locked -- --nocapture whatever_fails_at_a_step

broken: ## turn guards of the program off, one at a time: a test must notice each (minutes); SWITCH=name tries some of them
	@$(SETUP) test
	$(BUILD)
	HIGHWATER_BROKEN_BUILDS=$(or $(SWITCH),all) cargo test --package integration-tests --package highwater --test suite --locked -- --nocapture builds_that_are_broken

simulate: ## a million seeded schedules of the epoch protocol from SIMULATE_FIRST on, and every one of small runs (minutes)
	SIMULATE_COUNT=$${SIMULATE_COUNT:-1000000} cargo test --package control --package highwater --package integration-tests --locked --test simulator -- --include-ignored --nocapture

check: ## exactly what continuous integration runs
	.ci/run

fmt: ## format the code
	cargo fmt --all

lint: ## check format and lints only
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bless: ## rewrite the expected text in the tests (review the difference)
	UPDATE_EXPECT=1 cargo test --workspace --locked --no-fail-fast

bench: ## build the released profile, measure it, write docs/bench.md, docs/bench-service.md and docs/bench-durability.md
	@$(SETUP) test
	integration-tests/benches/run.sh $(ARGUMENTS)

clean: ## remove what was built (the cache of tools stays)
	cargo clean

.PHONY: help build bin demo demo-kafka test failpoints broken simulate chaos check fmt lint bless bench clean
