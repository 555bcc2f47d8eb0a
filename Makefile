# Every target can be run on a fresh clone: what is missing is set up first (scripts/setup).
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full check bench docs clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## packages, .venv and vmhost itself
	@scripts/setup test

demo: ## two real guests from nothing, in a hypervisor that is thrown away afterwards
	@scripts/setup run
	@scripts/demo

test: ## everything that has to hold before a change goes in
	@scripts/setup test
	@.venv/bin/python scripts/test

test-full: ## the same without sampling: hours
	@scripts/setup test
	@.venv/bin/python scripts/test --full

check: ## linters, types, import contracts, house rules
	@scripts/setup test
	@.venv/bin/python scripts/test --group check

bench: ## side by side with others; writes bench/RESULTS.md
	@scripts/setup test
	@.venv/bin/python -m bench

docs: ## HTML and man pages into .cache/docs
	@scripts/setup docs
	@.venv/bin/python -m sphinx --fail-on-warning --keep-going -q -b html docs .cache/docs/html
	@.venv/bin/python -m sphinx --fail-on-warning --keep-going -q -b man docs .cache/docs/man
	@echo "docs: .cache/docs/html/index.html"

clean: ## caches and built files; .venv stays
	@rm -rf dist .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find vmhost tests bench docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
