PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2
FUZZ_SECONDS ?= 10
INPUT  ?= sample_data/docs.jsonl
TOKENIZER ?= packcli/tokenizing/builtin

# Most of what is installed is never imported: compiling what is, when it is, halves the time that environments take.
export PIP_COMPILE := 0
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-ranks demo-ray docs test test-browser test-ray test-remote test-train test-consumers check lint types \
        format bench bench-peers bench-planner bench-ray stress fuzz smoke clean

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

demo-ranks: $(STAMP) ## Pack sample_data with three ranks, each a process of its own, on one output
	$(BIN)/packcli units plan sample_data/docs.jsonl -o demo/ranks --unit-bytes 50kB --strategy best-fit
	for rank in 0 1 2; do $(BIN)/packcli units run demo/ranks --rank $$rank --world-size 3 --workers 1 & done; wait
	$(BIN)/packcli units status demo/ranks
	$(BIN)/packcli units finish demo/ranks
	$(BIN)/packcli verify demo/ranks

.venv-ray/.installed: pyproject.toml
	test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --editable '.[dev,ray]'
	touch $@

demo-ray: .venv-ray/.installed ## Start Ray, pack sample_data on it, and show that the tree is that of one process
	rm -rf demo/ray demo/serial
	export RAY_AUTH_MODE=disabled; \
	.venv-ray/bin/ray start --head --block --num-cpus 2 --include-dashboard=false --disable-usage-stats >/dev/null & \
	ray=$$!; trap "kill $$ray; wait $$ray" EXIT; tries=0; \
	until .venv-ray/bin/ray status >/dev/null 2>&1 || [ $$((tries += 1)) -gt 60 ]; do sleep 1; done; \
	.venv-ray/bin/packcli pack sample_data/docs.jsonl -o demo/ray --engine ray --unit-bytes 100kB
	.venv-ray/bin/packcli pack sample_data/docs.jsonl -o demo/serial --engine serial --unit-bytes 100kB --quiet
	diff -r -x .packcli demo/ray demo/serial
	@echo "demo/ray and demo/serial are the same, byte for byte"

test: $(STAMP) ## Run the tests
	$(BIN)/python -m pytest -n $(JOBS)

test-ray: .venv-ray/.installed ## Pack on Ray, on this machine and on a cluster of two nodes that die, in an environment of its own
	.venv-ray/bin/python -m pytest tests/ray/ray_check.py $(RAY_TESTS)

.venv-train/.installed: pyproject.toml
	test -x .venv-train/bin/python || $(PYTHON) -m venv .venv-train
	.venv-train/bin/python -m pip install --quiet torch==2.13.0
	.venv-train/bin/python -m pip install --quiet 'transformers[torch]>=5' 'trl>=1' --editable '.[dev]'
	touch $@

test-train: .venv-train/.installed ## Run the tests that need torch, transformers and trl, in an environment of their own
	.venv-train/bin/python -m pytest -n $(JOBS) $(filter-out tests/train/consumers_check.py,$(wildcard tests/train/*_check.py))

test-remote: ## Run packcli against object stores on this machine that fail now and then, in an environment of its own
	test -x .venv-remote/bin/python || $(PYTHON) -m venv .venv-remote
	.venv-remote/bin/python -m pip install --quiet 'moto[s3,server]>=5' 'aiobotocore>=3' 's3fs>=2026' 'gcsfs>=2026' \
	  --editable '.[dev,s3,gcs]'
	.venv-remote/bin/python -m pytest --force-enable-socket $(wildcard tests/remote/*_check.py)

test-browser: ## Open the HTML report in headless Chromium (PACKCLI_CHROMIUM or chromium), in an environment of its own
	test -x .venv-browser/bin/python || $(PYTHON) -m venv .venv-browser
	.venv-browser/bin/python -m pip install --quiet playwright axe-core-python --editable '.[dev]'
	.venv-browser/bin/python -m pytest tests/test_browser.py

docs: $(STAMP) ## Make the table and the screenshot of README again (PACKCLI_CHROMIUM or chromium)
	$(BIN)/python tests/docs/make.py

# Without their dependencies, which no set of versions satisfies; the second line is what their readers import.
READERS = mosaicml-streaming==0.13.0 megatron-core==0.16.1 datatrove==0.10.1 nemo-automodel==0.7.0 llamafactory==0.9.5 \
          Brotli catalogue cramjam humanize loguru python-snappy zstd

test-consumers: .venv-train/.installed ## Read exports with the own readers of other stacks, in the environment of test-train
	.venv-train/bin/python -m pip install --quiet --no-deps $(READERS)
	.venv-train/bin/python -m pytest tests/train/consumers_check.py

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

bench-ray: .venv-ray/.installed ## Measure Ray beside processes: INPUT=corpus.jsonl.zst TOKENIZER=dir
	.venv-ray/bin/python tests/benchmarks/bench_ray.py cost $(INPUT) --tokenizer $(TOKENIZER)
	.venv-ray/bin/python tests/benchmarks/bench_ray.py tasks

stress: $(STAMP) ## The long runs: kills, faults, flipped bits, damaged shards, ten gigabytes (TOKENIZERS=dir of real ones)
	PACKCLI_KILLS=100 $(BIN)/python -m pytest tests/test_kill.py tests/test_merge.py tests/test_mix.py -v
	PACKCLI_RANK_KILLS=40 $(BIN)/python -m pytest tests/test_ranks.py -v
	PACKCLI_EVERY_WAY=1 PACKCLI_STARTS=50 $(BIN)/python -m pytest tests/test_injection.py tests/test_faults.py -v
	PACKCLI_EVERY_WAY=1 $(BIN)/python -m pytest tests/test_stores.py -v
	PACKCLI_FLIPS=1000 PACKCLI_DAMAGES=10000 $(BIN)/python -m pytest tests/test_verify.py tests/test_tokenizer_damage.py -v
	$(if $(TOKENIZERS),PACKCLI_TOKENIZERS=$(TOKENIZERS)) $(BIN)/python -m pytest tests/test_special_text.py
	$(BIN)/python tests/benchmarks/bench_large.py $(INPUT) --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_large.py $(INPUT) --tokenizer $(TOKENIZER) --size 10GB --limit 2GB
	$(BIN)/python tests/benchmarks/check_recount.py $(INPUT) --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_units.py --units 100000 --pack

fuzz: $(STAMP) ## Fuzz the row decoder, the tokenizer loader and the shard reader, FUZZ_SECONDS=10 each
	$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python tests/fuzz/fuzz_rows.py -max_total_time=$(FUZZ_SECONDS)
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
