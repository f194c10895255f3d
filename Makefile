# The project's commands. They need make and a Python 3.10-3.12; the rest is installed into .venv.

.DEFAULT_GOAL := help
.PHONY: help env train test check lint types light chaos canary bench ui screenshots docs clean FORCE
.DELETE_ON_ERROR:

# Called as modules: scripts in .venv/bin break when the checkout moves.
RUN := .venv/bin/python
# Written last: an install that failed or was interrupted leaves none. Holds the version of Python, as 3.12.
STAMP := .venv/.installed

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s  %s\n", $$1, $$2}' Makefile

env: $(STAMP) ## Make .venv; PYTHON=python3.11 chooses the interpreter
	@:

train: env ## Run the default job; ARGS="model=x_small topology=cpu_2" asks for another
	@$(RUN) launch.py $(ARGS)

# Two tests at a time, since most of a launch uses one core; three take longer on two cores. Each worker takes its share
# in order, so that tests which share a launch mostly meet, and helps the other one when it is done.
SIDE_BY_SIDE := -n 2 --dist worksteal

test: env ## Run every test, two at a time; ARGS="-k resume -n 0" selects, and runs one at a time
	@$(RUN) -m pytest $(SIDE_BY_SIDE) $(ARGS)

check: env ## Lint, types, and the tests that need neither MindSpore nor MLflow
	@$(MAKE) --no-print-directory -j2 -O lint types light

lint: env
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: env
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(RUN) -m pyright

light: env
	$(RUN) -m pytest -q $(SIDE_BY_SIDE) -m "not mindspore and not mlflow"

chaos: env ## Attack runs in every way there is (an hour and a half); ARGS="-k kill" selects
	@MVIT_KILLS=20 $(RUN) -m pytest $(SIDE_BY_SIDE) tests/chaos tests/e2e/test_exact_resume.py -m mindspore $(ARGS)

CANARY := .venv-canary/bin/python

canary: env ## Run the tests on the newest MindSpore there is, in .venv-canary; pins nothing
	@$(RUN) -m venv --clear .venv-canary
	@grep -v '^mindspore==' constraints.txt > .venv-canary/constraints.txt
	@$(CANARY) -m pip install -qq --disable-pip-version-check -c .venv-canary/constraints.txt -e ".[dev]"
	@$(CANARY) -m pip install -qq --disable-pip-version-check --upgrade --no-deps mindspore
	@$(CANARY) -c 'from importlib.metadata import version; print("MindSpore", version("mindspore"))'
	@$(CANARY) -m pytest $(SIDE_BY_SIDE) -m "mindspore and not (chaos or long)" $(ARGS)

# Where a benchmark keeps its measurements.
kept = $(if $(KEEP),--json experiments/results/$(1)-$(KEEP).json)

bench: env ## Measure data pipeline, step and scaling; PEERS, MINDCV, KEEP: see docs/performance.md
	@$(RUN) benchmarks/data.py $(ARGS)
	@$(RUN) benchmarks/step.py $(if $(PEERS),--peers $(PEERS)) $(if $(MINDCV),--mindcv $(MINDCV)) $(call kept,step)
	@$(RUN) benchmarks/loop.py
	@$(RUN) benchmarks/scaling.py $(call kept,scaling)
	@$(RUN) benchmarks/roofline.py $(call kept,roofline)
	@$(if $(KEEP),$(RUN) benchmarks/tables.py)

ui: env ## Serve the MLflow dashboard
	@$(RUN) -m mvit ui $(ARGS)

screenshots: env ## Draw docs/pictures/dashboard-*.png, of the runs in mlflow.db; needs Chromium
	@command -v chromium chromium-browser google-chrome | grep -q . || { echo "needs Chromium: apt install chromium"; exit 1; }
	@mkdir -p docs/pictures
	@MVIT_SCREENSHOTS=docs/pictures MVIT_STORE=$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db} \
		$(RUN) -m pytest -q tests/browser -k "sections and not efficiency" $(ARGS)

docs: env ## Write the generated pages of the manual, and build it in site/
	@mkdir -p docs/reference
	@$(RUN) -m mvit docs > docs/configuration.md.part && mv docs/configuration.md.part docs/configuration.md
	@$(RUN) -m mvit docs commands > docs/commands.part && mv docs/commands.part docs/reference/commands.md
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet --strict

clean: ## Remove .venv and caches; runs/ and mlflow.db stay
	@rm -rf .venv .venv-canary site build *.egg-info .pytest_cache .ruff_cache
	@find . -path ./runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# Prints "use 3.12 INTERPRETER", or else the one line to show. Interpreters are run, not looked up: a pyenv shim stands
# on PATH for versions that are not selected, and fails. An environment that stands keeps its Python.
define FIND_PYTHON
probe() { \
    version=$$("$$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) \
        || { echo "does not run"; return 1; }; \
    case $$version in 3.10.*|3.11.*|3.12.*) version=$${version%.*} ;; *) echo "is $$version"; return 1 ;; esac; \
    "$$1" -c 'import ensurepip, venv' 2>/dev/null \
        || { echo "lacks ensurepip (Debian: apt install python$$version-venv)"; return 1; }; \
    echo "$$version"; \
}; \
asked='$(PYTHON)'; \
if [ -n "$$asked" ]; then \
    said=$$(probe "$$asked") && { echo "use $$said $$asked"; exit; }; \
    why="PYTHON=$$asked $$said"; \
fi; \
pyenv="$${PYENV_ROOT:-$$HOME/.pyenv}/versions"; \
other=/path/to/python3.12; \
for python in $(if $(PYTHON),,$(and $(wildcard $(STAMP)),$(RUN))) python3.12 python3.11 python3.10 python3 \
    "$$pyenv"/3.12.*/bin/python "$$pyenv"/3.11.*/bin/python "$$pyenv"/3.10.*/bin/python; do \
    said=$$(probe "$$python") && { other=$$python; [ -n "$$asked" ] && break; echo "use $$said $$python"; exit; }; \
    case $$said in lacks*) : "$${why:=$$python $$said}" ;; esac; \
done; \
echo "mvit needs Python 3.10, 3.11 or 3.12; $${why:-none was found}." \
    "Try: make $(or $(firstword $(MAKECMDGOALS)),env) PYTHON=$$other"
endef

# FORCE: a PYTHON that is named is looked at, even when .venv stands. pip would compile on one core; some packages have
# templates that do not compile.
$(STAMP): pyproject.toml constraints.txt $(if $(PYTHON),FORCE)
	$(eval FOUND := $(shell $(FIND_PYTHON)))$(if $(filter use,$(firstword $(FOUND))),,$(error $(FOUND)))
	@set -e; \
	found='$(FOUND)'; found=$${found#use }; version=$${found%% *}; python=$${found#* }; \
	if [ "$$(cat $@ 2>/dev/null)" != "$$version" ]; then \
		echo "Setting up .venv (first time: a few minutes) ..."; \
		"$$python" -m venv --clear .venv; \
	elif [ -n "$(filter-out FORCE,$?)" ]; then \
		echo "Updating .venv ..."; \
	else exit 0; fi; \
	rm -f $@; \
	$(RUN) -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev]"; \
	$(RUN) -W ignore -m compileall -qq -j 0 .venv || true; \
	echo "$$version" > $@
