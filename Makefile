# Every target makes what it needs; "make run" or "make test" is enough on a new machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PORT   ?= 8000

.PHONY: setup run test test-database lint check fmt lock bench crash chaos screenshots clean

setup: $(VENV)/ready

$(VENV)/ready: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed; set PYTHON=") if sys.version_info < (3, 11) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

run: setup
	@$(BIN)/python manage.py start --port $(PORT)

test: setup
	$(BIN)/python -m pytest

# The part of the tests that touches the database, for a run against TEST_DATABASE_URL=postgres://…
test-database: setup
	$(BIN)/python -m pytest tests/services tests/runtime tests/commands tests/web -m "not browser"

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python manage.py makemigrations --check --dry-run

check: lint test

fmt: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Pin again after a change of requirements*.in (uv resolves a hundred times faster than pip-tools; the result is the same).
lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-emit-find-links --no-emit-index-url --no-header requirements.in -o requirements.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-emit-find-links --no-emit-index-url --no-header requirements-dev.in -o requirements-dev.txt

bench: setup
	$(BIN)/python -m bench

# Kill runbots at every step of a message's way, ROUNDS times each.
ROUNDS   ?= 50
DATABASE ?= sqlite
PLATFORM ?= telegram
crash: setup
	$(BIN)/python -m tests.acceptance.crash --rounds $(ROUNDS) --database $(DATABASE) --platform $(PLATFORM)

# Everything fails at once, on services of its own, and the books are checked; a seed repeats the kind of run.
SEED    ?= 1
SECONDS ?= 60
chaos: DATABASE = postgres
chaos: setup
	$(BIN)/python -m bench.chaos --seed $(SEED) --seconds $(SECONDS) --database $(DATABASE)

# Every page with demo data, as a set that fits into the repository; all of it: python -m tests.web.screenshots FOLDER --all
screenshots: setup
	rm -rf docs/screenshots
	$(BIN)/python -m tests.web.screenshots docs/screenshots

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis staticfiles
