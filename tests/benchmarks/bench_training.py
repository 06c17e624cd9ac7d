"""Padded against packed training of a random Llama: tokens a second and peak memory, attention by attention.

    python tests/benchmarks/bench_training.py INPUT.jsonl [--size tiny|1b] [--max-len 2048] [--attention sdpa ...]

Needs torch and transformers (the environment of `make test-train`). On a CPU it takes the tiny model in float32;
with CUDA the 1B one in bfloat16, where flash needs flash-attn or Transformers' kernels. Padded batches hold one
document a row and are as wide as their longest; both kinds of batch hold about the same number of positions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk
from transformers import LlamaConfig, LlamaForCausalLM

import packcli
from packcli import training

SIZES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
}
IMPLEMENTATIONS = {"sdpa": "sdpa", "eager": "eager", "flex": "flex_attention", "flash": "flash_attention_2"}


def documents(packed):
    """Every document of at most a row's length, as labels and ids, in the order of the input."""
    found = {}
    for row in packed:
        begin = 0
        for source in row["sources"]:
            size = source["end"] - source["start"]
            key = source["source"], source["row"], source["start"]
            found[key] = tuple(row[name][begin : begin + size] for name in ("input_ids", "labels"))
            begin += size
    return [found[key] for key in sorted(found)]


def padded_batches(docs, positions):
    """One document a row, in a random order; a batch is as wide as its longest, and has about `positions` positions."""
    batch, width = [], 0
    for at in np.random.default_rng(0).permutation(len(docs)):
        longer = max(width, len(docs[at][0]))
        if batch and longer * (len(batch) + 1) > positions:
            yield padded(batch, width)
            batch, longer = [], len(docs[at][0])
        batch.append(docs[at])
        width = longer
    yield padded(batch, width)


def padded(batch, width):
    def fill(which, value):
        return torch.tensor([[*doc[which], *[value] * (width - len(doc[which]))] for doc in batch])

    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch])
    return {"input_ids": fill(0, 0), "labels": fill(1, -100), "attention_mask": mask, "use_cache": False}


def packed_batches(packed, attention, positions, max_len):
    rows = max(positions // max_len, 1)
    collate = training.collator(attention)
    for first in range(0, len(packed), rows):
        yield collate([packed[at] for at in range(first, min(first + rows, len(packed)))])


def train(model, batches, steps, device):
    """(real tokens a second, positions a second, peak memory in bytes or 0) after two steps of warming up."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    tokens = positions = 0
    began = 0.0
    for step, batch in enumerate(batches):
        if step == steps + 2:
            break
        if step == 2:
            if device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
        moved = {name: each.to(device) if torch.is_tensor(each) else each for name, each in batch.items()}
        model(**moved).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= 2:
            positions += batch["input_ids"].numel()
            firsts = (batch["position_ids"] == 0).sum() if "position_ids" in batch else len(batch["labels"])
            # Labels of first tokens are masked in both; the padding of a row counts as one token.
            tokens += int((batch["labels"] != -100).sum() + firsts)
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return tokens / seconds, positions / seconds, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input")
    parser.add_argument("--size", choices=SIZES)
    parser.add_argument("--max-len", type=int, default=2048)
    parser.add_argument("--positions", type=int, help="positions of a batch [default: 8 rows, or 2 on a CPU]")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tokenizer", default="builtin")
    parser.add_argument("--text-template")
    parser.add_argument("--attention", nargs="+", choices=IMPLEMENTATIONS, default=["sdpa"])
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = given.size or ("1b" if device == "cuda" else "tiny")
    positions = given.positions or given.max_len * (8 if device == "cuda" else 2)
    with tempfile.TemporaryDirectory() as folder:
        report = packcli.pack(
            given.input,
            Path(folder) / "packed",
            max_len=given.max_len,
            strategy="best-fit",
            tokenizer=given.tokenizer,
            text_template=given.text_template,
            workers=1,
        )
        vocab_size = report.manifest["tokenizer"]["vocab_size"]
        stored = load_from_disk(str(report.output))
        docs, rows = documents(stored), packcli.load(report.output, row_type="torch")
        print(
            f"{len(docs):,} documents, {len(rows):,} packs, utilisation {report.derived['utilisation']:.2%}, {device}"
        )
        for attention in given.attention:
            found = {}
            for kind in ("padded", "packed"):
                torch.manual_seed(0)
                config = LlamaConfig(vocab_size=vocab_size, max_position_embeddings=given.max_len, **SIZES[size])
                config._attn_implementation = IMPLEMENTATIONS[attention]
                dtype = torch.bfloat16 if device == "cuda" else torch.float32
                model = LlamaForCausalLM._from_config(config, dtype=dtype).to(device)
                batches = (
                    padded_batches(docs, positions)
                    if kind == "padded"
                    else packed_batches(rows, attention, positions, given.max_len)
                )
                tokens, speed, memory = found[kind] = train(model, batches, given.steps, device)
                print(
                    f"{attention:6} {kind}  {tokens:12,.0f} tokens/s  {speed:12,.0f} positions/s  "
                    f"{memory / 2**30:6.1f} GiB"
                )
                del model
            print(json.dumps({"attention": attention, "ratio": round(found["packed"][0] / found["padded"][0], 3)}))


if __name__ == "__main__":
    main()
