# `make` lists the targets. Every recipe is one command; what it does is in Python, where it is tested.
# What is empty, as an unset variable of a script may leave it, is not given.
override PYTHON := $(or $(PYTHON),python3)
PYTHON27 ?=
ARGS ?=

# Another PYTHON wants another VENV: make test PYTHON=python3.13 VENV=.venv-3.13
override VENV := $(or $(VENV),.venv)
REQUIREMENTS := requirements/generator.txt requirements/service.txt
WSBUNDLE := $(VENV)/bin/wsbundle
DEV := $(VENV)-dev/bin/python
# Compiled once, not in each of the many processes that tests start.
PYTEST := PYTHONDONTWRITEBYTECODE= $(DEV) -m pytest

.PHONY: help render check run bundle deploy install plan status top doctor uninstall test test-slow test-browser test-hosts test-autobahn fuzz soak kills lint golden docs picture bench lock outdated clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

render: $(VENV)/ready ## write build/<name>/ from deploy.yaml (ARGS="--env prod --set port=9000")
	@$(WSBUNDLE) render $(ARGS)

check: $(VENV)/ready ## the same without writing anything
	@$(WSBUNDLE) check $(ARGS)

run: $(VENV)/ready ## run the server here, as deploy.yaml says
	@$(WSBUNDLE) run $(ARGS)

bundle: $(VENV)/ready ## write an archive that installs on a host without a network (ARGS="--python 3.13")
	@$(WSBUNDLE) bundle $(ARGS)

deploy: $(VENV)/ready ## install on other hosts, over ssh (ARGS="ws1.mycompany.org ws2.mycompany.org")
	@$(WSBUNDLE) deploy $(ARGS)

install: prepared $(VENV)/ready ## make this host run what deploy.yaml says, all or nothing (as root)
	@$(WSBUNDLE) install $(ARGS)

plan: $(VENV)/ready ## what install would change
	@$(WSBUNDLE) plan $(ARGS) || [ $$? -eq 3 ]

# Where clients do not get through it fails, so that a script notices; make adds its own line to that.
status: $(VENV)/ready ## what runs here
	@$(WSBUNDLE) status $(ARGS) || [ $$? -eq 4 ]

doctor: $(VENV)/ready ## whether it does what deploy.yaml says, seen from outside (as root; ARGS=--quick)
	@$(WSBUNDLE) doctor $(ARGS) || [ $$? -eq 3 ]

top: $(VENV)/ready ## what it does, once a second
	@$(WSBUNDLE) top $(ARGS)

uninstall: $(VENV)/ready ## remove exactly what was installed (ARGS=--purge: also data and user)
	@$(WSBUNDLE) uninstall $(ARGS)

test: $(VENV)-dev/ready ## the tests that a change needs, in a few minutes
	@$(PYTEST) -m "not browser and not host and not slow" --ignore=tests/hosts -n auto --dist worksteal $(ARGS)

test-slow: $(VENV)-dev/ready ## what takes longer: every line of every template changed, thousands of random inputs, real time
	@$(PYTEST) -m "slow and not host and not browser" --ignore=tests/hosts -n auto --dist worksteal $(ARGS)

test-browser: $(VENV)-dev/ready ## the client for browsers and the demo page in a real Chromium
	@$(PYTEST) -m browser $(ARGS)

test-hosts: $(VENV)-dev/ready ## make install and all that follows, on throw-away Debian hosts (as root)
	@$(PYTEST) -m host -n 3 --dist loadgroup $(ARGS)

test-autobahn: $(VENV)-dev/ready ## RFC 6455 by the book of Autobahn|Testsuite (ARGS=--write: the table in docs/protocol.md)
	@PYTHON27="$(PYTHON27)" $(DEV) -m tests.autobahn.run_autobahn $(ARGS)

fuzz: $(VENV)-dev/ready ## search for bytes that break something, a minute for each target (ARGS="frames --seconds 600")
	@$(DEV) -m tests.fuzz.run_fuzz $(ARGS)

soak: $(VENV)-dev/ready ## ten thousand clients, clients that die at any byte, one that does not read (ARGS="churn --quick")
	@$(DEV) -m tests.soak.run_soak $(ARGS)

kills: $(VENV)-dev/ready ## kill workers and services 20 times while 100,000 messages go to mailboxes
	@MAILBOX_MESSAGES=100000 MAILBOX_KILLS=20 $(PYTEST) -s tests/service/test_mailbox_kills.py \
	    tests/service/test_mailbox_engine_kills.py $(ARGS)

lint: $(VENV)-dev/ready ## format, lint and types
	@$(DEV) -m ruff format --check .
	@$(DEV) -m ruff check .
	@$(DEV) -m mypy

golden: $(VENV)-dev/ready ## record tests/golden/*/expected; review the diff
	@$(DEV) -m tools.golden

docs: $(VENV)-dev/ready ## derive deploy.yaml, deploy.schema.json, docs/settings.md, docs/asyncapi.yaml, the tables of docs/protocol.md, docs/watch.md and docs/monitoring.md, the plots of docs/performance.md, and clients/js/client.js
	@$(DEV) -m tools.derive
	@$(DEV) -m tools.protocol_tables
	@$(DEV) -m tools.figures_table
	@$(DEV) -m tools.alerts_table
	@$(DEV) -m tools.asyncapi
	@$(DEV) -m tools.classic_script
	@$(DEV) -m bench.plots

picture: $(VENV)-dev/ready ## draw the pictures of the docs: terminal, top, status page and demo page
	@$(DEV) -m tools.picture
	@$(DEV) -m tools.screenshots

bench: $(VENV)/ready ## what rendering, a message, a handshake and a connection cost (ARGS="servers --quick")
	@$(VENV)/bin/python -m bench $(ARGS)

lock: $(VENV)-dev/ready ## lock requirements/*.in again, at the newest versions; then lint and test with them
	@$(DEV) -m tools.lock
	@$(MAKE) --no-print-directory lint test

outdated: $(VENV)-dev/ready ## which locked package has a newer release, or an advisory (ARGS="--advisories all.zip", of OSV)
	@$(DEV) -m tools.lock --check $(ARGS) || [ $$? -eq 3 ]

clean: ## remove what the other targets made
	@rm -rf $(VENV) $(VENV).lock $(VENV)-dev $(VENV)-dev.lock build

# Asked each time: the Python of this machine may be another than that which they were made for.
$(VENV)/ready: always | python
	@$(PYTHON) -IB generator/environment.py $(VENV) $(REQUIREMENTS)

$(VENV)-dev/ready: always | python
	@$(PYTHON) -IB generator/environment.py $(VENV)-dev requirements/dev.txt

.PHONY: prepared
prepared:
	@sh generator/prepare.sh

.PHONY: always
always:

.PHONY: python
python:
	@command -v $(PYTHON) >/dev/null || { echo "wsbundle: $(PYTHON) is missing; on Debian and Ubuntu: apt-get install -y python3 python3-venv" >&2; exit 1; }
