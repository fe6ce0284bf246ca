# Two commands on a fresh machine (python3, make, a C++ compiler, git):
#   make demo     re-expresses a real face and writes a video and a contact sheet to out/
#   make test     runs the tests
# and, to play with it at once:
#   make studio   opens the page in the browser: the camera goes in, you with another expression come back
# Each sets up what it needs: .venv in this folder, known-good packages (constraints.txt), the native module.
#
#   make demo TARGET=clip.mp4 SOURCE=face.jpg      on your own files
#   make test PYTEST_ARGS="tests/ops -k crop"
#   make ext RT_SWAP_NATIVE=1                      the native module for exactly this processor
#   make test PYTHON=python3.12                    another Python, 3.10 to 3.12 (a new .venv only)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# the first of these that is 3.10, 3.11 or 3.12
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	"$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& { echo "$$python"; break; }; done)
OUT ?= out
PYTEST_ARGS ?=
BENCH_ARGS ?=
DEMO_ARGS ?=
STUDIO_ARGS ?=

BIN := .venv/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt
EXT_SOURCES := setup.py $(filter-out %.md,$(wildcard cpp_ext/*))
CPP_FILES := $(wildcard cpp_ext/*.h cpp_ext/*.inc cpp_ext/*.cpp cpp_ext/*.cu cpp_ext/*.cuh)

# make hands variables of the command line and the environment on to the recipes' shell
TARGET ?=
SOURCE ?=
export TARGET SOURCE

.PHONY: help demo studio test test-gpu check fix bench bench-live doctor roofline sass ext ext-current setup setup-demo setup-studio system-demo system-test clean

help:  ## say what there is
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '%-14s %s\n' "$$name" "$$what"; done

demo: setup-demo  ## re-express a real face (or TARGET=clip.mp4 SOURCE=face.jpg) into out/
	@$(BIN)/rt-swap demo --out "$(OUT)" $${TARGET:+--target "$$TARGET"} $${SOURCE:+--source "$$SOURCE"} $(DEMO_ARGS)

studio: setup-studio  ## open the page in the browser: your camera, and you with another expression
	@$(BIN)/rt-swap studio $(STUDIO_ARGS)

test: setup  ## run the tests
	@$(PY) -m pytest $(PYTEST_ARGS)

test-gpu: setup .venv/.stamp-gpu  ## run the tests that need an NVIDIA GPU; fails without one
	@RT_SWAP_REQUIRE_GPU=1 $(PY) -m pytest -m gpu $(PYTEST_ARGS)

check: setup  ## lint, format, types, spelling; edits nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)

fix: setup  ## the same, edits what can be edited
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)
	$(BIN)/codespell

bench: setup  ## measure the pipeline; fails where a bound is missed
	@$(PY) -m benchmarks.bench_pipeline $(BENCH_ARGS)

bench-live: setup  ## measure the age of live frames for ten minutes
	@$(PY) -m benchmarks.bench_live $(BENCH_ARGS)

doctor: setup  ## say what is missing here, and the cure
	@$(BIN)/rt-swap doctor

roofline: setup  ## how fast each stage could be at best, as a page in out/
	@mkdir -p out
	@$(PY) -m benchmarks.roofline --html out/roofline.html

sass: setup  ## compile the CUDA kernels for every architecture; fails where registers spill
	@$(PY) -m benchmarks.cuda_sass

ext: .venv/.stamp-build  ## build the native module again
	$(PY) setup.py --quiet build_ext --inplace --force

clean:  ## remove what was built and written, but not .venv
	rm -rf build out $(wildcard rt_swap/_warp*.so) rt_swap/_warp.fatbin $(wildcard *.egg-info)

# --- set-up -----------------------------------------------------------------------------------------------------------
setup: system-test .venv/.stamp-test ext-current  ## set up for development: tests, training, checks

setup-demo: system-demo .venv/.stamp-demo ext-current

setup-studio: system-demo .venv/.stamp-studio ext-current

system-demo system-test: system-%:
	@sh tests/support/system_packages.sh $* "$(PYTHON)"

.venv/.stamp-venv:
	@test -n "$(PYTHON)" || { echo "rt_swap needs Python 3.10, 3.11 or 3.12 and found none; say where it is: make ... PYTHON=/path/to/python3.12" >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	@touch $@

# The build is not isolated, so that these pins hold for it, too.
.venv/.stamp-build: .venv/.stamp-venv constraints.txt
	@$(INSTALL) setuptools pybind11
	@touch $@

.venv/.stamp-demo: .venv/.stamp-build pyproject.toml
	@echo "installing .[demo] and building the native module (once; takes minutes)"
	@$(INSTALL) --no-build-isolation --editable '.[demo]'
	@touch $@

# Holds all that the demo needs, too.
.venv/.stamp-studio: .venv/.stamp-build pyproject.toml
	@echo "installing .[demo,studio] and building the native module (once; takes minutes)"
	@$(INSTALL) --no-build-isolation --editable '.[demo,studio]'
	@touch .venv/.stamp-demo $@

.venv/.stamp-gpu: .venv/.stamp-test
	@$(INSTALL) --no-build-isolation --editable '.[rtx]'
	@touch $@

# Holds all that the demo needs, too.
.venv/.stamp-test: .venv/.stamp-build pyproject.toml
	@echo "installing .[demo,dev,studio,train] and building the native module (once; takes minutes)"
	@$(INSTALL) --no-build-isolation --editable '.[demo,dev,studio,train]'
	@touch .venv/.stamp-demo .venv/.stamp-studio $@

# The editable install has built it once; after that only when a source is newer.
ext-current:
	@module="rt_swap/_warp$$($(PY) -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')"; \
	if [ ! -e "$$module" ] || [ -n "$$(find $(EXT_SOURCES) -newer "$$module")" ]; then \
		echo "building the native module"; $(PY) setup.py --quiet build_ext --inplace --force; fi
