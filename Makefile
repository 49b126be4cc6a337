# Two commands do everything for a newcomer: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/python -m
export MPLBACKEND := Agg
export PYTHONDONTWRITEBYTECODE :=  # tests start many processes: what one of them compiles, the others load

.PHONY: demo test test-deep lint types floors unit docs bench tables format build browser clean

# torch first and by itself: the pinned build decides which one every other package finds.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --constraint constraints.txt torch
	$(RUN) pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed  ## Re-run the claims that fit into ten minutes by the record, and build the report.
	$(BIN)/commutant reproduce --scale small --minutes 10
	$(BIN)/commutant report

test: $(VENV)/installed lint types floors unit docs  ## Everything that must hold before a change lands.

test-deep: DEPTH := --deep
test-deep: test  ## The same with every case at full depth.

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

floors: $(VENV)/installed
	$(BIN)/lint-imports

# One thread a worker: threads of several workers wait for each other at every barrier.
unit: export OMP_NUM_THREADS = 1
unit: $(VENV)/installed
	$(RUN) pytest tests src $(DEPTH) --doctest-modules --numprocesses=auto --maxprocesses=4 --dist=loadfile \
		--jaxtyping-packages=$$($(RUN) tools.house)

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

bench: $(VENV)/installed  ## Time the systems beside what their users would pick instead.
	$(RUN) benchmarks --record

tables: $(VENV)/installed  ## Write the tables of README and docs from results/.
	$(RUN) tools.tables

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build: $(VENV)/installed  ## Wheel and source distribution into dist/.
	$(RUN) build --no-isolation

clean:
	rm -rf $(VENV) site dist runs report .mypy_cache .ruff_cache
