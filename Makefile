# Everything a newcomer or CI needs; CONTRIBUTING.md explains each target. Needs Python 3.11 to 3.13 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `make check` searches for retired words.
WORDED := measurement_pipeline measurement_pipeline_tests measurement_pipeline_bench docs README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md
READY := $(VENV)/.ready

.PHONY: demo test system faults fuzz check docs reference screenshots vulnerabilities dev bench format lock clean

demo: $(READY)
	$(BIN)/measurement-pipeline demo

test: $(READY)
	$(BIN)/python -m pytest -n 3 --dist worksteal

# Dagster's own processes: `dev`, and a deployment whose written texts are searched for secrets.
system: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal --long -m dagster --ignore measurement_pipeline_tests/faults

faults: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal --long measurement_pipeline_tests/faults

fuzz: $(READY)
	$(BIN)/python -m pytest --long measurement_pipeline_tests/api/test_schema.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/sqlfluff lint --processes 2 measurement_pipeline measurement_pipeline_bench
	$(BIN)/python .ci/plain_words.py $(WORDED)
	env -u DAGSTER_HOME -u DATABASE_URL $(BIN)/dagster definitions validate
	env -u DAGSTER_HOME -u DATABASE_URL VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/dg check defs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir .local/site
	$(BIN)/python .ci/known_vulnerabilities.py $(BIN)/pip-audit requirements.lock

# The documentation on http://127.0.0.1:8000.
docs: $(READY)
	$(BIN)/mkdocs serve --livereload

# The reference pages, from the code. A test compares them.
reference: $(READY)
	$(BIN)/python .ci/reference.py

# The pictures of README.md, from a running demonstration. Needs Chromium.
screenshots: $(READY)
	$(BIN)/python .ci/screenshots.py

vulnerabilities: $(READY)
	$(BIN)/python .ci/known_vulnerabilities.py $(BIN)/pip-audit requirements.lock

# make dev PORT=3001 SANDBOX_PORT=8918 API_PORT=8081: beside a dev of another checkout.
dev: $(READY)
	$(BIN)/measurement-pipeline dev $(if $(PORT),--port $(PORT)) $(if $(SANDBOX_PORT),--sandbox-port $(SANDBOX_PORT))

bench: $(READY)
	$(BIN)/python -m measurement_pipeline_bench

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The lock holds every package with its hashes, so --no-deps: what it does not name is not installed.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version + "; name another with PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

lock:
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --upgrade -o requirements.lock

clean:
	rm -rf $(VENV) .local
