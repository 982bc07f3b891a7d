# The whole project from one place; `make` alone lists what there is.
PYTHON ?= python3
# Another index for torch alone, for instance PyTorch's CPU index: a far smaller download than the default CUDA build.
TORCH_INDEX ?=
# Further words for pytest, for instance PYTEST_ARGS="tests/unit -k settings".
PYTEST_ARGS ?=
# How long make fuzz looks, all properties together.
FUZZ_SECONDS ?= 600
# Further words for a bench, for instance BENCH_ARGS=--quick.
BENCH_ARGS ?=
# Those for its stream of studies, for instance STREAM_ARGS="--study DIR".
STREAM_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test fuzz soak check bench-ingest bench-evidence bench-pipeline bench-results clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP) ## Make .venv and install everything pinned into it; does nothing when it is up to date

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ainode needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	# torch first and alone, so that TORCH_INDEX serves nothing else; its dependencies come with the next line.
	$(BIN)/pip install --no-deps -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## Run the node end to end on a phantom; STUDY=dir takes a study of yours, KEEP=1 stays up
	$(BIN)/ainode demo $(if $(STUDY),--study '$(STUDY)') $(if $(KEEP),--keep)

serve: $(STAMP) ## Start the node with node.yaml, or the file that AINODE_CONFIG names
	$(BIN)/ainode serve

test: $(STAMP) ## Run the tests; what needs a peer that is not installed skips by name
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# No limit of time for a test: the properties themselves find a hang.
fuzz: $(STAMP) ## Look for streams that break the receiver, for FUZZ_SECONDS (ten minutes)
	AINODE_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -m fuzz -o timeout=0 $(PYTEST_ARGS)

soak: $(STAMP) ## Kill the receiver a hundred times, with the figures; minutes
	AINODE_SOAK=1 $(BIN)/python -m pytest -s tests/acceptance/test_receiver_kills.py $(PYTEST_ARGS)

check: $(STAMP) ## The gate: format, lint, strict types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-ingest: $(STAMP) ## Measure receiving beside DCMTK, Orthanc and stock pynetdicom; half an hour
	$(BIN)/python bench/ingest.py $(BENCH_ARGS)

bench-pipeline: $(STAMP) ## Measure what surrounds a network beside MONAI and SimpleITK; a quarter of an hour
	$(BIN)/pip install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python bench/pipeline.py $(BENCH_ARGS)
	$(BIN)/python bench/stream.py $(STREAM_ARGS)

bench-results: $(STAMP) ## Measure building results beside highdicom and sending them beside DCMTK; ten minutes
	$(BIN)/python bench/composing.py $(BENCH_ARGS)
	$(BIN)/python bench/delivery.py $(BENCH_ARGS)

bench-evidence: $(STAMP) ## Measure how soon a complete CT settles; BENCH_ARGS="--study DIR" takes a real one
	$(BIN)/python bench/evidence.py $(BENCH_ARGS)

clean: ## Remove the environment and everything generated; received data (data_dir) stays
	rm -rf .venv .cache build dist demo-out *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
