"""Padded against packed training of a random Llama: tokens a second and peak memory, attention by attention.

    python tests/benchmarks/bench_training.py gsm8k.jsonl --text-template '{question}\\n{answer}'
    python tests/benchmarks/bench_training.py alpaca.jsonl --attention sdpa flex flash varlen

Needs torch and transformers (the environment of `make integration-torch`). With CUDA it takes a Llama of 1.2 B
parameters in bfloat16, on a CPU a tiny one in float32; every measurement has a process of its own. Padded batches
hold one document a row, in a random order, and are as wide as their longest; both kinds of batch hold about the same
number of positions, `--positions`. A token counts when it is of a document, whether it carries loss or not. On a CPU
one thread computes, and seconds are those of the CPU: what else the machine does hardly matters.

    sdpa, eager    as they are; a mask of documents makes sdpa pass over nothing
    flex           compiled by Transformers; no backward on a CPU
    flash          needs flash-attn or Transformers' kernels, and CUDA
    varlen         torch.nn.attention.varlen, with CUDA; on a CPU document after document in sdpa, which shows that the
                   script runs and no more. Padded batches take sdpa.

nano-patch-sequence-pack publishes, for 7B models, how much faster packed training is: ORCA-MATH 1.38 times, FLAN 1.89.
The ratio hangs on the lengths (a padded batch of few, alike documents wastes little), so compare orders of magnitude.

There was no GPU at hand when this was written. On a CPU core of a busy machine, the first line with --max-len 512
--positions 2048 --steps 4 --attention sdpa, tokens and positions for each second of the CPU:

    7,473 documents, 2,411 packs of 512, utilisation 99.67%; tiny on cpu, 2,048 positions a batch, 4 steps
    sdpa   padded           848 tokens/s         1,409 positions/s    1.34 GiB
    sdpa   packed         1,298 tokens/s         1,303 positions/s    1.30 GiB
    sdpa   packed is 1.53 times as fast
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk
from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import flash_attention_mask

import packcli
from packcli import training

SIZES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4},
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
IMPLEMENTATIONS = {
    "sdpa": "sdpa",
    "eager": "eager",
    "flex": "flex_attention",
    "flash": "flash_attention_2",
    "varlen": "torch_varlen",
}
PUBLISHED = "published by nano-patch-sequence-pack for 7B models: ORCA-MATH 1.38, FLAN 1.89"
WARM_UP = 2
"""Steps before the clock starts."""


def varlen(module, query, key, value, attention_mask, scaling=None, cu_seq_lens_q=None, max_length_q=None, **_):
    """Attention of Transformers on torch's varlen_attn: [B, H, L, D] and the ends of documents in the whole batch."""
    rows, _, length, _ = query.shape
    flat = [each.transpose(1, 2).flatten(0, 1) for each in (query, key, value)]
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        ends = cu_seq_lens_q
        given = {"scale": scaling, "window_size": (-1, 0), "enable_gqa": True}  # no token to the right
        out = varlen_attn(*flat, ends, ends, max_length_q, max_length_q, **given)
    else:
        pieces = []
        for begin, end in itertools.pairwise(cu_seq_lens_q.tolist()):
            heads = (each[begin:end].transpose(0, 1)[None] for each in flat)
            given = {"is_causal": True, "scale": scaling, "enable_gqa": True}
            pieces.append(torch.nn.functional.scaled_dot_product_attention(*heads, **given)[0].transpose(0, 1))
        out = torch.cat(pieces)
    return out.unflatten(0, (rows, length)), None


def documents(packed):
    """(ids, labels) of every document of at most a row's length, in the order of the input."""
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
    """(batch, tokens of documents in it): one document a row; as wide as the longest, about `positions` positions."""
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

    lengths = [len(ids) for ids, _ in batch]
    mask = torch.tensor([[1] * length + [0] * (width - length) for length in lengths])
    made = {"input_ids": fill(0, 0), "labels": fill(1, -100), "attention_mask": mask, "use_cache": False}
    return made, sum(lengths)


def packed_batches(stored, rows, attention, positions, max_len):
    """(batch, tokens of documents in it): packs, `positions` positions."""
    count = max(positions // max_len, 1)
    collate = training.collator("flash" if attention == "varlen" else attention)
    for first in range(0, len(rows), count):
        at = range(first, min(first + count, len(rows)))
        sources = [source for sources in stored[at.start : at.stop]["sources"] for source in sources]
        yield collate([rows[each] for each in at]), sum(source["end"] - source["start"] for source in sources)


def measure(kind, attention, directory, size, vocab_size, max_len, positions, steps):
    """(tokens a second, positions a second, peak memory in bytes) of a run, after WARM_UP steps."""
    AttentionInterface.register("torch_varlen", varlen)
    AttentionMaskInterface.register("torch_varlen", flash_attention_mask)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = time.perf_counter if device == "cuda" else time.process_time
    if device == "cpu":
        torch.set_num_threads(1)
    stored = load_from_disk(directory)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocab_size, max_position_embeddings=max_len, **SIZES[size])
    uses = "sdpa" if (kind, attention) == ("padded", "varlen") else attention
    config._attn_implementation = IMPLEMENTATIONS[uses]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = LlamaForCausalLM._from_config(config, dtype=dtype).to(device)
    if kind == "padded":
        batches = padded_batches(documents(stored), positions)
    else:
        batches = packed_batches(stored, packcli.load(directory, row_type="torch"), attention, positions, max_len)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    tokens = seen = done = 0
    began = 0.0
    for step, (batch, num_tokens) in enumerate(itertools.islice(batches, steps + WARM_UP)):
        if step == WARM_UP:
            if device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            began = clock()
        moved = {name: each.to(device) if torch.is_tensor(each) else each for name, each in batch.items()}
        model(**moved).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= WARM_UP:
            seen += batch["input_ids"].numel()
            tokens += num_tokens
            done += 1
    if done < steps:
        print(f"  the input gave {done} batches of {steps}")
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = clock() - began
    memory = (
        torch.cuda.max_memory_allocated()
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return tokens / seconds, seen / seconds, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input")
    parser.add_argument("--size", choices=SIZES)
    parser.add_argument("--max-len", type=int, default=2048)
    parser.add_argument("--positions", type=int, help="positions of a batch [default: 8 rows, or 2 on a CPU]")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tokenizer", default="builtin")
    parser.add_argument("--text-template")
    parser.add_argument("--attention", nargs="+", choices=IMPLEMENTATIONS, default=["sdpa", "varlen"])
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
            overlong="split",
            tokenizer=given.tokenizer,
            text_template=given.text_template,
            workers=1,
        )
        stats = report.stats
        print(
            f"{stats.num_documents_packed:,} documents, {stats.num_packs:,} packs of {given.max_len:,}, utilisation "
            f"{report.derived['utilisation']:.2%}; {size} on {device}, {positions:,} positions a batch, "
            f"{given.steps} steps"
        )
        common = (
            str(report.output),
            size,
            report.manifest["tokenizer"]["vocab_size"],
            given.max_len,
            positions,
            given.steps,
        )
        for attention in given.attention:
            if device == "cpu" and attention in ("flex", "flash"):
                print(f"{attention:6} needs CUDA" + (" for its backward" if attention == "flex" else ""))
                continue
            found = {}
            for kind in ("padded", "packed"):
                spawn = multiprocessing.get_context("spawn")
                with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
                    tokens, speed, memory = found[kind] = pool.submit(measure, kind, attention, *common).result()
                print(
                    f"{attention:6} {kind}  {tokens:12,.0f} tokens/s  {speed:12,.0f} positions/s  "
                    f"{memory / 2**30:6.2f} GiB"
                )
            ratio = found["packed"][0] / found["padded"][0]
            print(f"{attention:6} packed is {ratio:.2f} times as fast; {PUBLISHED}")
            print(json.dumps({"attention": attention, "ratio": round(ratio, 3)}))


if __name__ == "__main__":
    main()
