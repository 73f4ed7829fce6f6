# What a developer does here, by hand and in CI. `make help` lists it.
# Everything is built with the features of the whole workspace, so that no target rebuilds what another built.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
STATIC := x86_64-unknown-linux-gnu
PROGRAMS := ipam-server ipamctl cni-shim
# What is built for the tests, once.
TESTED := $(shell sed -n 's/^features=//p' scripts/test)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install the Debian packages that building and testing need (as root; again is harmless)
	@scripts/setup

.PHONY: build
build: ## Build all programs
	cargo build --workspace --bins

.PHONY: demo
demo: setup build ## A VNet in a box: the whole story on this machine, in namespaces of its own (as root)
	@"$(TARGET_DIR)/debug/demo"

.PHONY: test
test: setup ## Set up, build and run every test (as root)
	@scripts/test

.PHONY: unit
unit: ## The tests of libraries and programs (those that wire pods need root)
	cargo test --workspace --lib --bins

.PHONY: ns
ns: build ## The whole-system tests in namespaces (as root); ONLY=name for some of them
	cargo test --workspace --test namespaces -- $(ONLY)

.PHONY: history
history: ## 200,000 calls on each database while everything goes wrong, and the proof; HISTORY_SEED=n plays one again
	cargo build --workspace --bins --locked --features $(TESTED)
	for database in $(or $(IPAM_TEST_DATABASE),sqlite postgres); do \
		HISTORY_CALLS=$(or $(HISTORY_CALLS),200000) IPAM_TEST_DATABASE=$$database \
			cargo test --workspace --locked --features $(TESTED) --test history -- whatever_goes_wrong; \
	done

.PHONY: fmt
fmt: ## Format
	cargo fmt --all

.PHONY: check
check: ## Format, lints, documentation, dependencies: all of it must be clean
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p ipam-server --all-targets --locked --features fault-points,otel -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny --locked check --hide-inclusion-graph bans licenses sources

.PHONY: bench
bench: ## Measure the planner, and the service beside pgbench and at a million allocations; ONLY="postgres sqlite large"
	cargo bench -p ipam-api --benches
	cargo build --release --locked -p ipam-server --bin ipam-server
	VNET_BIN_DIR="$(abspath $(TARGET_DIR))/release" cargo bench -p vnet-tests --bench service -- $(ONLY)

FUZZED := stdin cni_args prev_result entry claim
FUZZ := cni-shim/fuzz

.PHONY: fuzz
fuzz: ## Fuzz whatever the shim reads, 10 minutes each (FOR=seconds); wants the nightly toolchain
	@rustup run nightly rustc --version || { echo "fuzz: rustup toolchain install nightly" >&2; exit 1; }
	@command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	for target in $(FUZZED); do \
		mkdir -p "$(TARGET_DIR)/fuzz/$$target"; \
		cargo +nightly fuzz run --fuzz-dir $(FUZZ) --target-dir "$(TARGET_DIR)/fuzz/build" --sanitizer none $$target \
			"$(TARGET_DIR)/fuzz/$$target" $(FUZZ)/corpus/$$target -- -max_total_time=$(or $(FOR),600) -timeout=10; \
	done

.PHONY: release
release: ## Static programs into dist/; they run on any Linux of this architecture; FEATURES=ipam-server/otel adds traces
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(STATIC) \
		$(addprefix -p ,$(PROGRAMS)) $(if $(FEATURES),--features $(FEATURES))
	install -D -t dist $(PROGRAMS:%="$(TARGET_DIR)/$(STATIC)/release/%")
	@ls -l dist
