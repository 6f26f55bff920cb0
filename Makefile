# make run | test | soak | lint | bench | lock; more words go in ARGS: make run ARGS="--port 9000"
PYTHON ?= python3

.PHONY: run test soak lint bench lock
run test soak lint bench lock:
	@$(PYTHON) tools/dev.py $@ $(ARGS)
