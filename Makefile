# make run | test | lint | lock; more words go in ARGS: make run ARGS="--port 9000"
PYTHON ?= python3

.PHONY: run test lint lock
run test lint lock:
	@$(PYTHON) tools/dev.py $@ $(ARGS)
