"""Packs an input with every strategy and compares every figure of stats.json with a slow recount of the raw rows.

    python tests/benchmarks/check_recount.py INPUT --tokenizer DIR [--text-template T] [--max-len N] [--strategy NAME]

INPUT is .jsonl, .jsonl.zst or .parquet, read by json or pyarrow and encoded by `tokenizers`; see tests/slow_recount.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow.parquet as pq
import tokenizers
from bench_pack import BUILTIN, lines_of
from slow_recount import differences

STRATEGIES = ("concat", "best-fit", "shuffle-fit", "first-fit", "next-fit", "pad")


def texts_of(path: Path, template: str):
    rows = (
        pq.read_table(path).to_pylist()
        if path.suffix == ".parquet"
        else (json.loads(line) for lines in lines_of(path) for line in lines if line.strip())
    )
    for row in rows:
        yield template.format(**row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=BUILTIN)
    parser.add_argument("--text-template", default="{text}")
    parser.add_argument("--max-len", type=int, default=2048)
    parser.add_argument("--strategy", choices=STRATEGIES, nargs="*", default=STRATEGIES)
    args = parser.parse_args()
    template = args.text_template.encode().decode("unicode_escape")
    texts = list(texts_of(args.input, template))
    engine = tokenizers.Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    engine.encode_special_tokens = True
    full = [text for text in texts if text]
    lengths = []
    for first in range(0, len(full), 256):
        batch = engine.encode_batch_fast(full[first : first + 256], add_special_tokens=False)
        lengths += [len(each.ids) + 1 for each in batch]
    wrong_at_all = False
    for strategy in args.strategy:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            pack = [sys.executable, "-m", "packcli", "pack", str(args.input), "-o", str(out), "-q", "--no-bos"]
            pack += ["--strategy", strategy, "--max-len", str(args.max_len), "--tokenizer", str(args.tokenizer)]
            subprocess.run([*pack, "--text-template", args.text_template], check=True)
            wrong, num_compared, num_loss = differences(out, lengths, num_empty=len(texts) - len(full), num_special=1)
            again = subprocess.run(
                [sys.executable, "-m", "packcli", "stats", str(out), "--recount", "--json"], stdout=-1
            )
            counted = json.loads(again.stdout)["recount"]["num_tokens_loss"]
        wrong_at_all |= bool(wrong) or again.returncode != 0 or counted != num_loss
        seconds = time.perf_counter() - began
        print(
            f"{args.input.name} {strategy}: {num_compared} figures, {len(wrong)} differ {wrong or ''} ({seconds:.0f} s)"
        )
    raise SystemExit(wrong_at_all)


if __name__ == "__main__":
    main()
