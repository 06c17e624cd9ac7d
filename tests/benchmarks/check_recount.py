"""Packs an input with every strategy and compares every figure of stats.json with a slow recount of the raw rows.

    python tests/benchmarks/check_recount.py INPUT --tokenizer DIR [--text-template T] [--max-len N] [--strategy NAME]
    python tests/benchmarks/check_recount.py gsm8k.jsonl --tokenizer DIR --prompt question --completion answer
    python tests/benchmarks/check_recount.py chat.jsonl --tokenizer DIR --messages messages

INPUT is .jsonl, .jsonl.zst or .parquet, read by json or pyarrow and encoded by `tokenizers`; see tests/slow_recount.py.
Of prompts and chats every id and label of every row is compared too. --messages needs a tokenizer whose template
writes <|im_start|>role, newline, content, <|im_end|> and no more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import pyarrow.parquet as pq
from bench_pack import BUILTIN, lines_of
from slow_recount import chat_of, differences, prompt_of
from tokenizer_files import Oracle

STRATEGIES = ("concat", "best-fit", "shuffle-fit", "first-fit", "next-fit", "pad")


def rows_of(path: Path):
    if path.suffix == ".parquet":
        yield from pq.read_table(path).to_pylist()
        return
    for lines in lines_of(path):
        yield from (json.loads(line) for line in lines if line.strip())


def read(args, engine, template: str):
    """The documents as `differences` takes them, how many are empty, and the options of pack that mean the same."""
    if args.messages:
        return {(0, index): chat_of(engine, row[args.messages]) for index, row in enumerate(rows_of(args.input))}, 0, []
    if args.prompt:
        eos = engine.token_to_id(json.loads((args.tokenizer / "tokenizer_config.json").read_bytes())["eos_token"])
        documents = {
            (0, index): prompt_of(engine, row[args.prompt], row[args.completion], eos)
            for index, row in enumerate(rows_of(args.input))
        }
        return documents, 0, ["--field", f"prompt={args.prompt}", "--field", f"completion={args.completion}"]
    texts = [template.format(**row) for row in rows_of(args.input)]
    full = [text for text in texts if text]
    lengths = []
    for first in range(0, len(full), 256):
        batch = engine.encode_batch_fast(full[first : first + 256], add_special_tokens=False)
        lengths += [len(each.ids) + 1 for each in batch]
    return lengths, len(texts) - len(full), ["--text-template", args.text_template]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=BUILTIN)
    parser.add_argument("--text-template", default="{text}")
    parser.add_argument("--prompt", help="field of the prompt")
    parser.add_argument("--completion", help="field of the completion")
    parser.add_argument("--messages", help="field of the messages")
    parser.add_argument("--max-len", type=int, default=2048)
    parser.add_argument("--overlong", help="split, truncate or drop")
    parser.add_argument("--strategy", choices=STRATEGIES, nargs="*", default=STRATEGIES)
    args = parser.parse_args()
    engine = Oracle(args.tokenizer / "tokenizer.json")
    documents, num_empty, options = read(args, engine, args.text_template.encode().decode("unicode_escape"))
    if args.overlong:
        options += ["--overlong", args.overlong]
    if not args.messages:
        options.append("--no-bos")
    wrong_at_all = False
    for strategy in args.strategy:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            pack = [sys.executable, "-m", "packcli", "pack", str(args.input), "-o", str(out), "-q", *options]
            pack += ["--strategy", strategy, "--max-len", str(args.max_len), "--tokenizer", str(args.tokenizer)]
            subprocess.run(pack, check=True)
            wrong, num_compared, num_loss = differences(out, documents, num_empty=num_empty, num_special=1)
            again = subprocess.run(
                [sys.executable, "-m", "packcli", "stats", str(out), "--recount", "--json"], stdout=-1
            )
            counted = json.loads(again.stdout)["recount"]["num_tokens_loss"]
        wrong_at_all |= bool(wrong) or again.returncode != 0 or counted != num_loss
        seconds = time.perf_counter() - began
        print(
            f"{args.input.name} {strategy}: {num_compared} figures, {len(wrong)} differ {wrong or ''}, "
            f"{num_loss:,} labels ({seconds:.0f} s)",
            flush=True,
        )
    raise SystemExit(wrong_at_all)


if __name__ == "__main__":
    main()
