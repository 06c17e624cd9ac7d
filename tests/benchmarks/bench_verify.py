"""How fast an output is checked: sha256 alone, the rows alone on one core, and all of `packcli verify`.

python tests/benchmarks/bench_verify.py INPUT.jsonl[.zst] [--tokenizer DIR]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import packcli
from packcli.dataset import check_files, run_schema
from packcli.dataset.checks.rows import check_rows_of, rules_of
from packcli.storage.files import file_sha256
from packcli.verification import verify

TURNS = 5


def best(work: Callable[[Path], object], paths: list[Path]) -> float:
    """Seconds of the fastest turn over all paths."""
    times = []
    for _ in range(TURNS):
        began = time.perf_counter()
        for path in paths:
            work(path)
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--tokenizer", default="builtin")
    args = parser.parse_args()
    print("| strategy | Mtok | sha256, GB/s | rows, Mtok/s on one core | packcli verify, s |\n|---|---|---|---|---|")
    for strategy in ("concat", "best-fit", "pad"):
        with tempfile.TemporaryDirectory() as temporary:
            output = packcli.pack(args.input, f"{temporary}/out", tokenizer=args.tokenizer, strategy=strategy).output
            record, problems = check_files(output)
            assert record is not None
            assert not problems
            schema, rules = run_schema(record.config, record.tokenizer), rules_of(record)
            shards = sorted(output.glob("*.arrow"))
            size = sum(shard.stat().st_size for shard in shards)
            positions = sum(each.stats.num_packs for each in record.sidecars) * record.config.max_len
            hashing = best(file_sha256, shards)
            seconds = best(lambda shard, schema=schema, rules=rules: list(check_rows_of(shard, schema, rules)), shards)
            whole = best(verify, [output])
            figures = (
                f"{positions / 1e6:.1f} | {size / hashing / 1e9:.2f} | {positions / seconds / 1e6:.0f} | {whole:.2f}"
            )
            print(f"| {strategy} | {figures} |")


if __name__ == "__main__":
    main()
