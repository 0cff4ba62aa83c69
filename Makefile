# Everything runs in .venv, which is made on first use with the exact versions of constraints.txt. After that no target
# needs a network. PYTHON picks another interpreter than the newest suitable one on PATH.

VENV := .venv
BIN := $(VENV)/bin
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach candidate,python3 python3.13 python3.12 python3.11,\
  $(shell $(candidate) -c '$(SUITABLE)' 2>/dev/null && echo $(candidate))))
PYTEST := $(BIN)/python -m pytest
# Of branches, too. Whoever has these parts covers more than 93 %; without them much of what uses them is skipped.
COVERED_WITH := docker kube-apiserver cluster
COMMA := ,
MINIMUM_COVERAGE := $(if $(and $(filter true,$(CI)),$(if $(filter-out $(subst $(COMMA), ,$(REMIT_REQUIRE)),$(COVERED_WITH)),,all)),93,85)
# More workers than cores: most of the time tests wait for processes, timers and disks. One computes meanwhile.
WORKERS := 6
DISTRIBUTE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --ignore tests/bench \
  --ignore tests/e2e/cluster --progress -o console_output_style=classic

# Bytecode is kept whatever the shell says: tests start hundreds of interpreters.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo up test cluster-test soak check crds docs manifests transcript bench launcher clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.runs ## Watch policies and tasks at work, with stock kubectl and no cluster
	@$(BIN)/remit demo

up: $(VENV)/.runs ## Serve the embedded control plane with the operator, until interrupted
	@$(BIN)/remit up

test: $(VENV)/.runs ## Run all tests and print the coverage
	@$(compile)
	$(PYTEST) $(DISTRIBUTE) --cov --cov-report term --cov-fail-under $(MINIMUM_COVERAGE)

cluster-test: $(VENV)/.develops ## Install the chart on the cluster of REMIT_TEST_KUBECONFIG, and run tasks there
	$(PYTEST) -p no:cacheprovider --durations 10 tests/e2e/cluster

soak: $(VENV)/.runs ## Run all tests with their long repetitions, which takes hours
	REMIT_SOAK=1 $(PYTEST) $(DISTRIBUTE)

check: $(VENV)/.develops ## Run the static checks, and compare generated files with the models
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml operator
	$(BIN)/python -m remit.api --check
	$(PYTEST) -q -p no:cacheprovider tests/unit/packaging

crds: $(VENV)/.runs ## Write what is generated from the models: crds/ and its copies, docs/api-reference.md
	$(BIN)/python -m remit.api

docs: crds ## Write the references: docs/api-reference.md, docs/metrics.md
	PYTHONPATH=tests $(BIN)/python tests/metricspage.py

manifests: $(VENV)/.develops ## Write what is rendered from the chart: operator.yaml of manifests/, and dist/install.yaml
	PYTHONPATH=tests $(BIN)/python tests/installyaml.py

transcript: $(VENV)/.runs ## Write what the demo and the tutorial print into docs/demo.md and docs/tutorial.md
	$(BIN)/python tests/transcript.py
	PYTHONPATH=operator $(BIN)/python tests/tutorial.py

bench: $(VENV)/.runs ## Measure, and compare with the peers that are found on this machine
	@PYTHONPATH=tests $(BIN)/python -m bench $(SECTIONS)

launcher: | $(VENV)/bin/python ## Build the program that Jobs start with, by Zig or else by the machine's cc
	@$(MAKE) --no-print-directory $(VENV)/.builds || echo "without Zig, cc builds it, for this machine's architecture only"
	$(BIN)/python operator/launcher/build.py

clean: ## Remove what was built, .venv included
	rm -rf $(VENV) .coverage* htmlcov dist build .*_cache .hypothesis .benchmarks

$(VENV)/.runs: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(call install,test)

$(VENV)/.develops: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(call install,dev)
	@touch $(VENV)/.runs

$(VENV)/.builds: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(call install,launcher)

$(VENV)/bin/python:
	@$(if $(PYTHON),,echo "Python 3.11 or newer with venv is needed (on Debian: apt-get install python3 python3-venv)" >&2; exit 1)
	$(PYTHON) -m venv $(VENV)

# Each worker would compile the tests of a fresh clone anew, and measure that. Faults are left to the workers to tell.
COMPILED := $(VENV)/.compiled
define compile
{ test -e $(COMPILED) && test -z "$$(find operator tests -name '*.py' -newer $(COMPILED))"; } || { touch $(COMPILED); \
  printf '%s\n' tests/unit 'tests/conformance tests/e2e tests/integration' | \
  xargs -L 1 -P 2 $(PYTEST) --collect-only -qq -p no:cacheprovider >/dev/null 2>&1 || true; }
endef

# Build isolation reads only PIP_CONSTRAINT, so that the build tools are pinned too.
define install
echo "installing into $(VENV) …"; PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
  $(BIN)/python -m pip install --quiet --editable '.[$(1)]' && touch $@
endef
