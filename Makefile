# Everything a newcomer needs; `make help` lists it. What needs more than a line is in integration-tests/setup.sh and examples/demo.sh.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/highwater/target
export PATH := $(PATH):$(HOME)/.cargo/bin
SETUP := integration-tests/setup.sh
# With the integration tests, so that every target chooses the same features and nothing is compiled twice.
BUILD := cargo build --package highwater --package integration-tests --bins --locked

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

build: ## compile everything
	@$(SETUP) build
	cargo build --workspace --all-targets --locked

bin: ## build the program; its path is the last line
	@$(SETUP) build >&2
	$(BUILD)
	@echo $(CARGO_TARGET_DIR)/debug/highwater

demo: ## flights from Parquet, then the same SQL as a stream, and a comparison of both
	@$(SETUP) build
	@examples/demo.sh

test: ## install what the tests need, check format and lints, run every test
	@$(SETUP) test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BUILD)
	cargo test --workspace --locked --no-fail-fast

check: ## exactly what continuous integration runs
	.ci/run

fmt: ## format the code
	cargo fmt --all

lint: ## check format and lints only
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bless: ## rewrite the expected text in the tests (review the difference)
	UPDATE_EXPECT=1 cargo test --workspace --locked --no-fail-fast

bench: ## build the released profile, measure it, write docs/bench.md
	@$(SETUP) test
	integration-tests/benches/run.sh $(ARGUMENTS)

clean: ## remove what was built (the cache of tools stays)
	cargo clean

.PHONY: help build bin demo test check fmt lint bless bench clean
