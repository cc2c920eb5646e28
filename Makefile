# Tasks in a checkout. Each target makes the virtual environment that it needs; nothing but Python 3.11 or newer, make
# and git has to be installed.
#
#   make run                       the demo on http://127.0.0.1:8080/v1, without a config, a key or a network; PORT=8081
#                                  for another port
#   make run CONFIG=config.json    the rules of that file
#   make run-adapter               the adapter on http://127.0.0.1:28081/v1, for the service of make run-mock;
#                                  with CONFIG=… the rules of that file
#   make run-mock                  the mock alone: http://127.0.0.1:28080/v1, and its own service at /stream
#   make test                      the tests; make test TESTS=tests.aggregate for some of them
#   make test-heavy                the slow ones, which need node, npm, nginx, caddy, haproxy, prometheus, chromium,
#                                  logrotate and systemd as well; then the next two, test-floors and check-runners
#   make test-plain                the tests without the ways that rely on insides of Twisted and pyOpenSSL
#   make test-compiled             the tests of the compiled modules, with the wheel of make wheels
#   make lint, make types          ruff; mypy, and basedpyright for the Python in the documentation
#   make build                     sdist and wheel, in dist
#   make wheels                    a wheel for this interpreter with compiled modules, in wheelhouse (needs a C compiler)
#   make pyz                       one file with all libraries but Python's own, dist/openai-stream-proxy.pyz; the same
#                                  commit and libraries make the same file
#   make check-wheel               install the wheel elsewhere and start it
#   make check-runners             start the wheel by uvx and pipx, and the one file
#   make autobahn                  the Autobahn Testsuite through the WebSocket relay (needs Python 2.7)
#   make test-floors               the tests with the oldest dependencies that pyproject.toml allows
#   make bench                     CPU time, delay and memory beside other proxies; make bench BENCH=--quick for the
#                                  main ones, BENCH=--scale for thousands of streams and for large bodies,
#                                  BENCH_FULL=1 to install LiteLLM, Portkey and mitmproxy too
#   make bench-plots               the tables and plots of docs/performance.md, from the results that are kept
#   make scaling                   how evenly load balancers spread calls that take minutes: a simulation, and the plot
#                                  of docs/scaling.md
#   make fuzz                      arbitrary bytes for each parser, FUZZ_SECONDS=60 each; FUZZ_TARGET=sse for one
#   make soak                      the real process under load and faults, SOAK_SECONDS=600: right responses, flat memory
#   make docs                      the documentation as a site, in docs/_build/html
#   make clean, make distclean     remove what was made; the virtual environments too

PYTHON ?= python3
JOBS ?= 3
TESTS ?= tests
CONFIG ?=
PORT ?=
BENCH ?=
BENCH_FULL ?=
FUZZ_SECONDS ?= 60
FUZZ_TARGET ?=
SOAK_SECONDS ?= 600
SOAK_SEED ?=
SOAK_WORKERS ?= 1
SOAK_RELOAD ?= 1

VENV := .venv
BIN := $(VENV)/bin
# Ctrl-C is the way to end it, not a failure of the target.
COMMAND = @trap : INT; $(BIN)/openai-stream-proxy $(1) || { status=$$?; [ $$status -eq 130 ] || exit $$status; }
RUNTIME := $(VENV)/.stamp-run
TOOLS := $(VENV)/.stamp-dev
PIP_INSTALL := -m pip --quiet --disable-pip-version-check install
BENCH_VENV := .venv-bench
BENCH_TOOLS := $(BENCH_VENV)/.stamp-bench
BENCH_OTHERS := $(BENCH_VENV)/.stamp-others
FUZZ_VENV := .venv-fuzz
FUZZ_TOOLS := $(FUZZ_VENV)/.stamp-fuzz
HEAVY_TOOLS := $(VENV)/.stamp-heavy
HEAVY_CLIENTS := heavy_tests/clients/node_modules/.stamp
PYZ_VENV := .venv-pyz
PYZ_TOOLS := $(PYZ_VENV)/.stamp-pyz
DOCS_VENV := .venv-docs
DOCS_TOOLS := $(DOCS_VENV)/.stamp-docs
DOCS_BUILD := docs/_build
# The major version that sphinxcontrib-mermaid is made for.
MERMAID := $(DOCS_BUILD)/mermaid@11

.DEFAULT_GOAL := test
.PHONY: run run-adapter run-mock test test-heavy heavy-needs heavy-tests test-plain test-compiled test-floors autobahn \
  bench bench-plots scaling fuzz soak docs lint types build wheels pyz check-wheel check-runners clean distclean

run: $(RUNTIME)
	$(call COMMAND,$(if $(CONFIG),--config '$(CONFIG)',--demo $(if $(PORT),--port $(PORT))))

run-adapter: $(RUNTIME)
	$(call COMMAND,adapter $(if $(CONFIG),--config '$(CONFIG)'))

run-mock: $(RUNTIME)
	$(call COMMAND,mock)

test: $(TOOLS)
	$(BIN)/python -m tests -j$(JOBS) $(TESTS)

test-heavy: heavy-needs
	$(MAKE) heavy-tests
	$(MAKE) test-plain
	$(MAKE) test-compiled
	$(MAKE) test-floors
	$(MAKE) check-runners

heavy-tests: $(TOOLS) $(HEAVY_TOOLS) $(HEAVY_CLIENTS)
	$(BIN)/python -m tests heavy_tests

test-plain: $(TOOLS)
	STREAM_PROXY_EXAMPLES=full STREAM_PROXY_PLAIN_WAYS=1 $(BIN)/python -m tests -j$(JOBS) tests

test-compiled: wheels
	STREAM_PROXY_EXAMPLES=full .ci/test-compiled $(BIN)/python wheelhouse/*.whl

heavy-needs:
	@missing=; for program in node npm nginx caddy haproxy prometheus promtool chromium logrotate systemd-analyze; do \
	  PATH="$$PATH:/usr/sbin" command -v $$program >/dev/null || missing="$$missing $$program"; \
	done; [ -z "$$missing" ] || \
	  { echo "the heavy tests need$$missing; on Debian: apt-get install nodejs npm nginx caddy haproxy prometheus chromium logrotate systemd" >&2; exit 1; }

autobahn: $(TOOLS)
	$(BIN)/python kits/autobahn/run.py

bench: $(BENCH_TOOLS) $(if $(BENCH_FULL),$(BENCH_OTHERS))
	$(BENCH_VENV)/bin/python -m kits.benchmarks $(BENCH)

bench-plots: $(BENCH_TOOLS)
	$(BENCH_VENV)/bin/python -m kits.benchmarks --draw

scaling: $(BENCH_TOOLS)
	$(BENCH_VENV)/bin/python -m kits.scaling --draw

fuzz: $(FUZZ_TOOLS)
	$(FUZZ_VENV)/bin/python -m kits.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGET)

soak: $(TOOLS)
	$(BIN)/python -m kits.soak --seconds $(SOAK_SECONDS) --workers $(SOAK_WORKERS) --reload $(SOAK_RELOAD) \
	  $(if $(SOAK_SEED),--seed $(SOAK_SEED))

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TOOLS)
	$(BIN)/mypy
	.ci/check-snippets $(BIN)/python

docs: $(DOCS_TOOLS) $(MERMAID)
	$(DOCS_VENV)/bin/sphinx-build --fail-on-warning --keep-going --quiet -c docs . $(DOCS_BUILD)/html
	@echo "the documentation is in $(DOCS_BUILD)/html/index.html"

build: $(TOOLS)
	rm -rf build dist
	$(BIN)/python -m build

wheels: $(TOOLS)
	rm -rf build wheelhouse
	STREAM_PROXY_COMPILED=1 $(BIN)/python -m build --wheel --outdir wheelhouse
	rm -rf build

pyz: build $(PYZ_TOOLS)
	.ci/make-pyz $(PYZ_VENV)/bin/python dist/*.whl dist/openai-stream-proxy.pyz

check-wheel: build
	.ci/check-wheel $(BIN)/python dist/*.whl

check-runners: pyz
	.ci/check-runners $(PYZ_VENV)/bin dist/*.whl dist/openai-stream-proxy.pyz

test-floors: $(TOOLS)
	.ci/test-floors $(BIN)/python

clean:
	rm -rf build dist wheelhouse *.egg-info _trial_temp* .coverage .hypothesis .mypy_cache .ruff_cache twistd.log twisted/plugins/dropin.cache
	rm -rf $(DOCS_BUILD) kits/benchmarks/build kits/fuzz/build kits/soak/results
	find . -name __pycache__ -not -path './$(VENV)*/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(BENCH_VENV) $(FUZZ_VENV) $(PYZ_VENV) $(DOCS_VENV) kits/benchmarks/node_modules heavy_tests/clients/node_modules

$(BIN)/python $(BENCH_VENV)/bin/python $(FUZZ_VENV)/bin/python $(PYZ_VENV)/bin/python $(DOCS_VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) must be Python 3.11 or newer; name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making a virtual environment in $(@D:/bin=)" >&2
	@$(PYTHON) -m venv $(@D:/bin=)

$(RUNTIME): pyproject.toml | $(BIN)/python
	@echo "installing openai-stream-proxy and its libraries there, which takes some 10 seconds, once" >&2
	@$(BIN)/python $(PIP_INSTALL) --editable .
	@touch $@

$(TOOLS): pyproject.toml | $(BIN)/python
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(RUNTIME)

$(BENCH_TOOLS): pyproject.toml kits/benchmarks/requirements.txt | $(BENCH_VENV)/bin/python
	$(BENCH_VENV)/bin/python $(PIP_INSTALL) --editable . --requirement kits/benchmarks/requirements.txt
	@touch $@

$(FUZZ_TOOLS): pyproject.toml kits/fuzz/requirements.txt | $(FUZZ_VENV)/bin/python
	$(FUZZ_VENV)/bin/python $(PIP_INSTALL) --editable . hypothesis
	$(FUZZ_VENV)/bin/python $(PIP_INSTALL) --only-binary :all: --requirement kits/fuzz/requirements.txt || \
	  echo "Atheris cannot be installed; Hypothesis stands in for it" >&2
	@touch $@

$(PYZ_TOOLS): | $(PYZ_VENV)/bin/python
	$(PYZ_VENV)/bin/python $(PIP_INSTALL) 'shiv>=1.0.8' pipx uv
	@touch $@

$(DOCS_TOOLS): pyproject.toml | $(DOCS_VENV)/bin/python
	$(DOCS_VENV)/bin/python $(PIP_INSTALL) --editable '.[docs]'
	@touch $@

$(HEAVY_TOOLS): heavy_tests/requirements.txt | $(BIN)/python
	$(BIN)/python $(PIP_INSTALL) --requirement heavy_tests/requirements.txt
	@touch $@

$(HEAVY_CLIENTS): heavy_tests/clients/package.json
	npm install --prefix heavy_tests/clients --no-package-lock --no-audit --no-fund
	@touch $@

# With mermaid in it the site needs no other. Without npm, its pages load mermaid from a CDN.
$(MERMAID):
	@mkdir -p $(DOCS_BUILD)/mermaid@new
	cd $(DOCS_BUILD)/mermaid@new && npm pack --silent mermaid@11 >/dev/null && \
	  tar -xzf mermaid-11*.tgz --exclude '*.map' package/dist/mermaid.esm.min.mjs package/dist/chunks/mermaid.esm.min && \
	  rm mermaid-11*.tgz || echo "mermaid cannot be fetched; the pages load it from a CDN" >&2
	@mv $(DOCS_BUILD)/mermaid@new $@

# Each has an environment of its own, because their pins would hold back the product's libraries.
$(BENCH_OTHERS): kits/benchmarks/package.json | $(BENCH_VENV)/bin/python
	for name in 'litellm[proxy]' mitmproxy; do \
	  folder=$(BENCH_VENV)/others/$${name%%[*}; \
	  $(PYTHON) -m venv $$folder && $$folder/bin/python $(PIP_INSTALL) "$$name" || \
	    echo "$$name cannot be installed; the benchmark skips it" >&2; \
	done
	npm install --prefix kits/benchmarks --no-package-lock --no-audit --no-fund || \
	  echo "Portkey cannot be installed; the benchmark skips it" >&2
	@touch $@
