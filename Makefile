# What one does with a checkout. Each target makes the virtual environment it needs in .venv; nothing else has to
# be installed than Python 3.11 or newer, make and git.
#
#   make run                       the demo on http://127.0.0.1:8080/v1, without a config, a key or a network
#   make run CONFIG=config.json    what the config says
#   make run-adapter               the adapter on http://127.0.0.1:28081/v1, for the service of make run-mock;
#                                  with CONFIG=… what that says
#   make run-mock                  the mock alone: http://127.0.0.1:28080/v1, and its own service at /stream
#   make test                      the tests; make test TESTS=tests.test_sse for some of them
#   make test-heavy                the slow ones
#   make lint, make types          ruff; mypy
#   make build                     sdist and wheel, in dist
#   make check-wheel               install the wheel elsewhere and start it
#   make autobahn                  the Autobahn Testsuite through the WebSocket relay (needs Python 2.7)
#   make test-floors               the tests with the oldest dependencies that pyproject.toml allows
#   make clean, make distclean     remove what was made; .venv too

PYTHON ?= python3
JOBS ?= 2
TESTS ?= tests
CONFIG ?=

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.stamp-run
TOOLS := $(VENV)/.stamp-dev
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := test
.PHONY: run run-adapter run-mock test test-heavy test-floors autobahn lint types build check-wheel clean distclean

run: $(RUNTIME)
	$(BIN)/twistd -n --pidfile= openai-stream-proxy $(if $(CONFIG),--config '$(CONFIG)',--demo)

run-adapter: $(RUNTIME)
	$(BIN)/twistd -n --pidfile= openai-stream-adapter $(if $(CONFIG),--config '$(CONFIG)')

run-mock: $(RUNTIME)
	$(BIN)/twistd -n --pidfile= openai-stream-mock

test: $(TOOLS)
	$(BIN)/python -m tests -j$(JOBS) $(TESTS)

test-heavy: $(TOOLS)
	$(BIN)/python -m tests heavy_tests

autobahn: $(TOOLS)
	$(BIN)/python autobahn_suite/run.py

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TOOLS)
	$(BIN)/mypy

build: $(TOOLS)
	rm -rf build dist
	$(BIN)/python -m build

check-wheel: build
	.ci/check-wheel $(BIN)/python dist/*.whl

test-floors: $(TOOLS)
	.ci/test-floors $(BIN)/python

clean:
	rm -rf build dist *.egg-info _trial_temp* .coverage .hypothesis .mypy_cache .ruff_cache twistd.log twisted/plugins/dropin.cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) must be Python 3.11 or newer; name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml | $(BIN)/python
	$(PIP) install --editable .
	@touch $@

$(TOOLS): pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[dev]'
	@touch $@ $(RUNTIME)
