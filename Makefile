# Everything a newcomer needs. `make help` lists the targets.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/highwater/target

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

test: ## run every test
	cargo test --workspace

check: ## what continuous integration runs
	cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings && $(MAKE) test

.PHONY: help test check
