# Tallybook. `make` shows the menu; the first run of a target makes what it needs in .venv.

PYTHON ?= python3
REPORT ?= category_totals
ENV := .venv
LAB := .venv-lab
BIN := $(ENV)/bin
# Stamps carry the folder's name: a checkout that was moved or copied makes its environment anew.
HERE := $(shell pwd -P | cksum | cut -d' ' -f1)
RUNTIME := $(ENV)/runtime-$(HERE)
DEV := $(ENV)/dev-$(HERE)
EXACT := schema judge glance tally transform params runs schedule
# Their tests; what `transform` does with corrections and `runs` for workers is tested beside those.
EXACT_TESTS := $(patsubst %,tests/unit/test_%.py,$(EXACT) replay worker)
COMMA := ,
# Many tests wait for other processes, and whoever compares notebooks waits for their kernels.
PROCESSORS := $(shell getconf _NPROCESSORS_ONLN)
WORKERS := $(shell echo $$((3 * $(PROCESSORS) / 2)))
KERNELS := $(shell echo $$((2 * $(PROCESSORS))))

# Bytecode is kept, whatever the environment says: without it each process compiles everything anew.
export PYTHONDONTWRITEBYTECODE :=

.SILENT:
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help report lab export check test unit notebooks bench soak docs readme dist lock clean

help:  ## Show this menu
	echo "Tallybook: transaction records in, totals you can prove out."
	echo
	awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

report: $(RUNTIME)  ## Run the main report on the bundled sample (another one: REPORT=name)
	$(BIN)/tallybook report run $(REPORT)

lab: $(LAB)/dev-$(HERE)  ## Open the notebooks in JupyterLab (more options: OPTIONS="--port 9000")
	$(LAB)/bin/python -m jupyterlab --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/nbs $(OPTIONS)

export: $(DEV)  ## Format and clean the notebooks; write pkg/ and README.md from them
	$(BIN)/ruff format --quiet nbs reports
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-clean --fname reports
	$(BIN)/nbdev-export
	touch $(RUNTIME) $(DEV)  # it writes pyproject.toml anew, as it was
	$(BIN)/python tools/readme.py write

check: $(DEV)  ## Notebooks and pkg/ agree; ruff, mypy --strict, bandit, import floors, locks
	echo "Checking: notebooks, README, locks, ruff, mypy, import floors"
	$(BIN)/mypy --no-error-summary & types=$$!; \
	$(BIN)/python tools/notebooks.py check && \
	$(BIN)/python tools/readme.py check && \
	$(BIN)/python tools/locks.py check && \
	$(BIN)/ruff check --quiet --output-format concise && \
	$(BIN)/ruff format --check --quiet --output-format concise && \
	$(BIN)/lint-imports --no-logo && \
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive pkg; \
	others=$$?; wait $$types && exit $$others

test: check notebooks unit  ## Everything: check, the notebooks, every test, coverage
	echo "make test: all passed."

notebooks: $(DEV)  ## Run every notebook, then compare the outputs saved in it
	echo "Running the notebooks (nbdev-test)"
	$(BIN)/nbdev-test
	echo "Comparing their saved outputs (nbval)"
	$(BIN)/python tools/notebooks.py number _nbval
	JUPYTER_PATH=_nbval $(BIN)/python -m pytest --nbval _nbval --nbval-kernel-name quick \
		--quiet -p no:randomly -n $(KERNELS) --dist loadfile
	rm -rf _nbval

unit: $(DEV)  ## Run tests/; those of the exact modules must cover every branch of them
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report= $(EXACT_TESTS)
	echo "Branch coverage, which must be 100 % on: $(EXACT)"
	$(BIN)/coverage report --fail-under=100 --show-missing \
		--include "$(subst $() ,$(COMMA),$(patsubst %,*/tallybook/%.py,$(EXACT)))"
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(addprefix --deselect ,$(EXACT_TESTS))

bench: $(DEV)  ## Measure: import and start-up time, throughput, as ratios
	for script in bench/bench_*.py; do $(BIN)/python "$$script" || exit; done

soak: $(DEV)  ## Properties with twenty times as many examples; runs killed at 200 moments
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest -n logical --dist loadgroup \
		-m "hypothesis or soak"

docs: $(DEV)  ## Render the notebooks as pages in _docs/
	$(BIN)/python tools/docs.py

readme: $(DEV)  ## Write README.md from nbs/index.ipynb
	$(BIN)/python tools/readme.py write

dist: $(DEV)  ## Build the sdist and the wheel in dist/
	rm -rf dist
	$(BIN)/uv build --quiet --no-build-isolation --offline --python $(BIN)/python
	ls -1 dist/*

lock: $(DEV)  ## Write the requirements*.lock from pyproject.toml (newest versions: UPGRADE=1)
	$(BIN)/python tools/locks.py make $(if $(UPGRADE),--upgrade)

clean:  ## Remove what make makes: environments, caches, pages, builds; runs/ stays
	rm -rf $(ENV) $(LAB) _docs _nbval _proc dist build .coverage .coverage.* htmlcov
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environments. A lock that changes is installed again; nothing else is.

%/build-$(HERE): requirements-build.lock
	echo "Making the environment $*"
	tools/venv "$(PYTHON)" $*
	touch $@

$(RUNTIME): requirements.lock pyproject.toml tools/install $(ENV)/build-$(HERE)
	echo "Installing what Tallybook runs on (requirements.lock)"
	tools/install $(ENV) requirements.lock
	touch $@

$(DEV): requirements-dev.lock pyproject.toml tools/install $(ENV)/build-$(HERE)
	echo "Installing what its development needs (requirements-dev.lock)"
	tools/install $(ENV) requirements-dev.lock --exact
	touch $(RUNTIME) $@

$(LAB)/dev-$(HERE): requirements-lab.lock pyproject.toml tools/install $(LAB)/build-$(HERE)
	echo "Installing JupyterLab and the development set (requirements-lab.lock)"
	tools/install $(LAB) requirements-lab.lock --exact
	touch $@
