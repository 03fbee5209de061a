# rawpod: set-up, demonstration and tests. `make demo` and `make test` install what is missing first.

SHELL := /bin/sh
VENV := .venv/bin
PYTEST := $(VENV)/pytest --durations=10 --durations-min=0.5
PREFIX := /opt/rawpod
RELEASES := bookworm trixie

CRUN_OPTIONS := $(if $(wildcard /sys/fs/cgroup/cgroup.controllers),, --cgroup-manager=disabled)

# Root tests watch a live kernel against the clock. What fails is shown, and tried once more: the second answer counts.
define root_tests
$(PYTEST) -q $(1) || { [ $$? -eq 1 ] && echo "== what failed, once more" && \
	$(PYTEST) -q --last-failed --last-failed-no-failures=none $(1); }
endef

.PHONY: help setup setup-test demo install uninstall check conformance test test-quick test-native test-vm bench clean

help:
	@echo "make demo         the main job: a Deployment kept at its count, narrated"
	@echo "make test         every check and test, here and in virtual machines of Debian 12 and 13"
	@echo "make test-quick   checks, unit tests and native root tests (some minutes)"
	@echo "make conformance  the runtime-spec's sentences put to rawpod-oci, crun and runc"
	@echo "make check        format, lint, types, layers, unit tests (half a minute)"
	@echo "make setup        build .venv with .venv/bin/rawpod"
	@echo "make install      put the program under $(PREFIX), link /usr/local/bin/rawpod, add the systemd units"
	@echo "make bench        starts and replacements, timed beside crun"

setup:
	@scripts/setup run

setup-test:
	@scripts/setup test

demo: setup
	@$(VENV)/python examples/demo.py

install:
	@PREFIX=$(PREFIX) scripts/install

uninstall:
	@PREFIX=$(PREFIX) scripts/install --remove

# What needs no test runner goes beside the tests: there are two processors.
check: setup-test
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target check-static check-unit

.PHONY: check-static check-unit
check-static:
	@$(VENV)/ruff format --check -q .
	@$(VENV)/ruff check -q .
	@$(VENV)/mypy --no-error-summary
	@cd vagrant && ../$(VENV)/mypy --no-error-summary --strict -p harness
	@layers=$$($(VENV)/lint-imports) || { echo "$$layers"; exit 1; }

check-unit:
	@$(PYTEST) -q tests/unit

# Two processes, each the parent of what its containers leave behind.
test-native: setup-test
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target native-linux native-oci

.PHONY: native-linux native-oci
native-linux:
	@$(call root_tests,tests/linux)

native-oci:
	@$(call root_tests,tests/oci)

# The suite of the runtime-spec for rawpod-oci and its peers. crun manages cgroups where their controllers are on v2 alone.
conformance: setup-test
	@for runtime in "$(CURDIR)/$(VENV)/rawpod-oci" "crun$(CRUN_OPTIONS)" runc; do \
		echo "== $$runtime"; RUNTIME="$$runtime" $(VENV)/pytest -q -r fE tests/oci || failed=1; done; exit $$failed

test-quick: check test-native

# Both releases at once: a test run keeps one CPU busy.
test-vm: setup-test
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=line $(RELEASES:%=vm-%)

# Debian 12's interpreter runs the unit tests on Debian 12 itself; what is newer is tried in the machine.
vm-trixie: UNIT := tests/unit

vm-%:
	@vagrant/vm run --release $* --timeout 3900 -- make in-vm UNIT=$(UNIT)
	@vagrant/vm run --release $* --systemd --timeout 1800 -- make in-vm-systemd
	@vagrant/vm run --release $* --systemd --timeout 900 -- packaging/check-units
	@vagrant/vm run --release $* --systemd --timeout 900 -- packaging/check-supervisor

# Inside the virtual machine: what was built there is used as it is, and a skipped test is a failure. Tests of userland, in
# which kernels hardly differ, are left to the host. Of the runtime-spec's
# suite those that look at cgroups: emulated, all of it takes longer than everything else together. What podman and
# containerd do with crun and runc is asked with `-m peer`, when their versions or the lists change.
.PHONY: in-vm in-vm-systemd
in-vm:
	@export RAWPOD_VM=1 RAWPOD_RANDOM_CONFIGS=30 RAWPOD_KILLS=10; $(call root_tests,-m "not peer and not userland" tests/vm tests/linux $(UNIT))
	@export RAWPOD_VM=1; $(call root_tests,-m "needs_cgroups or needs_controllers" tests/oci)

# systemd's driver of cgroups, which podman takes by itself where systemd is PID 1. Podman's whole list is in tests/vm.
in-vm-systemd:
	@export RAWPOD_VM=1; $(call root_tests,-m "not peer" tests/systemd)

test: check test-native test-vm

bench: setup-test
	@$(VENV)/python -m bench.commands
	@$(VENV)/python -m bench.oci
	@$(VENV)/python -m bench.replace
	@$(VENV)/python -m bench.netns_attach

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis
