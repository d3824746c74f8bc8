# One command per habit. `make demo` and `make test` work in a fresh clone: they make .venv first.
#
#   make demo                      both acts on the bundled checkpoints, shown as tables and plots
#   make test                      all tests
#   make bench                     ours beside its peers, as a table and in out/bench.json; ID=9 for one row
#   make promises                  what the service promises, tried at length; a table and out/promises.json
#   make dashboard-check           the dashboard's queries and the alerts on a real Prometheus under load; out/dashboard.json
#   make cpp                       builds the C++ client and tries it on a real service; fails where its toolchain is not there
#   make check                     ruff, mypy, import doors, generated stubs
#   make venv TORCH_INDEX_URL=URL  take torch from one more index, for example one of CPU wheels

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH_INDEX_URL ?=
EXTRAS := service,otel,postgres,trainer,mujoco,data,bench,dev
DEMO_ARGS ?=
BENCH_ARGS ?=
PROMISES_ARGS ?=
DASHBOARD_ARGS ?=

# Torch and the BLAS libraries under it default to every core in every process; here several processes share few.
export OMP_NUM_THREADS ?= 1

.PHONY: venv demo test promises bench dashboard-check cpp check proto format clean help

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else f"mier needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt \
		$(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) --editable '.[$(EXTRAS)]'
	@touch $@

demo: venv
	@$(BIN)/python -m mier_mujoco.demo --out out/demo $(DEMO_ARGS)

test: venv
	$(BIN)/python -m pytest

bench: venv
	@$(BIN)/python -m mier_bench --out out/bench.json $(if $(ID),--ids $(ID)) $(BENCH_ARGS)

promises: venv
	@$(BIN)/python -m tests.promises $(PROMISES_ARGS)

dashboard-cpp: venv
	MIER_NEEDS_CPP=1 $(BIN)/python -m pytest tests/contract/test_cpp_client.py

check: venv
	@$(BIN)/python -m tests.dashboard $(DASHBOARD_ARGS)

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" proto/generate.sh --check

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: venv
	PATH="$(CURDIR)/$(BIN):$$PATH" proto/generate.sh

clean:
	rm -rf out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
