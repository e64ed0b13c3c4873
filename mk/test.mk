# The checks. Each is a target of its own; `make test` runs them all: quick ones first, the longest last.
STEP := scripts/step
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest -n 2 --dist loadgroup
TESTS ?=

.PHONY: test test-packages lint yamllint flake8 shellcheck ansible-lint changelog docs unit integration system contract-haproxy newest e2e sanity install-check importer molecule bench
.NOTPARALLEL: test lint

test: export CLUSTER_BUILDS := no
test: export MOLECULE_CLUSTER := no
# Tests of routes need the programs of an API server: a clean machine builds them once, for 20 minutes at most.
test: test-packages lint unit install-check importer cluster-images sanity molecule system contract-haproxy ## run every check but those of a cluster (test-kubernetes)

test-packages: venv-dev
	@scripts/apt git haproxy prometheus prometheus-alertmanager prometheus-node-exporter rsyslog libfaketime

lint: yamllint flake8 shellcheck changelog docs ansible-lint ## style, names, changelog, documentation

yamllint: venv-dev
	@$(STEP) $@ scripts/in-copy yamllint --strict .

flake8: venv-dev
	@$(STEP) $@ scripts/in-copy flake8

shellcheck: venv-dev
	@$(STEP) $@ scripts/shellcheck

ansible-lint: venv-dev
	@$(STEP) $@ scripts/in-copy ansible-lint --nocolor -q

changelog: venv-dev
	@$(STEP) $@ scripts/in-copy antsibull-changelog lint

docs: venv-dev
	@$(STEP) $@ scripts/in-copy antsibull-docs lint-collection-docs --plugin-docs --disallow-unknown-collection-refs .

unit: venv-dev ## tests of the pure parts (TESTS='-k name' for some)
	@$(STEP) $@ $(PYTEST) tests/unit $(TESTS)

integration: venv-dev lab-setup ## tests against real HAProxy and Prometheus
	@$(STEP) $@ $(PYTEST) tests/integration $(TESTS)

# The whole rollouts are one group, hence one after the other, and wait a lot; all else is done beside them.
system: venv-dev lab-setup ## integration and e2e at once, in two thirds of the time
	@$(STEP) $@ $(PYTEST) tests/e2e tests/chaos tests/integration $(TESTS)

contract-haproxy: venv-dev lab-setup ## the contract of the routers that need no cluster
	@$(STEP) $@ $(PYTEST) tests/contract -k haproxy $(TESTS)

newest: venv-dev lab-setup ## signals, playbooks and rollouts once more, with the newest core
	@$(STEP) $@ scripts/newest $(TESTS)

e2e: venv-dev lab-setup ## whole rollouts under load; signals, kills and frozen control hosts
	@$(STEP) $@ $(BIN)/pytest tests/chaos tests/e2e $(TESTS)

install-check: venv-dev ## build the collection, install it elsewhere, use it from there
	@$(STEP) $@ scripts/in-copy scripts/install-check

importer: venv-dev ## galaxy-importer
	@$(STEP) $@ scripts/in-copy scripts/importer

sanity: venv-dev ## ansible-test sanity with each core that the machine has a Python for, units with the newest
	@$(STEP) $@ scripts/sanity

molecule: venv-dev lab-setup ## scenarios on HAProxy processes, on containers and in a cluster (the one that runs, else one for them)
	@CLUSTER_DIR=$${CLUSTER_DIR:-$(CURDIR)/.cluster} $(STEP) $@ scripts/in-copy scripts/molecule

bench: venv-dev lab-setup ## figures: the way back of 1 and of 100 HAProxy processes, from a fault to the last bad answer, the cost of a ring, and of being watched
	@$(BIN)/python tests/bench/bench_rollback.py
	@$(BIN)/python tests/bench/bench_ring.py
	@$(BIN)/python tests/bench/bench_faults.py
	@$(BIN)/python tests/bench/bench_monitoring.py
