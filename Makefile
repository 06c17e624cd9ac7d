PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2
FUZZ_SECONDS ?= 10
INPUT  ?= sample_data/docs.jsonl
TOKENIZER ?= packcli/tokenizing/builtin

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-browser test-train test-consumers check lint types format bench bench-peers bench-planner stress \
        fuzz smoke clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(STAMP) ## Create the environment, pack sample_data twice, show both reports
	$(BIN)/packcli pack sample_data/docs.jsonl -o demo/concat --strategy concat
	$(BIN)/packcli pack sample_data/docs.jsonl -o demo/best-fit --strategy best-fit
	$(BIN)/packcli stats demo/concat
	$(BIN)/packcli stats demo/best-fit

test: $(STAMP) ## Run the tests
	$(BIN)/python -m pytest -n $(JOBS)

test-train: ## Run the tests that need torch, transformers and trl, in an environment of their own
	test -x .venv-train/bin/python || $(PYTHON) -m venv .venv-train
	.venv-train/bin/python -m pip install --quiet torch==2.13.0
	.venv-train/bin/python -m pip install --quiet 'transformers[torch]>=5' 'trl>=1' --editable '.[dev]'
	.venv-train/bin/python -m pytest $(filter-out tests/train/consumers_check.py,$(wildcard tests/train/*_check.py))

test-browser: ## Open the HTML report in headless Chromium (PACKCLI_CHROMIUM or chromium), in an environment of its own
	test -x .venv-browser/bin/python || $(PYTHON) -m venv .venv-browser
	.venv-browser/bin/python -m pip install --quiet playwright axe-core-python --editable '.[dev]'
	.venv-browser/bin/python -m pytest tests/test_browser.py

docs: $(STAMP) ## Make the table and the screenshot of README again (PACKCLI_CHROMIUM or chromium)
	$(BIN)/python tests/docs/make.py

test-consumers: ## Read exports with the own readers of other stacks, in an environment of their own
	test -x .venv-consumers/bin/python || $(PYTHON) -m venv .venv-consumers
	.venv-consumers/bin/python -m pip install --quiet torch torchvision --editable '.[dev]'
	.venv-consumers/bin/python -m pip install --quiet mosaicml-streaming megatron-core 'datatrove[io]' trl
	.venv-consumers/bin/python -m pytest tests/train/consumers_check.py

check: lint types test ## What CI runs first: lint, types, tests

lint: $(STAMP) ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check types, strictly
	$(BIN)/mypy

format: $(STAMP) ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Measure: INPUT=corpus.jsonl.zst TOKENIZER=dir (defaults: sample_data, builtin)
	$(BIN)/python tests/benchmarks/bench_assemble.py
	$(BIN)/python tests/benchmarks/bench_start.py
	$(BIN)/python tests/benchmarks/bench_chat.py --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_pack.py $(INPUT) --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_verify.py $(INPUT) --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_stats.py $(INPUT) --tokenizer $(TOKENIZER)

bench-peers: $(STAMP) ## Measure beside TRL and datatrove, in an environment of their own
	$(BIN)/python tests/benchmarks/bench_peers.py $(INPUT) --tokenizer $(TOKENIZER)

bench-planner: $(STAMP) ## Measure the planner: LENGTHS='a.npy ...' adds lengths, OPTIONS=--help shows more
	$(BIN)/python tests/benchmarks/bench_planner.py $(LENGTHS) $(OPTIONS)

stress: $(STAMP) ## The long runs: kills, faults, flipped bits, damaged shards, ten gigabytes
	PACKCLI_KILLS=100 $(BIN)/python -m pytest tests/test_kill.py tests/test_merge.py tests/test_mix.py -v
	PACKCLI_EVERY_WAY=1 PACKCLI_STARTS=50 $(BIN)/python -m pytest tests/test_injection.py tests/test_faults.py -v
	PACKCLI_FLIPS=1000 PACKCLI_DAMAGES=10000 $(BIN)/python -m pytest tests/test_verify.py tests/test_tokenizer_damage.py -v
	$(BIN)/python tests/benchmarks/bench_large.py $(INPUT) --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_large.py $(INPUT) --tokenizer $(TOKENIZER) --size 10GB --limit 2GB
	$(BIN)/python tests/benchmarks/check_recount.py $(INPUT) --tokenizer $(TOKENIZER)

fuzz: $(STAMP) ## Fuzz the shard reader and the tokenizer loader, FUZZ_SECONDS=10 each
	$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python tests/fuzz/fuzz_shard.py -max_total_time=$(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/fuzz_tokenizer.py -max_total_time=$(FUZZ_SECONDS)

smoke: ## Install the wheel alone into a fresh environment and use it
	rm -rf build/smoke && mkdir -p build/smoke
	$(PYTHON) -m venv build/smoke/venv
	build/smoke/venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/smoke .
	build/smoke/venv/bin/python -m pip install --quiet build/smoke/packcli-*.whl
	cd build/smoke && venv/bin/packcli pack ../../sample_data/docs.parquet && venv/bin/packcli stats docs-packed
	cd build/smoke && venv/bin/python -c "import packcli; print(packcli.load('docs-packed'))"

clean: ## Remove what make made
	rm -rf $(VENV) .venv-* build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
