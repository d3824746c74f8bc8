# One command per habit. `make demo` and `make test` work in a fresh clone: they make .venv first.
#
#   make demo                      both acts on the bundled checkpoints, shown as tables and plots
#   make test                      all tests
#   make bench                     ours beside its peers, as a table and in out/bench.json; ID=9 for one row
#   make promises                  what the service promises, tried at length; a table and out/promises.json
#   make dashboard-check           the dashboard's queries and the alerts on a real Prometheus under load; out/dashboard.json
#   make cpp                       builds the C++ client and tries it on a real service; fails where its toolchain is not there
#   make check                     ruff, mypy, import doors, generated stubs
#   make lint-deploy               the image, the compose file and the Helm chart, each read by its own tool
#   make smoke                     wheel and sdist in clean environments, used
#   make sbom                      what the service installs, as CycloneDX, in out/sbom.cdx.json
#   make audit                     known vulnerabilities in that; asks the package index
#   make docs                      the docs as a site, in out/docs/site
#   make venv TORCH_INDEX_URL=URL  take torch from one more index, for example one of CPU wheels

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH_INDEX_URL ?=
EXTRAS := service,otel,postgres,trainer,mujoco,data,bench,deploy,docs,dev
DEMO_ARGS ?=
BENCH_ARGS ?=
PROMISES_ARGS ?=
DASHBOARD_ARGS ?=

# Torch and the BLAS libraries under it default to every core in every process; here several processes share few.
export OMP_NUM_THREADS ?= 1

.PHONY: venv demo test promises bench dashboard-check cpp check proto format clean help
.PHONY: lint-deploy smoke sbom audit docs release-tools

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

test: venv $(BIN)/helm
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

# Where it cannot be had, the chart's tests are skipped, and say so.
$(BIN)/helm: scripts/get_helm.py | venv
	@command -v helm > /dev/null || $(BIN)/python scripts/get_helm.py $@ || echo "no helm: the chart is not linted"

lint-deploy: venv $(BIN)/helm
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q tests/deploy

smoke:
	$(PYTHON) scripts/smoke.py

# What the smoke test installed, which is what the image has.
out/smoke/service/bin/python:
	$(PYTHON) scripts/smoke.py

release-tools:
	test -x out/tools/bin/cyclonedx-py || $(PYTHON) -m venv out/tools
	out/tools/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7.3,<8' 'pip-audit>=2.9,<3'

sbom: release-tools out/smoke/service/bin/python
	out/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
		--of JSON --output-file out/sbom.cdx.json out/smoke/service/bin/python

audit: release-tools out/smoke/service/bin/python
	out/tools/bin/pip-audit --path $$(out/smoke/service/bin/python -c 'import site; print(site.getsitepackages()[0])')

docs: venv
	@$(BIN)/python -m scripts.docs_site

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
