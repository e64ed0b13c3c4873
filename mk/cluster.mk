# A Kubernetes cluster on this machine: kind with Traefik, istiod and Contour. See cluster/README.md.
export CLUSTER_DIR ?= $(CURDIR)/.cluster

.PHONY: test-kubernetes kubernetes molecule-cluster cluster-images cluster-tests cluster cluster-down cluster-status test-cluster contract
cluster: venv ## a Kubernetes cluster with data planes at ports of 127.0.0.1 (CLUSTER=existing: the one of KUBECONFIG)
	@$(VENV)/bin/python cluster/cluster.py up

cluster-down: venv ## end it, and what was started for it
	@$(VENV)/bin/python cluster/cluster.py down

cluster-status: venv
	@$(VENV)/bin/python cluster/cluster.py status

# A clean machine builds for about 20 minutes, once; what is done by then is kept. Tests that miss something say so in one line.
CLUSTER_BUILD_LIMIT ?= 20m
cluster-images: export CLUSTER_BUILDS :=
cluster-images: venv ## fill the cache with what a cluster is made of, for at most CLUSTER_BUILD_LIMIT
	@$(STEP) $@ scripts/cluster-images $(CLUSTER_BUILD_LIMIT)

test-kubernetes: cluster-images cluster-tests ## the checks that need a cluster; about 35 minutes the first time

cluster-tests: venv-dev lab-setup ## all that needs a cluster, in one
	@$(BIN)/python cluster/cluster.py run -- $(MAKE) --no-print-directory --keep-going kubernetes molecule-cluster

# Both wait a lot, so they go side by side.
kubernetes: venv-dev lab-setup
	@$(STEP) $@ $(BIN)/python cluster/cluster.py run -- $(PYTEST) --no-loadscope-reorder tests/cluster tests/contract $(TESTS)

test-cluster: venv-dev lab-setup ## tests against that cluster; ended afterwards where it did not run before
	@$(STEP) $@ $(BIN)/python cluster/cluster.py run -- $(PYTEST) tests/cluster $(TESTS)

contract: venv-dev lab-setup ## one suite that every router passes at its data plane (TESTS=--write-table: into docs/routers.md)
	@$(STEP) $@ $(BIN)/python cluster/cluster.py run -- $(PYTEST) tests/contract $(TESTS)

molecule-cluster: venv-dev lab-setup
	@$(STEP) $@ scripts/in-copy scripts/molecule kubernetes_canary kubernetes_blue_green hybrid
