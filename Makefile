# Every target sets itself up from a fresh clone; `make help` lists them.
#
# Variables: PYTHON (a CPython >= 3.10), VENV (its environment), PYTEST_ARGS, FUZZ_SECONDS (for each fuzz target),
# AUTOBAHN_CASES, AUTOBAHN_ROLES, BENCH_IO_ARGS, COMPAT, WSPROTO_FAST_NO_EXT=1 (work without a compiler, on the pure
# build).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PYTHON ?=
PYTEST_ARGS ?=
COMPAT ?=
FUZZ_SECONDS ?= 60
export FUZZ_SECONDS

# A failed extension build must not pass unnoticed into a test run.
ifeq ($(filter-out 0,$(WSPROTO_FAST_NO_EXT)),)
export WSPROTO_FAST_REQUIRE_EXT := 1
BUILT := $(VENV)/.built
else
BUILT := $(VENV)/.built-pure
endif

PXD := $(wildcard wsproto_fast/*.pxd wsproto_fast/*/*.pxd wsproto_fast/*/*/*.pxd)
SOURCES := setup.py $(wildcard ext/*.pyx ext/*.pxd ext/*.pxi ext/*.h) $(PXD) $(wildcard $(PXD:.pxd=.py))

# Set-up ---------------------------------------------------------------------------------------------------------------

# The first of these that runs (a pyenv shim may not), is new enough and can make environments.
CANDIDATES := $(PYTHON) python3 python python3.14 python3.13 python3.12 python3.11 python3.10
SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))

$(VENV)/.made:
	@for candidate in $(if $(PYTHON),$(PYTHON),$(CANDIDATES)); do \
	  if "$$candidate" -c "$(SUITABLE)" 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$candidate" -c 'import sys; print(sys.executable, sys.version.split()[0])')"; \
	    rm -rf "$(VENV)"; "$$candidate" -m venv "$(VENV)"; touch $@; exit 0; \
	  fi; \
	done; \
	echo "wsproto_fast needs Python 3.10 or newer with its venv module; none of these is one:" >&2; \
	echo "  $(if $(PYTHON),$(PYTHON),$(CANDIDATES))" >&2; \
	echo "Install one (Debian, Ubuntu: apt-get install python3-venv python3-dev), or name it: make PYTHON=..." >&2; \
	exit 1

# `$(call install,test lint)` installs the requirements of these extras of pyproject.toml, and not the package.
define READ_EXTRAS
import sys
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    extras = tomllib.load(file)["project"]["optional-dependencies"]
print("\n".join(requirement for name in sys.argv[1:] for requirement in extras[name]))
endef
export READ_EXTRAS
install = $(PY) -m pip install --quiet --disable-pip-version-check --requirement <($(PY) -c "$$READ_EXTRAS" $(1))

$(VENV)/.extra-%: $(VENV)/.made pyproject.toml
	$(call install,$*)
	@touch $@

$(VENV)/.compiler: $(VENV)/.made
	@compiler="$${CC:-$$($(PY) -c 'import sysconfig; print(sysconfig.get_config_var("CC") or "cc")')}"; \
	include="$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))')"; \
	if ! printf '#include <Python.h>\n' | $$compiler -I"$$include" -x c -fsyntax-only - ; then \
	  echo >&2; \
	  echo "A C compiler and the headers of Python are needed ('$$compiler' with $$include failed)." >&2; \
	  echo "Debian, Ubuntu: apt-get install gcc python3-dev. Another compiler: make CC=clang ..." >&2; \
	  echo "Without one: make WSPROTO_FAST_NO_EXT=1 ... works with the pure-Python build." >&2; \
	  exit 1; \
	fi
	@touch $@

# The editable install puts the tree on the path and builds what setup.py lists; afterwards build_ext is enough.
$(VENV)/.built: $(VENV)/.compiler $(VENV)/.extra-build pyproject.toml $(SOURCES)
	@rm -f $(VENV)/.built-pure
	$(PY) -m pip show --quiet wsproto_fast 2>/dev/null && test ! pyproject.toml -nt $@ || \
	  $(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	$(PY) setup.py --quiet build_ext --inplace
	@touch $@

$(VENV)/.built-pure: $(VENV)/.extra-build pyproject.toml setup.py
	@rm -f $(VENV)/.built
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

# Targets --------------------------------------------------------------------------------------------------------------

.PHONY: help build demo docs test test-loops compat lint fuzz fuzz-py asan autobahn bench bench-readme bench-io coverage \
  test-all dist clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | while IFS=$$'\t' read -r name text; do \
	  printf 'make %-13s %s\n' "$$name" "$$text"; done

build: $(BUILT) ## environment in .venv, editable install, extensions; rebuilds what changed

demo: $(BUILT) ## start the demo server and say where it is; Ctrl-C ends it
	@exec $(PY) examples/demo/server.py

docs: $(VENV)/.extra-docs ## the pages of docs/ with the API reference, in build/docs; warnings are errors
	$(PY) -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

test: $(BUILT) $(VENV)/.extra-test ## all tests, engine tests on both builds (PYTEST_ARGS=...)
	$(PY) -m pytest $(PYTEST_ARGS)

# Each on its own: a loop is chosen once, for a whole process. Debug mode finds what tests leave behind. A signal does not
# interrupt uvloop: a test that hangs ends the run, with the stacks of all threads.
test-loops: $(BUILT) $(VENV)/.extra-test ## the adapters' tests: asyncio on uvloop, without the reactor, in debug mode; threads with -X dev
	WSPROTO_FAST_LOOP=uvloop $(PY) -m pytest tests/asyncio -m "not slow" --timeout-method=thread $(PYTEST_ARGS)
	WSPROTO_FAST_LOOP=uvloop WSPROTO_FAST_REACTOR=0 $(PY) -m pytest tests/asyncio -m "not slow" --timeout-method=thread $(PYTEST_ARGS)
	PYTHONASYNCIODEBUG=1 $(PY) -m pytest tests/asyncio -m "not slow and not external" $(PYTEST_ARGS)
	$(PY) -X dev -m pytest tests/threading -m "not slow and not external" --timeout-method=thread \
	  -o faulthandler_timeout=60 $(PYTEST_ARGS)

compat: $(BUILT) ## suites of projects that embed other libraries, on our façades (COMPAT=hypercorn); docs/compat.md
	$(PY) tests/compat/suites.py $(COMPAT)

lint: $(VENV)/.extra-lint $(VENV)/.extra-test ## ruff, mypy --strict, cython-lint
	$(BIN)/ruff check .
	$(PY) -m mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint $(wildcard ext/*.pyx) $(PXD)

bench: $(BUILT) $(VENV)/.extra-bench ## benchmarks; PYTEST_ARGS="-k mask" selects
	$(PY) -m pytest benchmarks --benchmark-only --timeout=0 $(PYTEST_ARGS)

bench-readme: $(BUILT) $(VENV)/.extra-bench ## the README's table of ratios
	$(PY) -m benchmarks.compare

bench-io: $(BUILT) $(VENV)/.extra-bench ## servers and clients beside their peers (BENCH_IO_ARGS="--quick --only TLS")
	$(PY) -m benchmarks.io $(BENCH_IO_ARGS)

# Branch coverage of the Python sources: the suite on the pure build, adapters included.
coverage: $(BUILT) $(VENV)/.extra-test ## branch coverage of the Python sources; fails if more than five branches are missed
	@rm -rf build/coverage; mkdir -p build/coverage
	WSPROTO_FAST_TEST_PURE=1 $(PY) -m coverage run -m pytest -q -m "not slow" $(PYTEST_ARGS)
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage html --quiet --fail-under=0 --directory build/coverage/html
	$(PY) -m coverage report

# Instrumented extensions in build/asan, found before the installed ones; no -m, which would put the tree first.
# PYTHONMALLOC=malloc lets AddressSanitizer see each object. pytest captures stderr: reports go to files.
ASAN_PRELOAD = $(shell gcc -print-file-name=libasan.so) $(shell gcc -print-file-name=libubsan.so)
asan: export WSPROTO_FAST_SANITIZE := 1
asan: export WSPROTO_FAST_REQUIRE_EXT := 1
asan: $(VENV)/.compiler $(VENV)/.extra-build $(VENV)/.extra-test ## compiled tests under AddressSanitizer, UBSan, LeakSanitizer
	@gcc --version >/dev/null 2>&1 || { echo "make asan needs gcc (Debian, Ubuntu: apt-get install gcc)" >&2; exit 1; }
	CC=gcc $(PY) setup.py --quiet build --build-base build/asan --build-lib build/asan/lib
	@rm -f build/asan/report.*
	@status=0; \
	LD_PRELOAD="$(ASAN_PRELOAD)" PYTHONMALLOC=malloc PYTHONPATH=$(CURDIR)/build/asan/lib \
	ASAN_OPTIONS=detect_leaks=1:log_path=$(CURDIR)/build/asan/report \
	LSAN_OPTIONS=suppressions=$(CURDIR)/tests/asan.supp:print_suppressions=0 \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:log_path=$(CURDIR)/build/asan/report \
	$(BIN)/pytest -q --build=compiled -m "not slow and not external" -p no:faulthandler -p no:cacheprovider $(PYTEST_ARGS) \
	  || status=$$?; \
	if compgen -G 'build/asan/report.*' >/dev/null; then cat build/asan/report.*; status=1; fi; \
	exit $$status

autobahn: $(BUILT) ## Autobahn TestSuite against server and client (AUTOBAHN_CASES=1.*,6.* AUTOBAHN_ROLES=server-threads)
	$(PY) tests/autobahn/run.py $(AUTOBAHN_ROLES)

-include fuzz/fuzz.mk

PY_FUZZERS := $(wildcard fuzz/fuzz_*.py)
fuzz-py: $(BUILT) $(VENV)/.extra-fuzz ## the fuzz targets in Python
	@if ! $(PY) -c 'import atheris' 2>/dev/null; then \
	  echo "atheris does not support $$($(PY) -V): Python fuzz targets skipped"; \
	  test "$${CI:-}" != true; exit; \
	fi; \
	for target in $(PY_FUZZERS); do \
	  name=$$(basename $$target .py); name=$${name#fuzz_}; \
	  work=build/fuzz/$$name; mkdir -p $$work fuzz/corpus/$$name; \
	  echo "fuzzing $$name for $(FUZZ_SECONDS) s"; \
	  $(PY) $$target -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$$work- $$work fuzz/corpus/$$name \
	    >$$work.log 2>&1 || { tail -n 60 $$work.log; exit 1; }; \
	  grep -E 'Done|DONE' $$work.log | tail -n 1; \
	done

fuzz: fuzz-c fuzz-py ## every fuzz target for FUZZ_SECONDS each

# `$(call pythons)` prints version and path, one line for each CPython >= 3.10 on PATH and under pyenv.
define pythons
identify='import sys; v = sys.version_info; c = sys.implementation.name == "cpython"; \
  print("%d.%d" % v[:2] if c else "", sys.executable, sep="\t")'; \
for candidate in python3 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/*/bin/python \
    $$(compgen -c python3. | grep -xE 'python3\.[0-9]+' | sort -u); do \
  "$$candidate" -c "$(SUITABLE)" 2>/dev/null && "$$candidate" -c "$$identify" || true; \
done | grep -v $$'^\t' | sort -V | awk -F'\t' '!seen[$$1]++'
endef

test-all: ## `make test` on every CPython >= 3.10 on PATH and under pyenv
	@found=$$($(call pythons)); \
	test -n "$$found" || { echo "No CPython >= 3.10 was found." >&2; exit 1; }; \
	failed=; \
	while IFS=$$'\t' read -r version python <&3; do \
	  echo "== CPython $$version ($$python)"; \
	  $(MAKE) --no-print-directory test VENV=build/venvs/$$version PYTHON="$$python" || failed+=" $$version"; \
	done 3<<<"$$found"; \
	test -z "$$failed" || { echo "failed on:$$failed" >&2; exit 1; }

# The same commit gives the same sdist.
dist: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
dist: $(VENV)/.compiler $(VENV)/.extra-build ## sdist and wheels in dist/, each tried in a fresh environment of every CPython
	rm -rf dist
	$(PY) -m build --no-isolation --sdist --outdir dist .
	$(PY) tests/packages.py $$($(call pythons) | cut -f2)

clean: ## remove everything that make created
	rm -rf build dist .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find wsproto_fast tests fuzz benchmarks examples \( -name '*.so' -o -name '*.pyc' \) -delete 2>/dev/null || true
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
