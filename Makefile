# Every target sets up what it needs itself: a fresh Debian 12 or 13 with root (or sudo), git, python3 and make will do.
SHELL = /bin/sh
export PYTHONDONTWRITEBYTECODE = 1
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
BIN = .venv/bin
CODE = vmnet dom0 hooks controller_bridge guest scripts tests vagrant setup.py
QUICK = $(wildcard tests/unit tests/property tests/fuzz tests/sim)
# no caches in the tree: a run as root would leave files there that nobody else can remove
PYTEST = $(BIN)/python -m pytest -q -p no:cacheprovider
OUT ?= vmnet-demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-machines vagrant-test box check bench clean setup
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 15

demo: ## two hosts, a VM, traffic: three migrations and a table of what they lost (root, 3 minutes)
	@scripts/setup.sh lab
	@mkdir -p $(OUT)
	@$(SUDO) $(BIN)/vmnet demo --output $(OUT)

test: ## all tests: `check`, and those with real hosts, VMs and migrations (root)
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory static
	@$(SUDO) env HYPOTHESIS_STORAGE_DIRECTORY=/tmp/vmnet-hypothesis scripts/isolated.sh $(PYTEST) --again 2 $(ARGS)

test-machines: ## tests with full Debian machines, emulated if need be (root)
	@scripts/setup.sh machines
	@$(SUDO) env VMNET_TEST_MACHINES=1 scripts/isolated.sh $(PYTEST) tests/machines $(ARGS)

box: ## pack a Debian 12 machine as a box for Vagrant and libvirt, print the file (root)
	@scripts/setup.sh box
	@$(SUDO) $(BIN)/python -m vmnet.lab.machines.box 12

vagrant-test: ## two hosts and a client by Vagrant, migrations under the meter, a table of what they lost (root)
	@scripts/setup.sh vagrant
	@$(SUDO) env PYTHONPATH=tests/machines $(BIN)/python vagrant/acceptance.py

check: ## style, types, unit, property, fuzz and simulation tests (no root, a minute)
	@scripts/setup.sh check
	@$(MAKE) --no-print-directory static
	@$(PYTEST) $(QUICK) $(ARGS)

.PHONY: static
static:
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/ruff format --quiet --check $(CODE) || { echo "not formatted: run $(BIN)/ruff format $(CODE)" >&2; exit 1; }
	@$(BIN)/mypy --cache-dir .venv/mypy

bench: ## measure migrations, plain libvirt and vmnet, into bench/ (root, an hour)
	@scripts/setup.sh lab
	@mkdir -p bench
	@$(SUDO) $(BIN)/vmnet bench vm --json bench/vm.json --plot bench $(ARGS)

setup: ## only install what all the others need (root)
	@scripts/setup.sh test

clean: ## take labs of the demo and the bench down; remove .venv, results, caches
	@if [ -x $(BIN)/vmnet ]; then for lab in demo-pair demo-pair-vmnet demo-follow bench-pair bench-pair-ovs bench-pair-ovn bench-pair-vmnet bench-pair-openflow-vmnet bench-machines bench-machines-vmnet bench-machines-ovs bench-machines-ovs-vmnet bench-machines-13 bench-machines-13-vmnet bench-machines-13-ovs bench-machines-13-ovs-vmnet pisa-bench-standard pisa-bench-separation pisa-bench-openflow forward-bench; do \
	    [ ! -d /run/vmnet-lab/$$lab ] || $(SUDO) $(BIN)/vmnet lab down $$lab; done; fi
	rm -rf .venv $(OUT) bench build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
