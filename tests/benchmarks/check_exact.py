"""Packs an input and holds every token against a reference that uses `tokenizers` only.

    python tests/benchmarks/check_exact.py INPUT --tokenizer DIR [--template T] [--unit-bytes N] [--engine E]

concat    the packs of every unit equal the ten lines of `concat_reference`, token for token
best-fit  every document is there once, its segments joined are its tokens, its text decodes to the input,
          nothing else is in any pack, and in + special = packed + dropped

Slow on purpose: `tokenizers` encodes everything, one document after the other.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
from datasets import load_from_disk

import packcli

MAX_LEN = 2048


def concat_reference(texts, tokenizer, bos, eos, pad):
    stream = []
    for text in texts:
        stream += [bos] * (bos is not None) + tokenizer.encode(text, add_special_tokens=False).ids + [eos]
    rows = [stream[start : start + MAX_LEN] for start in range(0, len(stream), MAX_LEN)]
    rows[-1] += [pad] * (MAX_LEN - len(rows[-1]))
    return rows


def read_texts(path: Path, template: str | None) -> list[str]:
    if path.suffix == ".parquet":
        return pq.read_table(path, columns=["text"]).column("text").to_pylist()
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    elif path.suffix == ".zst":
        raw = subprocess.run(["zstd", "-dc", str(path)], check=True, capture_output=True).stdout
    rows = [json.loads(line) for line in raw.split(b"\n") if line.strip()]
    return [template.format(**row) if template else row["text"] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--template")
    parser.add_argument("--unit-bytes", type=int, default=128 * 2**20)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--strategies", default="concat,best-fit")
    args = parser.parse_args()
    template = args.template.replace("\\n", "\n") if args.template else None
    texts = read_texts(args.input, template)
    tokenizer = tokenizers.Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    for strategy in args.strategies.split(","):
        with tempfile.TemporaryDirectory() as folder:
            report = packcli.pack(
                args.input,
                Path(folder) / "out",
                tokenizer=str(args.tokenizer),
                strategy=strategy,
                max_len=MAX_LEN,
                unit_bytes=args.unit_bytes,
                text_template=template,
                tokenizer_engine=args.engine,
            )
            check = check_concat if strategy == "concat" else check_documents
            shards, tokens = check(report, texts, tokenizer)
        stats = report.stats
        assert stats.num_tokens_in + stats.num_tokens_special == stats.num_tokens_packed + stats.num_tokens_dropped
        print(
            f"{args.input.name} {args.tokenizer.name} {strategy}: equal; {len(texts):,} documents, {tokens:,} tokens, "
            f"{stats.num_packs:,} packs, {shards} shards, {report.run['tokenizer_engine']}"
        )


def check_concat(report, texts, tokenizer) -> tuple[int, int]:
    special = report.manifest["tokenizer"]
    shards = sorted(report.output.glob("data-*.arrow"))
    next_row = tokens = 0
    for shard in shards:
        table = pa.ipc.open_stream(pa.memory_map(str(shard))).read_all()
        got = table.column("input_ids").combine_chunks().flatten().to_numpy().reshape(-1, MAX_LEN)
        rows = [source["row"] for pack in table.column("sources").to_pylist() for source in pack]
        assert rows[0] == next_row
        next_row = rows[-1] + 1
        expected = concat_reference(
            texts[rows[0] : next_row], tokenizer, special["bos_id"], special["eos_id"], special["pad_id"]
        )
        assert np.array_equal(got, np.array(expected)), shard
        tokens += got.size
    assert next_row == len(texts) > 0
    return len(shards), tokens


def check_documents(report, texts, tokenizer) -> tuple[int, int]:
    special = report.manifest["tokenizer"]
    pieces: dict[int, list[tuple[int, int, list[int]]]] = {}
    padding = 0
    for pack in load_from_disk(str(report.output)):
        place = 0
        for source, length in zip(pack["sources"], pack["seq_lengths"], strict=False):
            assert source["end"] - source["start"] == length
            ids = pack["input_ids"][place : place + length]
            pieces.setdefault(source["row"], []).append((source["start"], source["end"], ids))
            place += length
        assert pack["input_ids"][place:] == [special["pad_id"]] * (MAX_LEN - place)
        padding += MAX_LEN - place
    assert sorted(pieces) == [row for row, text in enumerate(texts) if text]
    normalizer = (json.loads(tokenizer.to_str())["normalizer"] or {"type": None})["type"]
    tokens = 0
    for row, found in pieces.items():
        found.sort()
        assert [start for start, _, _ in found] == [0] + [end for _, end, _ in found[:-1]]
        ids = [each for _, _, part in found for each in part]
        head = [special["bos_id"]] * (special["bos_id"] is not None)
        encoded = tokenizer.encode(texts[row], add_special_tokens=False).ids
        assert ids == [*head, *encoded, special["eos_id"]], row
        decoded = tokenizer.decode(ids[len(head) : -1], skip_special_tokens=False)
        assert decoded == normalized(texts[row], normalizer), row
        tokens += len(ids)
    assert tokens + padding == report.stats.num_packs * MAX_LEN
    return len(list(report.output.glob("data-*.arrow"))), tokens


def normalized(text: str, normalizer: str | None) -> str:
    """What a tokenizer can give back of a text: its normalizer may lose something, such as NFC."""
    if normalizer == "NFC":
        return unicodedata.normalize("NFC", text)
    if normalizer == "Sequence":  # Llama 2: a space and U+2581 are the same to it
        return text.replace("\u2581", " ")
    return text


if __name__ == "__main__":
    sys.exit(main())
