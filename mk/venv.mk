# The Python environments. `run` is all that a rollout needs; `dev` is for the checks. See scripts/venv.
VENV := .venv

.PHONY: venv venv-dev lock
venv: ## the virtual environment that a rollout needs
	@scripts/venv $(VENV) run
	@scripts/collections >/dev/null

venv-dev: ## the same, and what the checks need
	@scripts/venv $(VENV) dev
	@scripts/collections >/dev/null

lock: venv-dev ## write requirements/*.txt anew (LOCK=--upgrade for newer versions)
	@scripts/lock $(LOCK)
