# `make help` lists the targets. They are in mk/: what they do is in mk/*.mk, how in scripts/.
.DEFAULT_GOAL := help
.PHONY: help

include mk/*.mk

help: ## list the targets
	@grep -hE '^[a-z-]+:.* ## ' $(MAKEFILE_LIST) | sed -E 's/:.* ## /\t/' | sort | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  %-16s %s\n' "$$name" "$$text"; done
