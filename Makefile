# `make` lists the targets. Every recipe is one command; what it does is in Python, where it is tested.
PYTHON ?= python3
ARGS ?=

REQUIREMENTS := requirements/generator.txt requirements/service.txt
WSBUNDLE := .venv/bin/wsbundle
DEV := .venv-dev/bin/python
LOCK := .venv-dev/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: help render check run test test-browser lint golden docs bench lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

render: .venv/ready ## write build/<name>/ from deploy.yaml (ARGS="--env prod --set port=9000")
	@$(WSBUNDLE) render $(ARGS)

check: .venv/ready ## the same without writing anything
	@$(WSBUNDLE) check $(ARGS)

run: .venv/ready ## run the server here, as deploy.yaml says
	@$(WSBUNDLE) run $(ARGS)

test: .venv-dev/ready ## all tests but those in a browser
	@$(DEV) -m pytest -m "not browser" $(ARGS)

test-browser: .venv-dev/ready ## the demo page in a real Chromium
	@$(DEV) -m pytest -m browser $(ARGS)

lint: .venv-dev/ready ## format, lint and types
	@$(DEV) -m ruff format --check .
	@$(DEV) -m ruff check .
	@$(DEV) -m mypy

golden: .venv-dev/ready ## record tests/golden/*/expected; review the diff
	@$(DEV) -m tests.golden

docs: .venv-dev/ready ## derive deploy.yaml, deploy.schema.json and docs/settings.md
	@$(DEV) -m generator.derive

bench: .venv/ready ## what `wsbundle render` costs, against importing its libraries
	@.venv/bin/python -m bench.render

lock: .venv-dev/ready ## lock requirements/*.in again, at the newest versions
	@$(LOCK) -o requirements/generator.txt requirements/generator.in
	@$(LOCK) -o requirements/service.txt requirements/service.in
	@$(LOCK) -o requirements/dev.txt requirements/dev.in

clean: ## remove what the other targets made
	@rm -rf .venv .venv-dev build

.venv/ready: $(REQUIREMENTS) pyproject.toml | python
	@$(PYTHON) -m generator.environment .venv $(REQUIREMENTS)

.venv-dev/ready: requirements/dev.txt pyproject.toml | python
	@$(PYTHON) -m generator.environment .venv-dev requirements/dev.txt

.PHONY: python
python:
	@command -v $(PYTHON) >/dev/null || { echo "wsbundle: $(PYTHON) is missing; on Debian and Ubuntu: apt-get install -y python3 python3-venv" >&2; exit 1; }
