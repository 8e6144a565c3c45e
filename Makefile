# What can be done here; `make` alone says it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST = $(BIN)/python -m pytest -q -rs
READY := $(VENV)/.ready
# what a report needs is there before the rest: Spark, and what the work on the project takes
REPORTS := $(if $(READY),$(VENV)/.reports)
READER := .model-reader
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
export PYTHONUTF8 := 1
CONFIG ?= default
MLFLOW_PORT ?= 5000
unexport VIRTUAL_ENV PYTHONHOME  # another environment that is active has no say here

.PHONY: help env report test model-reader site bench soak mlflow lab lock sizes clean
help: ## say what can be done
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

env: $(READY) ## the whole environment; report and site make the part that they need

report: $(REPORTS) ## environment, data, the chain, figures, metrics, Power BI tables, the site
	@$(BIN)/retail-ci run --publish
	@$(BIN)/retail-ci site

test: $(READY) ## environment, then nbdev_test and pytest
	@$(BIN)/python tests/notebooks.py --n_workers 2
	@$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder tests

model-reader: $(READER)/.ready ## readers that tests use: of Power BI models, of OpenAPI (146 MB)

site: $(REPORTS) ## the site alone, from the current run
	@$(BIN)/retail-ci site

BENCHMARKS := chain features segmentation recommenders recommend_scale campaigns targeting value \
  totals api
bench: $(READY) ## seconds, memory and quality beside baselines: half an hour or more
	@for b in $(BENCHMARKS); do echo "== $$b"; $(BIN)/python benchmarks/$$b.py || exit 1; done

soak: $(READY) ## the long tests: load, fuzzers, kills, damage, flipped bits, full disks
# a minute of load, and one with everything at once; three seeds of generated requests, two fuzzers
# for ten minutes each, forty kills of everything, damage of each kind ten times, the chain on every
# delicate export, two thousand flipped bits, each key of a run's facts changed, a full disk at each
# call, two hundred odd shops, two hundred odd tables, seven files with Spark's own settings,
# each guise of a frame in every call
	@API_SEED=1 API_EXAMPLES=300 LOAD_SECONDS=60 LOAD_RATE=500 $(PYTEST) tests/test_api.py
	@API_SEED=2 API_EXAMPLES=300 $(PYTEST) tests/test_api.py -k generated
	@API_SEED=3 API_EXAMPLES=300 $(PYTEST) tests/test_api.py -k generated
	@$(BIN)/python tests/soak_service.py --seconds 60 --rate 500
	@$(BIN)/python tests/fuzz_service.py --seconds 600
	@FUZZ_SECONDS=600 $(PYTEST) tests/test_api.py -k contract
	@CRASHES=40 $(PYTEST) tests/test_crash.py
	@DAMAGES=10 $(PYTEST) tests/test_damage.py
	@CASES=all $(PYTEST) tests/test_cases.py tests/test_three_engines.py
	@BITS=20 $(PYTEST) tests/test_bits.py
	@CONTENT=1000 $(PYTEST) tests/test_content.py
	@STEP=1 $(PYTEST) tests/test_disks.py
	@SHOPS=200 $(PYTEST) tests/test_any_shop.py
	@TABLES=200 $(PYTEST) tests/test_oracle.py
	@for f in three_engines store col flags ids oracle engines; do \
	  SPARK=own $(PYTEST) tests/test_$$f.py -k spark || exit 1; done
	@GUISES=all $(PYTEST) tests/test_public.py -k guise

TRACKED := runs/$(CONFIG)
UNTRACKED := "No run has been recorded yet for the config '$(CONFIG)';" \
  "retail-ci run --config $(CONFIG) does it."
mlflow: $(READY) ## what was tried, in a browser on this machine: the runs of CONFIG (default)
	@test -f $(TRACKED)/mlflow.db || { echo $(UNTRACKED) >&2; exit 1; }
	@echo "http://127.0.0.1:$(MLFLOW_PORT)/ (Ctrl-C ends)"
	@MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server \
	  --backend-store-uri "sqlite:///$(CURDIR)/$(TRACKED)/mlflow.db" \
	  --default-artifact-root "$(CURDIR)/$(TRACKED)/mlflow" \
	  --host 127.0.0.1 --port $(MLFLOW_PORT) --workers 1

lab: $(READY) ## JupyterLab on the notebooks; the small run that they open is made first
	@[ -e runs/small/current ] || $(BIN)/retail-ci run --config small
	@JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab nbs $(LAB)

COMPILE := pip compile --quiet --no-cache --universal --python-version 3.11 --no-header \
  --no-annotate --no-emit-index-url --no-emit-find-links
SERVED := sed -n 's/^serve_requirements = //p' settings.ini | tr ' ' '\n'
lock: $(READY) ## resolve settings.ini anew into constraints.txt, and the service's into serve.txt
	@[ -x $(BIN)/uv ] || $(PIP) install uv
	@sed '/^[^#]/,$$d' constraints.txt > .constraints.new
	@$(BIN)/uv $(COMPILE) --upgrade --extra all setup.py >> .constraints.new
	@mv .constraints.new constraints.txt
	@sed '/^[^#]/,$$d' serve.txt > .constraints.new
	@$(SERVED) | $(BIN)/uv $(COMPILE) --constraint constraints.txt - >> .constraints.new
	@mv .constraints.new serve.txt

sizes: $(READY) ## packages and MB of what pip installs, for README.md; a few minutes
	@$(BIN)/python benchmarks/sizes.py

clean: ## remove the environment, all runs, the site and build products
	rm -rf $(VENV) $(READER) runs _site _site.* build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .constraints.new
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment: every extra, the locked versions. Made anew when one of these files changes, and
# when the folder was moved: the programs in it hold the folder's path.
ifneq ($(wildcard $(VENV)/.reports),)
ifneq ($(shell grep -sqF "$$(cd $(BIN) && pwd -P)/" $(BIN)/retail-ci && echo here),here)
.PHONY: $(VENV)/.reports
endif
endif
OLD_PYTHON := 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
  f"retail_ci needs Python 3.11 or newer, found {v[0]}.{v[1]}; " \
  "run make PYTHON=python3.11 (or newer).")'
# once more, so that its programs replace nbdev's of the same names
OURS := .ci/install $(VENV) --no-deps --force-reinstall --editable .
$(VENV)/.reports: settings.ini setup.py constraints.txt
	@$(PYTHON) -c $(OLD_PYTHON)
	@echo "Setting up $(VENV) (once) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@.ci/install $(VENV) --constraint constraints.txt --editable '.[chain,mlops,excel,sql,fast]'
	@$(OURS)
	@touch $@

$(READY): $(REPORTS)
	@echo "Completing $(VENV) (once) ..."
	@.ci/install $(VENV) --constraint constraints.txt --editable '.[all]'
	@$(OURS)
	@touch $@

# An environment of its own: the project does not depend on it. See the file for licences.
$(READER)/.ready: tests/model_reader.txt
	@$(PYTHON) -m venv --clear $(READER)
	@echo "Setting up $(READER) (once) ..."
	@.ci/install $(READER) --no-deps --only-binary :all: --requirement $<
	@touch $@
