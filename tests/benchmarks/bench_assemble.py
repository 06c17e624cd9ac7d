"""Tokens a second that `assemble` moves, one core, for lengths of several kinds.

python tests/benchmarks/bench_assemble.py
"""

from __future__ import annotations

import os
import time

import numpy as np

from packcli.config.choices import COLUMNS
from packcli.packing import Assembler, Origin, RowLayout, make_plan


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    random = np.random.default_rng(0)
    print("million tokens per CPU second, best of 5; 16 M tokens, max_len 2048")
    print("| mean length | strategy | plan, s | input_ids | all columns |\n|---|---|---|---|---|")
    for mean in (80, 500, 2700):
        lengths = np.maximum(1, random.exponential(mean, 16_000_000 // mean)).astype(np.int64)
        ends = np.cumsum(lengths)
        ids = random.integers(0, 100_000, ends[-1]).astype(np.uint32)
        origin = Origin(np.zeros(len(lengths), dtype=np.int32), np.arange(len(lengths)))
        for strategy in ("concat", "best-fit"):
            began = time.process_time()
            plan = make_plan(lengths, 2048, strategy=strategy)
            seconds = time.process_time() - began
            speeds = []
            for columns in (("input_ids",), COLUMNS):
                layout = RowLayout(columns=columns, pad_id=0, isolate=True, ragged=len(columns) == 1)
                assembler = Assembler(plan, ids, ends - lengths, origin, layout)
                best = float("inf")
                for _ in range(5):
                    began = time.process_time()
                    for _batch in assembler.batches():
                        pass
                    best = min(best, time.process_time() - began)
                speeds.append(f"{len(ids) / best / 1e6:,.0f}")
            print(f"| {mean} | {strategy} | {seconds:.3f} | {' | '.join(speeds)} |")


if __name__ == "__main__":
    main()
