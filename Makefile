# The few commands of Sori. Settings come from the environment or .env: see .env.example.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
STACK := $(PYTHON) -m local_stack
TESTS := tests/unit tests/contract tests/integration tests/e2e
FAULTS := $(PYTHON) -m pytest tests/fault --capture=no
# The tests mostly wait, so two files run at a time. Each of the two workers has a stack of its own.
TWO_AT_A_TIME := -n 2 --dist loadfile

.PHONY: help setup run up down send id-token logs status env test test-api test-fault lint contracts licences bench clean

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

run: setup ## Set up, start everything, load a sample catalogue, send a sample recording and show its result
	@$(STACK) run

up: setup ## Start everything in the background; return when it is ready
	@$(STACK) up

down: setup ## Stop everything; the data stays
	@$(STACK) down

send: setup ## Send a recording through the running stack: make send FILE=path TOKEN=1
	@$(STACK) send "$$FILE" $${TOKEN:+--token "$$TOKEN"}

id-token: ## Print an id token of the stack's own login (AUTH=required): make -s id-token WHO=operator
	@$(STACK) id-token $${WHO:+"$$WHO"}

logs: setup ## Show the logs of all parts as they come
	@$(STACK) logs

status: setup ## Say which parts are ready
	@$(STACK) status

env: ## Print the running stack's settings as export lines, for eval
	@$(STACK) env

test: setup ## Run the tests, on stacks of their own (the long fault tests: test-fault)
	@$(PYTHON) -m pytest $(TWO_AT_A_TIME) -m "not full" $(TESTS)
	@$(FAULTS) -m "not full"

test-api: setup ## Call every route in ten thousand ways, as everybody who may call: no error, and nothing of another's
	@$(PYTHON) -m pytest tests/e2e/login/test_any_call.py -m full

test-fault: setup ## Kill, cut and delay everything while hundreds of jobs run; SORI_FAULT_SEED plays a run again
	@$(FAULTS) -m "not short"

lint: setup ## Check style, types, imports, the generated contracts and the licences of all packages
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports
	@$(PYTHON) contracts/generate.py --check
	@$(PYTHON) docs/licences/generate.py --check

contracts: setup ## Generate JSON Schemas, AsyncAPI and OpenAPI from the code
	@$(PYTHON) contracts/generate.py

licences: setup ## List the licences of all packages anew
	@$(PYTHON) docs/licences/generate.py

bench: setup ## Measure Sori beside its peers and print the tables (about an hour; see docs/performance.md)
	@$(PYTHON) -m tests.bench

clean: setup ## Stop everything and remove all data
	@$(STACK) clean

setup: ## Install what is missing (the others do it too)
	@deploy/local/setup
