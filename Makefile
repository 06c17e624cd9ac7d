PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2
FUZZ_SECONDS ?= 10
PYTHONS ?= python3.10 python3.11 python3.12 python3.13
PYTHON_OLDEST ?= python3.10
PYTHON_NEWEST ?= python3.13
INPUT  ?= sample_data/docs.jsonl
TOKENIZER ?= packcli/tokenization/builtin

# Most of what is installed is never imported: compiling what is, when it is, halves the time that environments take.
export PIP_COMPILE := 0
unexport PYTHONDONTWRITEBYTECODE

# The versions with which CI passed, and `make lock` the newest: whatever pip installs or builds below keeps to them.
PINS := .ci/pins/python$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt
export PIP_CONSTRAINT := $(wildcard $(PINS))
export PIP_BUILD_CONSTRAINT = $(PIP_CONSTRAINT)

# $(call venv,DIR): an environment, where there is none.
venv = $(if $(PIP_CONSTRAINT),,@echo "no pins, so $(1) gets the newest versions"; )test -x $(1)/bin/python || $(PYTHON) -m venv $(1)

# $(call each,TARGET,PYTHONS): the target with each Python that is here.
each = @for each in $(2); do \
	  if $$each -c '' 2>/dev/null; then $(MAKE) --no-print-directory $(1) PYTHON=$$each || exit 1; \
	  else echo "$$each is not here: not run: make $(1) PYTHON=$$each"; fi; done

.DEFAULT_GOAL := help
.PHONY: help demo demo-ranks demo-ray docs test test-oldest test-newest check lint types format bench bench-ray stress fuzz \
        smoke lock clean oldest-one newest-one smoke-one lock-one lock-oldest
.SECONDEXPANSION:

help: ## Show this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed 's/%/NAME/' | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml $(PIP_CONSTRAINT)
	$(call venv,$(VENV))
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(STAMP) ## Create the environment, pack sample_data twice, show both reports (also demo-ranks, demo-ray)
	$(BIN)/packcli pack sample_data/docs.jsonl -o demo/concat --strategy concat
	$(BIN)/packcli pack sample_data/docs.jsonl -o demo/best-fit --strategy best-fit
	$(BIN)/packcli stats demo/concat
	$(BIN)/packcli stats demo/best-fit

# Three ranks, each a process of its own, on one output.
demo-ranks: $(STAMP)
	$(BIN)/packcli units plan sample_data/docs.jsonl -o demo/ranks --unit-bytes 50kB --strategy best-fit
	for rank in 0 1 2; do $(BIN)/packcli units run demo/ranks --rank $$rank --world-size 3 --workers 1 & done; wait
	$(BIN)/packcli units status demo/ranks
	$(BIN)/packcli units finish demo/ranks
	$(BIN)/packcli verify demo/ranks

# A Ray is started, and the tree is that of one process.
demo-ray: .venv-ray/.installed
	rm -rf demo/ray demo/serial
	export RAY_AUTH_MODE=disabled; folder=$$(mktemp -d); \
	.venv-ray/bin/ray start --head --block --num-cpus 2 --temp-dir $$folder --include-dashboard=false \
	  --disable-usage-stats >/dev/null & \
	ray=$$!; trap "kill $$ray; wait $$ray; rm -rf $$folder" EXIT; tries=0; \
	until .venv-ray/bin/ray status >/dev/null 2>&1 || [ $$((tries += 1)) -gt 60 ]; do sleep 1; done; \
	.venv-ray/bin/packcli pack sample_data/docs.jsonl -o demo/ray --engine ray --unit-bytes 100kB
	.venv-ray/bin/packcli pack sample_data/docs.jsonl -o demo/serial --engine serial --unit-bytes 100kB --quiet
	diff -r -x .packcli demo/ray demo/serial
	@echo "demo/ray and demo/serial are the same, byte for byte"

test: $(STAMP) ## Run the tests, but for those that take processes and seconds (tests/system) or other software
	$(BIN)/python -m pytest -n $(JOBS) --ignore=tests/system

check: lint types ## Lint, types, and all tests but for the integrations: what CI (.ci/run) runs first
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP) ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What each integration needs, in an environment of its own. torch and what is built on it are those of Python 3.11.
NEEDS_ray      := --editable '.[dev,ray]'
NEEDS_torch    := torch==2.13.0 'transformers[torch]>=5' 'trl>=1' --editable '.[dev]'
NEEDS_remote   := 'moto[s3,server]>=5' 'aiobotocore>=3' 's3fs>=2026' 'gcsfs>=2026' --editable '.[dev,s3,gcs]'
NEEDS_browser  := playwright axe-core-python --editable '.[dev]'
OPTIONS_torch  := -n $(JOBS)
OPTIONS_remote := --force-enable-socket

# consumers: the readers, without their dependencies, which no set of versions satisfies; what they import; and torch.
READERS := mosaicml-streaming==0.13.0 megatron-core==0.16.1 datatrove==0.10.1 nemo-automodel==0.7.0 llamafactory==0.9.5
READERS_IMPORT := Brotli catalogue cramjam humanize loguru python-snappy zstd
BESIDE_consumers := $(READERS) $(READERS_IMPORT)
HOME_consumers   := .venv-torch

$(patsubst %,.venv-%/.installed,ray torch remote browser): .venv-%/.installed: pyproject.toml $(PIP_CONSTRAINT)
	$(call venv,.venv-$*)
	.venv-$*/bin/python -m pip install --quiet $(NEEDS_$*)
	touch $@

home = $(or $(HOME_$(1)),.venv-$(1))

integration-%: $$(call home,$$*)/.installed ## Run packcli beside other software: torch, ray, remote, browser, consumers (TESTS='-k word')
	$(if $(BESIDE_$*),$(call home,$*)/bin/python -m pip install --quiet --no-deps $(BESIDE_$*))
	$(call home,$*)/bin/python -m pytest $(OPTIONS_$*) tests/integrations/$* $(TESTS)

# What works closely with other people's packages; the whole suite has crashes and damage besides.
CORE ?= $(patsubst %,tests/%.py, \
          surface/test_architecture surface/test_docs surface/test_packaging surface/test_surface \
          readers/test_bad_rows readers/test_chunks readers/test_cut_short readers/test_faults readers/test_records readers/test_sources \
          storage/test_filesystem storage/test_location storage/test_locks storage/test_remote storage/test_storage \
          tokenization/test_chat tokenization/test_engines tokenization/test_masks tokenization/test_spans \
          tokenization/test_tokenized tokenization/test_tokenizer_spec pipeline/test_rejects pipeline/test_run \
          verification/test_restore api/test_api report/test_html report/test_packs exports/test_exports training/test_load cli/test_cli \
          system/test_command_line system/test_workers)

test-oldest: ## Run the core of the tests with the oldest version of every dependency on PYTHON_OLDEST (CORE=tests: all)
	$(call each,oldest-one,$(PYTHON_OLDEST))

oldest-one: export PIP_CONSTRAINT := .ci/pins/oldest.txt
oldest-one:
	$(call venv,.venv-oldest)
	.venv-oldest/bin/python -m pip install --quiet --editable '.[dev,s3]'
	.venv-oldest/bin/python -m pytest -n $(JOBS) $(CORE) -W ignore::pyparsing.warnings.PyparsingDeprecationWarning # matplotlib

NEWEST := 'tokenizers>=1.0.0rc3' # a candidate, which pip takes only when asked

test-newest: ## Run the core of the tests with the newest versions, without pins, on PYTHON_NEWEST (CORE=tests: all)
	$(call each,newest-one,$(PYTHON_NEWEST))
	@$(PYTHON_NEWEST) -c '' 2>/dev/null || $(MAKE) --no-print-directory newest-one

newest-one: export PIP_CONSTRAINT :=
newest-one:
	$(call venv,.venv-newest)
	.venv-newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager $(NEWEST) --editable '.[dev,s3,gcs]'
	.venv-newest/bin/python -m pytest -n $(JOBS) $(CORE)

docs: $(STAMP) ## Make the table and the screenshot of README again (PACKCLI_CHROMIUM or chromium)
	$(BIN)/python tests/docs/make.py

bench: $(STAMP) ## Measure packing: INPUT=corpus.jsonl.zst TOKENIZER=dir (defaults: sample_data, builtin)
	$(BIN)/python tests/benchmarks/bench_assemble.py
	$(BIN)/python tests/benchmarks/bench_start.py
	$(BIN)/python tests/benchmarks/bench_chat.py --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_pack.py $(INPUT) --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_verify.py $(INPUT) --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_stats.py $(INPUT) --tokenizer $(TOKENIZER)

bench-%: $(STAMP) ## Run tests/benchmarks/bench_NAME.py: planner (LENGTHS='a.npy ...' OPTIONS=...), peers, ray, units ...
	$(if $(filter peers,$*),PIP_CONSTRAINT=) $(BIN)/python tests/benchmarks/bench_$*.py $(ARGUMENTS_$*)

ARGUMENTS_planner = $(LENGTHS) $(OPTIONS)
$(foreach each,large pack peers stats verify,$(eval ARGUMENTS_$(each) = $$(INPUT) --tokenizer $$(TOKENIZER) $$(OPTIONS)))

bench-ray: .venv-ray/.installed
	.venv-ray/bin/python tests/benchmarks/bench_ray.py cost $(INPUT) --tokenizer $(TOKENIZER)
	.venv-ray/bin/python tests/benchmarks/bench_ray.py tasks

stress: $(STAMP) ## The long runs: kills, faults, flipped bits, damaged shards, ten gigabytes (TOKENIZERS=dir of real ones)
	PACKCLI_KILLS=100 $(BIN)/python -m pytest tests/system/test_kill.py tests/pipeline/test_merge.py tests/pipeline/test_mixture.py -v
	PACKCLI_RANK_KILLS=40 $(BIN)/python -m pytest tests/system/test_ranks.py -v
	PACKCLI_EVERY_WAY=1 PACKCLI_STARTS=50 $(BIN)/python -m pytest tests/system/test_injection.py tests/system/test_faults.py -v
	PACKCLI_EVERY_WAY=1 $(BIN)/python -m pytest tests/storage/test_storage.py -v
	PACKCLI_FLIPS=1000 PACKCLI_DAMAGES=10000 $(BIN)/python -m pytest tests/verification/test_verify.py tests/tokenization/test_tokenizer_damage.py -v
	$(if $(TOKENIZERS),PACKCLI_TOKENIZERS=$(TOKENIZERS)) $(BIN)/python -m pytest tests/tokenization/test_special_text.py
	$(BIN)/python tests/benchmarks/bench_large.py $(INPUT) --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_large.py $(INPUT) --tokenizer $(TOKENIZER) --size 10GB --limit 2GB
	$(BIN)/python tests/benchmarks/check_recount.py $(INPUT) --tokenizer $(TOKENIZER)
	$(BIN)/python tests/benchmarks/bench_units.py --units 100000 --pack

FUZZ := atheris

fuzz: $(STAMP) ## Fuzz the row decoder, the tokenizer loader and the shard reader, FUZZ_SECONDS=10 each
	$(BIN)/python -m pip install --quiet $(FUZZ)
	$(BIN)/python tests/fuzz/fuzz_rows.py -max_total_time=$(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/fuzz_shard.py -max_total_time=$(FUZZ_SECONDS)
	$(BIN)/python tests/fuzz/fuzz_tokenizer.py -max_total_time=$(FUZZ_SECONDS)

SMOKE ?= $(PYTHON) $(PYTHON_OLDEST) $(PYTHON_NEWEST)

smoke: ## Install the wheel alone into a fresh environment and use it, on each Python of SMOKE that is here
	$(call each,smoke-one,$(SMOKE))

smoke-one:
	rm -rf build/smoke && mkdir -p build/smoke
	$(call venv,build/smoke/venv)
	build/smoke/venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/smoke .
	build/smoke/venv/bin/python -m pip install --quiet build/smoke/packcli-*.whl
	cd build/smoke && venv/bin/packcli pack ../../sample_data/docs.jsonl && venv/bin/packcli stats docs-packed
	cd build/smoke && venv/bin/packcli pack ../../sample_data/docs.parquet -o parquet
	cd build/smoke && venv/bin/python -c "import packcli; print(packcli.load('docs-packed'))"
	test -f build/smoke/venv/lib/python*/site-packages/packcli/py.typed

lock: ## Write .ci/pins anew on each Python that is here: the newest versions that fit together, and the oldest
	$(call each,lock-one,$(PYTHONS))
	$(call each,lock-oldest,$(PYTHON_OLDEST))

# All environments at once, so that one file does for all. torch, and what needs it, only where CI trains.
PACKAGES = $(filter-out --editable '.[%,$(NEEDS_$(1)))
LOCKED = hatchling $(call PACKAGES,remote) $(call PACKAGES,browser) $(FUZZ) $(READERS_IMPORT) \
         $(if $(findstring 3.11,$(PINS)),$(call PACKAGES,torch))

lock-one lock-oldest: export PIP_CONSTRAINT :=
lock-one lock-oldest: RESOLVE = build/lock/bin/python -m pip install --quiet --dry-run --report build/lock/report.json
lock-one: EXTRAS = '.[dev,s3,gcs,ray]'
lock-oldest: EXTRAS = '.[dev,s3,ray]' # gcsfs wants a newer fsspec than the oldest datasets does
lock-one:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	$(RESOLVE) $(LOCKED) $(EXTRAS)
	build/lock/bin/python .ci/lock.py build/lock/report.json >$(PINS)

lock-oldest:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	$(RESOLVE) --no-deps .
	build/lock/bin/python .ci/lock.py build/lock/report.json --oldest >build/lock/oldest.txt
	$(RESOLVE) --constraint build/lock/oldest.txt hatchling $(EXTRAS)
	build/lock/bin/python .ci/lock.py build/lock/report.json >.ci/pins/oldest.txt

clean: ## Remove what make made
	rm -rf $(VENV) .venv-* build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
