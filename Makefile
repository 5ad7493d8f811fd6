# From a fresh clone: `make demo`, `make test`. Each sets up .venv by itself; Python >= 3.11 is all they need.
SHELL := /bin/bash
RIGHT := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(RIGHT)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PILOTAGE_ROOT := $(CURDIR)

.PHONY: help setup demo test test-slow lint bench lock prefect night clean

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/ready  ## install everything into .venv, from hashed pins

.venv/ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Pilotage needs Python 3.11 or later with venv; install it, or run make PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up .venv ($(PYTHON)); once, a minute or three ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

SERVE ?= 1
demo: setup  ## a day of real prompts, a night of learning, a better day (SERVE=0: without the dashboard)
	@$(BIN)/pilotage demo $(if $(filter 0,$(SERVE)),,--serve)

test: setup  ## the tests (slow suites apart), a process per core
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: setup  ## the slow suites
	@$(BIN)/python -m pytest -q -m slow

lint: setup  ## style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

BUDGETS := 8.3e-5 2.3e-4 3.0e-4 6.6e-4 1.9e-3 5.3e-3 1.5e-2
bench: setup  ## measure again, rewriting docs/benchmarks.md (BENCH_DATA=DIR: data sets that are not in a package)
	@$(BIN)/python -m benchmarks.routing --data paretobandit --budgets $(BUDGETS) --seeds 20 \
	  | $(BIN)/python -m benchmarks.publish paretobandit
	@$(BIN)/python -m benchmarks.propensity --draws 1000000 | $(BIN)/python -m benchmarks.publish propensity
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.ope --n 10000 100000 1000000 --reps 20 \
	  | $(BIN)/python -m benchmarks.publish ope
	@$(BIN)/python -m benchmarks.record --backend sqlite postgresql --callers 64 --processes 1 4 --seconds 5 \
	  | $(BIN)/python -m benchmarks.publish record
	@$(BIN)/python -m benchmarks.durability --cycles 100 --step 61
	@$(BIN)/python -m benchmarks.erasure --events 100000 | $(BIN)/python -m benchmarks.publish erasure
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.load --rows 1000000 | $(BIN)/python -m benchmarks.publish load
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training --events 1000000 --d 64 --k 4 --workers 1 2 \
	  | $(BIN)/python -m benchmarks.publish training
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.latency --d 64 --k 4 32 --repeat 5 \
	  | $(BIN)/python -m benchmarks.publish latency
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.drift --data paretobandit --budget 1.9e-3 --seeds 20
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sharing
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.faults
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.service --rps 500 --seconds 60 --workers 2
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.night --scopes 30 --rows 1000000 --workers 1 2
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.tuning --seeds 10
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.canary --rollouts 2000
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.rollback --rollbacks 200
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.pilot_scale --files 1000
	@$(BIN)/python -m benchmarks.features --data paretobandit --seeds 5 --budgets 3.0e-4 8.3e-5
	@test -z "$(BENCH_DATA)" || { set -e; \
	  $(BIN)/python -m benchmarks.routing --data $(BENCH_DATA)/paretobandit_k3.npz --budgets $(BUDGETS) --seeds 8 \
	    | $(BIN)/python -m benchmarks.publish paretobandit_k3; \
	  $(BIN)/python -m benchmarks.routing --data $(BENCH_DATA)/zeroeval --budgets auto --seeds 6 \
	    | $(BIN)/python -m benchmarks.publish zeroeval; \
	  $(BIN)/python -m benchmarks.routing --data $(BENCH_DATA)/routellm --budgets auto --seeds 1 \
	    | $(BIN)/python -m benchmarks.publish routellm; }

prefect: setup  ## Prefect server, worker and deployments on this machine, until Ctrl-C
	@$(BIN)/python -m flows.laptop

night: setup  ## rehearse a night on this home's record: a scheduled run, one on demand, nothing left running
	@OMP_NUM_THREADS=1 $(BIN)/python -m flows.rehearsal

lock: setup  ## resolve requirements.lock anew; it names no index
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --upgrade --extra demo --group dev pyproject.toml -o requirements.lock

clean:  ## remove .venv and caches; never the data in .pilotage
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build
