# Everything runs in .venv, which the first command makes. `make` alone lists the targets.
SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test data lint audit quick hosts environment programs constraints clean

# Images that forbid bytecode mean their own layers: in .venv its lack makes every start compile every library.
unexport PYTHONDONTWRITEBYTECODE

PYTHON_OF_VENV := .venv/bin/python
PYTEST := $(PYTHON_OF_VENV) -m pytest

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: ## start everything in one process tree, send three sample X-rays and show what comes out
	@bash deploy/dev/environment.sh
	@.venv/bin/hybridmed demo

test: data environment programs ## lint, types and all tests; brings the services that they need
	@$(MAKE) --no-print-directory lint
	@$(PYTEST) --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 25 # whole gateways first, small files last

data:
	@if [ -d ../shared/data ]; then echo "data: ../shared/data present: all of it"; else echo "data: shipped samples only"; fi

environment:
	@bash deploy/dev/environment.sh dev

programs:
	@$(PYTHON_OF_VENV) -m deploy.dev.programs

lint: environment ## ruff, its formatter, mypy and bandit
	@$(PYTHON_OF_VENV) -m ruff check .
	@$(PYTHON_OF_VENV) -m ruff format --check .
	@$(PYTHON_OF_VENV) -m mypy
	@$(PYTHON_OF_VENV) -m bandit --quiet --configfile pyproject.toml --recursive gateway inference fhir/fhir_facade migrations deploy

audit: environment ## ask for known vulnerabilities of the packages; needs the internet
	@$(PYTHON_OF_VENV) -m deploy.check.vulnerabilities

quick: environment ## unit tests alone, which need no service
	@$(PYTEST) tests/unit

hosts: environment programs ## cut off, kill and unplug hosts (network namespaces) under load; needs root, takes 20 minutes
	@$(PYTHON_OF_VENV) -m tests.benchmarks.hosts

constraints: environment ## pin what pyproject.toml gained; remove lines from constraints.txt first to renew their pins
	@printf 'hatchling\npip\nuv\n' | $(PYTHON_OF_VENV) -m uv pip compile --quiet pyproject.toml - \
		--extra inference --group dev --no-annotate --no-header --output-file constraints.txt

clean: ## remove .venv, caches and the data of the demo
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist hybridmed-demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
