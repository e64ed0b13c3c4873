# The statistics: against reference values of other implementations (any file of the format does), and by simulation.
FILE ?= tests/vectors/stats.json

.PHONY: vectors simulate
vectors: venv ## check the statistics against reference values (FILE=...)
	@$(VENV)/bin/python tests/vectors/check.py '$(FILE)'

simulate: venv ## how often gates are wrong and how fast they are, 15 minutes (ARGS='--plots DIR', ARGS=--short)
	@$(VENV)/bin/python bench/simulate.py $(or $(ARGS),--ours)
