# Everything that is done from a checkout. LAB_DIR and LAB_PORT move the lab, so that two can run beside each other.
.DEFAULT_GOAL := help
SHELL := /bin/bash

include mk/venv.mk
include mk/test.mk
include mk/cluster.mk
include mk/vectors.mk

CANDIDATE ?= none
VERSION ?= 5.1
RATE ?= 400
ROUTER ?= haproxy
ARGS ?=
LAB := $(VENV)/bin/python lab/lab.py
PLAYBOOK := $(VENV)/bin/ansible-playbook -i inventories/local
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export LAB_ROUTERS := $(ROUTER)
# How many of a version's visits end in a conversion; one in ten, where it is not named.
export LAB_CONVERSION ?= 5.1-a=0.13

.PHONY: rollout ab-test rollback status watch lab lab-setup lab-down clean help

rollout: lab-setup ## the whole rollout against a fresh lab under load; CANDIDATE=errors, slow, crash or silent for a bad version, ROUTER=kubernetes or hybrid
	@$(LAB) run --fresh --rate $(RATE) -- \
		$(PLAYBOOK) playbooks/rollout.yml -e delivery_version=$(VERSION) -e lab_candidate=$(CANDIDATE) $(ARGS)

ab-test: lab-setup ## an A/B test of two variants against a fresh lab under load, two minutes for a week; LAB_CONVERSION='5.1-a=0.13'
	@command -v prometheus >/dev/null || scripts/apt prometheus
	@$(LAB) run --fresh --rate $(RATE) --duration 240 -- scripts/ab-test $(PLAYBOOK) $(ARGS)

rollback: venv ## all traffic of the lab back to the arm that was stable
	@$(PLAYBOOK) playbooks/rollback.yml $(ARGS)

status: venv ## who receives the lab's traffic, and what runs
	@$(PLAYBOOK) playbooks/status.yml $(ARGS)
	@$(LAB) status

watch: venv ## the lab's rollout on one screen while it runs (in a second terminal)
	@$(LAB) watch

lab: lab-setup ## start the lab afresh: HAProxy, version 5.0 on blue, Prometheus; it stops by itself after 30 minutes
	@$(LAB) up

lab-setup: venv
	@PATH=$$PATH:/usr/sbin command -v haproxy >/dev/null || scripts/apt haproxy
	@$(LAB) setup

lab-down: venv ## stop everything of the lab
	@$(LAB) down

clean: ## stop the lab and delete what was made here (the cache outside the checkout stays)
	@[ ! -x $(VENV)/bin/python ] || $(LAB) down
	rm -rf .lab .ansible .pytest_cache .hypothesis .cache build $(VENV) $(VENV).lock
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'
