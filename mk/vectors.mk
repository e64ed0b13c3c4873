# The statistics against reference values of other implementations; any file of the same format does.
FILE ?= tests/vectors/stats.json

.PHONY: vectors
vectors: venv ## check the statistics against reference values (FILE=...)
	@$(VENV)/bin/python tests/vectors/check.py '$(FILE)'
