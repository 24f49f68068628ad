# Everything below needs only Python >= 3.11, make and git. Each target sets up what it needs and is quick the second time.
#   make demo      environment, then a trace of the demo model into cache/demo.zarr
#   make test      environment, lint, types, test suite (WORKERS=8: as many processes)
#   make test-long       whole campaigns; one case of each kind of fault and of cluster, with real processes
#   make test-browser    every dashboard page in a real browser
#   make test-all  all of these, the notebooks, quantised models, the whole cross of families, features and faults
#   make test-gpu  the tests that need a CUDA device
#   make notebooks the notebooks, executed, into cache/notebooks/
#   make docs      the docs as a site, every link checked
#   make bench     every benchmark, and docs/benchmarks.md written from them (BENCH="--only tracing --rounds 3" for a part)
#   make bench-card   what wants a card, in five minutes (BENCH=--dry-run: the same on small CPU models)
#   make install   the environment alone, in .venv/
# Another torch build (CUDA, ROCm): make install TORCH_INDEX=https://download.pytorch.org/whl/cu130

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
QUANTIZED := $(VENV)/quantized
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
# one thread each: two of two threads on two cores take ten times as long
PARALLEL := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
HERE := not slow and not gpu and not browser and not notebook and not quantized

.PHONY: demo test test-long test-browser test-all notebooks test-gpu lint install docs bench bench-card clean

demo: $(INSTALLED)
	$(BIN)/interp trace --model demo --prompts interp/models/demo/prompts.txt --record stats,gates,hidden --out cache/demo.zarr
	@echo
	@echo "A trace of eight prompts is in cache/demo.zarr. Look at it:"
	@echo "  $(BIN)/interp info cache/demo.zarr"
	@echo "  $(BIN)/interp dashboard cache"
	@echo "  $(BIN)/python -c 'import interp; print(interp.open_run(\"cache/demo.zarr\").stats)'"

test: lint
	OMP_NUM_THREADS=1 $(PARALLEL) -m "$(HERE) and not processes and not long and not full"

test-long: $(INSTALLED)
	OMP_NUM_THREADS=1 $(PARALLEL) -m "$(HERE) and long and not full"
	OMP_NUM_THREADS=1 $(PARALLEL:loadfile=load) -m "$(HERE) and processes and not long and not full"

test-browser: $(INSTALLED)
	$(BIN)/python -m pytest -m browser

test-all: lint $(QUANTIZED)/installed test-browser notebooks
	OMP_NUM_THREADS=1 $(PARALLEL) -m "$(HERE)"
	PYTHONPATH=$(QUANTIZED) $(BIN)/python -m pytest -m "quantized and not slow and not gpu"

# apart from the environment: diffusers imports them wherever they are, which takes seconds
$(QUANTIZED)/installed: $(INSTALLED)
	$(PIP) --no-deps --target $(QUANTIZED) torchao==0.18.0 bitsandbytes==0.50.2
	touch $(QUANTIZED)/installed

notebooks: $(INSTALLED)
	NOTEBOOKS=cache/notebooks OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m notebook

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(INSTALLED)

ifneq ($(TORCH_INDEX),)
.PHONY: $(INSTALLED)
endif

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("interp needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (make PYTHON=python3.12)" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),PIP_EXTRA_INDEX_URL=$(TORCH_INDEX)) $(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

docs: $(INSTALLED)
	$(PIP) --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python tests/benchmarks/bench.py $(BENCH)

bench-card: $(INSTALLED)
	$(BIN)/python tests/benchmarks/card.py $(BENCH)

clean:
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache
