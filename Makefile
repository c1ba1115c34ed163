# SPDX-License-Identifier: LGPL-2.1-or-later
# What a developer can do here. All of it works on a fresh Debian machine, as root; `setup` gets what is missing.

.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON := .venv/bin/python
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help
help: ## list these targets
	@echo "oomslice: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: demo
demo: setup ## boot a virtual machine, run it out of memory, show who died and why
	@tools/demo

.PHONY: test
test: build ## all tests, those in virtual machines too; ends with "N passed, N failed"
	@tools/run-tests unit core bus vm

.PHONY: test-unit test-core test-bus test-vm
test-unit: build ## hermetic tests and linters: a minute
	@tools/run-tests unit
test-core: build ## the C part under the sanitizers
	@tools/run-tests core
test-bus: build ## org.oomslice1 on a bus of its own
	@tools/run-tests bus
test-vm: build ## virtual machines that run out of memory
	@tools/run-tests vm

.PHONY: test-vm-all
test-vm-all: build ## as test-vm, every scenario on both kernels, 50 shortages in a row: an hour
	@OOMSLICE_VM_ALL=1 OOMSLICE_STORMS=$${OOMSLICE_STORMS:-50} tools/run-tests vm

.PHONY: deb
deb: setup ## dist/oomslice_VERSION_ARCH.deb, built in a trixie root
	@tools/build-deb

.PHONY: deb-lint
deb-lint: setup ## the same, with lintian's opinion of it and of the changes file; fails on errors and warnings
	@tools/build-deb --lintian

.PHONY: bench
bench: build ## the figures: times, memory, wakeups; forty minutes (BENCH="--units 50 --json FILE": less, and as JSON)
	@$(PYTHON) -m tests.bench $(BENCH)

.PHONY: bench-peers
bench-peers: build ## other daemons, the kernel and oomslice on the same storms; PEERS= STORMS= SWAP= RUNS= choose
	@$(PYTHON) -m tests.bench.peers $(if $(PEERS),--peers "$(PEERS)") $(if $(STORMS),--storms "$(STORMS)") \
		$(if $(SWAP),--swap "$(SWAP)") $(if $(RUNS),--runs $(RUNS)) $(if $(PUBLISH),--publish)

.PHONY: screenshot
screenshot: setup ## docs/top.svg anew, from what top drew when tests/vm/test_tool.py last ran
	@tools/screenshot .cache/vm/top.typescript

.PHONY: lint
lint: build ## ruff, mypy, clang-format, shellcheck, systemd-analyze verify
	@$(PYTHON) -m pytest -q tests/unit/test_linters.py tests/unit/test_units_verify.py

.PHONY: format
format: setup ## format Python and C in place
	@.venv/bin/ruff format . tools/run-tests
	@.venv/bin/ruff check --fix . tools/run-tests
	@.venv/bin/clang-format -i core/*.[ch] bpf/*.[ch] scores/*.[ch]

.PHONY: setup
setup: ## install what the other targets need (apt, .venv)
	@tools/setup

.PHONY: build
build: setup ## the C module, in place, so that the tree can be imported
	@$(MAKE) --no-print-directory .cache/inplace

.cache/inplace: cffi_build.py $(wildcard core/*.c core/*.h) .venv/.requirements
	@echo "build: oomslice/_core"
	@$(PYTHON) cffi_build.py --inplace >/dev/null
	@touch $@

.PHONY: clean
clean: ## remove what was built; keeps .cache/ and .venv/
	rm -rf build build-* dist .cache/inplace .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f oomslice/*.so
	find oomslice tests tools -name __pycache__ -prune -exec rm -rf {} +
